"""Owen values written out literally, by sets of pixels; and the maps of the authors' package on its own trees."""

import numpy as np
import torch

from methods._partition import lab, merge_tree
from methods.shap_bpt import owen


def literal(model, x, target, *, samples=16, trees=None, together=4, fill="zero"):
    maps = []
    for image, c in zip(x, target, strict=True):
        tree, HW = merge_tree(lab(image)), x.shape[2] * x.shape[3]
        parts = {HW + i: (int(a), int(b)) for i, (a, b) in enumerate(tree)}

        def pixels(node, parts=parts):
            return {node} if node not in parts else pixels(parts[node][0]) | pixels(parts[node][1])

        def f(S, image=image, c=c, HW=HW):
            M = torch.zeros(HW, dtype=x.dtype)
            M[sorted(S)] = 1
            with torch.no_grad():
                return float(model((image * M.view(image.shape[1:]))[None])[0, c])

        items, phi, left = [(2 * HW - 2, set(), f(set()), f(set(range(HW))), 1.0)], [0.0] * HW, samples // 2
        while left:
            items.sort(key=lambda t: -t[4] * abs(t[3] - t[2]))
            chosen, items = items[: min(together, left)], items[min(together, left) :]
            left -= len(chosen)
            for AB, S, low, high, w in chosen:
                A, B = parts[AB]
                with_A, with_B = f(S | pixels(A)), f(S | pixels(B))
                items += [(A, S, low, with_A, w / 2), (B, S, low, with_B, w / 2)]
                items += [(B, S | pixels(A), with_A, high, w / 2), (A, S | pixels(B), with_B, high, w / 2)]
        for AB, _, low, high, w in items:
            for u in pixels(AB):
                phi[u] += w * (high - low) / len(pixels(AB))
        maps.append(torch.tensor(phi, dtype=x.dtype).view(1, *image.shape[1:]))
    return torch.stack(maps)


literal.keywords = {"samples": 16}


def authors(net, x, target, golden):
    """The top class and the target together, as they were explained there."""
    trees = [np.stack([a, b], axis=1).astype(int) for a, b in zip(golden["left"], golden["right"], strict=True)]
    both = torch.stack([torch.from_numpy(golden["target_top"]), target], dim=1)  # 2 2

    def f(masks):
        M = torch.from_numpy(masks).float()
        with torch.no_grad():
            p = net((x * M[:, :, None]).flatten(0, 1)).softmax(dim=1).unflatten(0, M.shape[:2])
        return p.gather(2, both.expand(len(p), -1, -1)).double().numpy()

    one, eight, all_ = (torch.from_numpy(owen(f, trees, (64, 64), 30, n)).float() for n in (1, 8, 32))
    return {"map_top": one[:, 0], "map": one[:, 1], "map_batch16": eight[:, 1], "map_batch64": all_[:, 1]}
