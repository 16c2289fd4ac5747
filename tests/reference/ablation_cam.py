"""Ablation-CAM, by pytorch-grad-cam, and written out literally."""

import pytest
import torch
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam.ablation_layer import AblationLayer

from peers import at, grad_cam_package, on


def literal(model, x, target, *, layer, chunk=1024):
    """Channel by channel, image by image, with the whole network run each time."""
    maps = []
    for b, (A, _, y) in enumerate(at(model, x, target, layer)):
        L = torch.zeros_like(A[0])
        for k in range(len(A)):

            def ablate(_module, _args, out, k=k):
                out = out.clone()
                if out.ndim == 3:
                    out[:, -16:, k] = 0  # patch tokens
                elif out.shape[1] == len(A):
                    out[:, k] = 0
                else:
                    out[..., k] = 0
                return out

            handle = model.get_submodule(layer).register_forward_hook(ablate)
            with torch.no_grad():
                y_k = float(model(x[b : b + 1])[0, target[b]])
            handle.remove()
            L += (y - y_k) / y * A[k]
        maps.append(L.clamp(min=0)[None])
    return torch.stack(maps)


@on("relu", rtol=1e-4, atol=1e-5)  # sets a channel to 0 only where the layer's minimum is 0; scores are float32
def grad_cam(model, x, target, *, layer, chunk=1024):
    if layer == "layer4.bn2":
        pytest.skip("pytorch-grad-cam ablates to minimum - 1e7 where activations can be negative")
    return grad_cam_package(AblationCAM, model, x, target, layer, ablation_layer=AblationLayer()).relu()
