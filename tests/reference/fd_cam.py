"""FD-CAM, written out literally, after the authors' code."""

import numpy as np
import torch

from methods._torch import minmax, upsample
from methods.fd_cam import fd_cam
from peers import at


def literal(model, x, target, *, layer, chunk=128, theta=0.95):
    """One image, one group of channels at a time, each time with the whole network."""
    maps = []
    for b, (A, g, y) in enumerate(at(model, x, target, layer)):

        def score(keep, b=b, A=A):
            def mask(_module, _args, out):
                out = out.clone()
                if out.ndim == 3:
                    out[:, -16:, ~keep] = 0  # patch tokens
                elif out.shape[1] == len(A):
                    out[:, ~keep] = 0
                else:
                    out[..., ~keep] = 0
                return out

            handle = model.get_submodule(layer).register_forward_hook(mask)
            with torch.no_grad():
                value = float(model(x[b : b + 1])[0, target[b]])
            handle.remove()
            return value

        flat = A.flatten(1).numpy()
        s = []
        for k in range(len(A)):
            norms = [np.linalg.norm(flat[k]) * np.linalg.norm(f) for f in flat]
            cos = np.array([flat[k] @ f / n if n > 0 else 0.0 for f, n in zip(flat, norms, strict=True)])
            group = torch.as_tensor(cos > np.quantile(cos, theta))
            s.append(score(group) + y - score(~group))
        s, gap = np.array(s), g.mean(dim=(1, 2)).numpy()
        w = np.exp((s - s.min()) / (s.max() - s.min())) * (gap - gap.min()) / (gap.max() - gap.min()) - 0.5
        maps.append(sum(float(w[k]) * A[k] for k in range(len(A))).clamp(min=0)[None])
    return torch.stack(maps)


def authors(net, x, target, golden):
    L = fd_cam(net, x, target, layer="layer4", theta=0.95)
    return {
        "map": L,
        "map_returned": minmax(upsample(L, x)),
        "map_threshold80": fd_cam(net, x, target, layer="layer4", theta=0.8),
    }
