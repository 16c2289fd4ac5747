"""The masks of TorchRay, by its authors. The first step sorts equal values, so that no other code gives the same."""

import torch

from methods.extremal_perturbation import extremal_perturbation


def authors(net, x, target, golden):
    def ours(score=target, **keywords):
        masks = [
            extremal_perturbation(net, x, score, areas=(a,), steps=20, step=7, sigma=10.0, **keywords)
            for a in (0.1, 0.4)
        ]
        return torch.cat(masks, dim=1)  # image area H W

    def contrast(y):
        others = y.scatter(1, target[:, None], -100)
        return y.gather(1, target[:, None])[:, 0] - others.amax(dim=1)

    return {
        "map": ours(),
        "map_delete": ours(reward="delete")[..., ::2, ::2],
        "map_dual_fade": ours(reward="dual", fill="zero")[..., ::2, ::2],
        "map_contrastive": ours(contrast)[..., ::2, ::2],
    }
