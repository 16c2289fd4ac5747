"""Recipro-CAM, written out literally."""

import torch

from methods.recipro_cam import recipro_cam


def literal(model, x, target, *, layer, chunk=128):
    """Position by position and image by image, each time with the whole network."""
    maps = []
    for b in range(len(x)):
        shape = {}

        def keep_one(_module, _args, out, at=None):
            layout = "tokens" if out.ndim == 3 else "nhwc" if out.shape[1] == out.shape[2] != out.shape[3] else "nchw"
            grid = out[:, -16:].unflatten(1, (4, 4)) if layout == "tokens" else out
            grid = grid.permute(0, 2, 3, 1) if layout == "nchw" else grid  # 1 h w K
            shape["hw"] = grid.shape[1:3]
            if at is None:
                return None
            only = torch.zeros_like(grid)
            only[:, at[0], at[1]] = grid[:, at[0], at[1]]
            if layout == "tokens":
                return torch.cat([out[:, :-16], only.flatten(1, 2)], dim=1)
            return only.permute(0, 3, 1, 2) if layout == "nchw" else only

        def probability(at, b=b):
            handle = model.get_submodule(layer).register_forward_hook(lambda m, a, out: keep_one(m, a, out, at))
            with torch.no_grad():
                logits = model(x[b : b + 1])[0]
            handle.remove()
            return float(logits.exp()[target[b]] / logits.exp().sum())

        probability(None)
        h, w = shape["hw"]
        Y = torch.tensor([[probability((i, j)) for j in range(w)] for i in range(h)], dtype=x.dtype)
        maps.append(((Y - Y.min()) / (Y.max() - Y.min()))[None])
    return torch.stack(maps)


def authors(net, x, target, golden):
    return {
        "map": recipro_cam(net, x, target, layer="layer4"),
        "map_gaussian": recipro_cam(net, x, target, layer="layer4", gaussian=True),
    }
