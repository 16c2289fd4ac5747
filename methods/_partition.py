"""The binary partition tree of an image, for ShapBPT (`shap_bpt` has the equation), in plain Python on the CPU."""

import heapq
import itertools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, UInt8
from skimage.color import rgb2lab
from torch import Tensor

from methods._regions import picture

Tree = Int[np.ndarray, "N 2"]  # the two parts of node HW + i; nodes below HW are pixels, row by row


def order(tree: Tree, HW: int) -> Callable[[int], Int[np.ndarray, " n"]]:
    """A function of a node: its pixels. They are one run of the pixels in the order of the leaves."""
    area = np.ones(2 * HW - 1, dtype=np.int64)
    for i, (a, b) in enumerate(tree):
        area[HW + i] = area[a] + area[b]
    first = np.zeros(2 * HW - 1, dtype=np.int64)
    for i in range(HW - 2, -1, -1):  # a node comes after its parts
        a, b = tree[i]
        first[a], first[b] = first[HW + i], first[HW + i] + area[a]
    leaves = np.argsort(first[:HW])
    return lambda node: leaves[first[node] : first[node] + area[node]]


def lab(image: Float[Tensor, "C H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """L, a and b, each as 0 .. 255, of the image in [0, 1]."""
    rgb = (picture(image) * 255).round() / 255
    return ((rgb2lab(rgb) + np.array([0, 128, 128])) * (255 / 100, 255 / 256, 255 / 256)).astype(np.uint8)


def merge_tree(image: UInt8[np.ndarray, "H W c"]) -> Tree:
    """The binary partition tree of an image; pixels touch along sides and, with an edge of length 0, at corners."""
    H, W, _ = image.shape
    HW = H * W
    low = [tuple(v) for v in image.reshape(HW, -1).tolist()]
    high, area, perimeter = list(low), [1] * HW, [4] * HW
    near: list[dict[int, int]] = [{} for _ in range(HW)]  # of each region the others, and the common edge
    for i, j in itertools.product(range(H), range(W)):
        for di, dj, edge in ((0, 1, 1), (1, 0, 1), (1, 1, 0), (1, -1, 0)):
            if i + di < H and 0 <= j + dj < W:
                a, b = i * W + j, (i + di) * W + j + dj
                near[a][b] = near[b][a] = edge

    def cost(a: int, b: int) -> float:
        ends = zip(low[a], low[b], high[a], high[b], strict=True)
        colour = sum((max(p, q) - min(k, l) + 1) ** 2 for k, l, p, q in ends)
        return colour * (area[a] + area[b]) * math.sqrt(perimeter[a] + perimeter[b] - 2 * near[a][b])

    heap = [(cost(a, b), a, b) for a in range(HW) for b in near[a] if a < b]
    heapq.heapify(heap)
    tree: list[tuple[int, int]] = []
    gone: set[int] = set()
    while heap:
        _, a, b = heapq.heappop(heap)
        if a in gone or b in gone:
            continue  # merged before
        new, edge = HW + len(tree), near[a].pop(b)
        tree.append((a, b))
        near[b].pop(a)
        low.append(tuple(map(min, low[a], low[b])))
        high.append(tuple(map(max, high[a], high[b])))
        area.append(area[a] + area[b])
        perimeter.append(perimeter[a] + perimeter[b] - 2 * edge)
        around: dict[int, int] = {}
        for old in (a, b):
            for c, e in near[old].items():
                around[c] = around.get(c, 0) + e
                near[c].pop(old)
        gone |= {a, b}
        near.append(around)
        for c, e in around.items():
            near[c][new] = e
            heapq.heappush(heap, (cost(c, new), c, new))
    return np.array(tree)
