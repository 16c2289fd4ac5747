"""LIME by its authors' package (its weights and its regression), and written out literally."""

import numpy as np
import torch
from lime.lime_base import LimeBase
from sklearn.metrics import pairwise_distances

from methods.lime import draw

GIVEN = {"segments": 4, "samples": 30, "sampling": "lime"}


def _scores(model, x, target, z):
    """The score of each image with only some of 4 x 4 blocks, the others in their mean colour: n B."""
    out = []
    for image, c in zip(x, target, strict=True):
        seen = []
        for row in z:
            blocks = image.clone()
            for k in range(16):
                block = blocks[:, k // 4 * 8 : k // 4 * 8 + 8, k % 4 * 8 : k % 4 * 8 + 8]
                if not row[k]:
                    block[:] = block.mean(dim=(1, 2), keepdim=True)
            seen.append(blocks)
        with torch.no_grad():
            out.append(model(torch.stack(seen))[:, c])
    return torch.stack(out, dim=1).numpy()


def _map(beta):
    return torch.as_tensor(np.array(beta)).view(-1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)


def lime(model, x, target, *, width=None, alpha=1.0, fill="mean", seed=0, chunk=8):
    z = draw(30, 0.5, seed, 16)
    base = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)))
    D = pairwise_distances(z, z[:1], metric="cosine").ravel()
    beta = []
    for f in _scores(model, x, target, z).T:
        _, weights, _, _ = base.explain_instance_with_data(z, f[:, None], D, 0, 100, feature_selection="none")
        beta.append([dict(weights)[k] for k in range(16)])
    return _map(beta)


def literal(model, x, target, *, width=None, alpha=1.0, fill="mean", seed=0, chunk=8):
    """GLIME: unweighted ridge regression with an intercept, as one linear system with R + 1 unknowns."""
    z = draw(30, 1 / (1 + np.exp(-1 / 9)), seed, 16)
    beta = []
    for f in _scores(model, x, target, z).T:
        design = np.hstack([z, np.ones((30, 1))])
        ridge = np.diag([1.0] * 16 + [0.0])
        beta.append(np.linalg.solve(design.T @ design + ridge, design.T @ f)[:16])
    return _map(beta)


lime.keywords = GIVEN
literal.keywords = GIVEN | {"sampling": "glime"}
