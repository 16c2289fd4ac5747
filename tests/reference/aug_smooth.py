"""Augmentation smoothing, by pytorch-grad-cam on Grad-CAM, and written out literally."""

from functools import partial

import torch
from pytorch_grad_cam import GradCAM

from helpers import not_in_place
from methods.grad_cam import grad_cam as _our_grad_cam
from peers import on


def literal(model, x, target, *, chunk=8):
    """The gradient of each image, of its mirror image, and of both at three contrasts."""
    maps = []
    for b in range(len(x)):
        total = torch.zeros_like(x[b])
        for side in (1, -1):
            for factor in (0.9, 1.0, 1.1):
                columns = list(range(x.shape[3]))[::side]
                point = (factor * x[b][:, :, columns]).requires_grad_()
                g = torch.autograd.grad(model(point[None])[0, target[b]], point)[0]
                total += g[:, :, columns] / 6
        maps.append(total)
    return torch.stack(maps)


@on("relu", rtol=1e-5, atol=1e-7)  # its mean is in float32
def grad_cam(model, x, target, *, chunk=8):
    """Its maps cut at 0, as Grad-CAM's are, but neither resized nor rescaled."""

    class Raw(GradCAM):
        def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
            A, g = (
                v[0].numpy() for v in (self.activations_and_grads.activations, self.activations_and_grads.gradients)
            )
            return self.get_cam_image(input_tensor, self.target_layers[0], targets, A, g).clip(min=0)

        def aggregate_multi_layers(self, cam):
            return cam

    cam = Raw(not_in_place(model), [model.get_submodule("layer3")])
    return cam(x, [lambda y, t=t: y[t] for t in target], aug_smooth=True)[:, None]


grad_cam.keywords = {"of": partial(_our_grad_cam, layer="layer3")}
