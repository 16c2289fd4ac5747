"""LayerCAM fused over layers, by torchcam and pytorch-grad-cam, and written out literally."""

import math

import torch
from pytorch_grad_cam import LayerCAM
from torchcam import methods as _torchcam

from helpers import not_in_place, references
from peers import CNN, grid, on

# The last layer of each finer grid: 16 x 16 and 8 x 8 in the CNNs; 8 x 8 in the Swin.
_FINER = {"layer2": ["layer1"], "layer3": ["layer1"], "layer4": ["layer1", "layer3"], "norm": ["patch_embed"]}
_FINER["layer4.bn2"] = _FINER["layer4"]


def literal(model, x, target, *, layer):
    """tanh(2 M / max M) for shallow layers, M / max M for the deepest, resized; then the largest value."""
    layers = [*_FINER.get(layer, []), layer]
    maps = [references("layer_cam")["literal"](model, x, target, layer=name) for name in layers]
    fused = []
    for b in range(len(x)):
        resized = []
        for name, M in zip(layers, maps, strict=True):
            S = M[b] / M[b].max() if M[b].max() > 0 else M[b]
            S = S if name == layer else S.apply_(lambda v: math.tanh(2 * v))
            resized.append(
                torch.nn.functional.interpolate(S[None], size=maps[0].shape[2:], mode="bilinear", align_corners=False)
            )
        fused.append(torch.cat(resized).max(dim=0).values)
    return torch.stack(fused)


@on(*CNN)
def torchcam(model, x, target, *, layer):
    """It scales the deepest layer by tanh, too: that one is handed over as it is. Without its 1e-8 at the maximum."""

    class ShallowOnly(_torchcam.LayerCAM):
        @staticmethod
        def _normalize(cams, spatial_dims=None, eps=1e-300):
            return _torchcam.LayerCAM._normalize(cams, spatial_dims, eps)

        @staticmethod
        def _scale_cams(cams, gamma=2.0):
            return [*_torchcam.LayerCAM._scale_cams(cams[:-1], gamma), cams[-1]]

    model = not_in_place(model)
    with ShallowOnly(model, [*_FINER[layer], layer], input_shape=x.shape[1:]) as extractor:
        maps = extractor(target.tolist(), model(x))
        return extractor.fuse_cams(maps)[:, None]


torchcam.keywords = {"scale": "minmax"}


@on(*CNN, rtol=1e-5, atol=1e-6)  # resized in float32
def grad_cam(model, x, target, *, layer):
    """It resizes to the image and rescales the mean once more: here to the finest layer, and not.

    Maps a million times larger, which their rescaling undoes, drown its 1e-7 beside the maximum.
    """

    class FinestGrid(LayerCAM):
        def get_cam_image(self, *args):
            return 1e6 * super().get_cam_image(*args)

        def get_target_width_height(self, input_tensor):
            return max(A.shape[-2:] for A in self.activations_and_grads.activations)

        def aggregate_multi_layers(self, cam_per_target_layer):
            return torch.as_tensor(sum(cam_per_target_layer) / len(cam_per_target_layer))

    model = not_in_place(model)
    layers = [model.get_submodule(name) for name in [*_FINER.get(layer, []), layer]]
    cam = FinestGrid(model, layers, reshape_transform=grid)
    return cam(x, [lambda y, t=t: y[t] for t in target])


grad_cam.keywords = {"scale": "minmax", "gamma": None, "how": "mean"}
