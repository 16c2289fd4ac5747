"""Boxes of regions: components, contours as in OpenCV, and overlaps. Boxes are x0 y0 x1 y1, both ends inclusive."""

import numpy as np
from jaxtyping import Bool, Int, Real, UInt8
from scipy import ndimage


def components(M: Bool[np.ndarray, "H W"]) -> tuple[Int[np.ndarray, "H W"], Int[np.ndarray, "n 4"]]:
    """Labels 1 ... n of the 8-connected components, numbered in raster order of their first pixels, and their boxes."""
    labels = np.empty(M.shape, dtype=np.int32)
    ndimage.label(M, np.ones((3, 3)), output=labels)
    return labels, _boxes(labels)


def contours(M: Bool[np.ndarray, "H W"]) -> tuple[Int[np.ndarray, "n 4"], int]:
    """Boxes of all contours of a mask, also of holes, and the index of the largest by area (ties: the lowest).

    The box of an 8-connected component is that of its outer contour. The contour of a hole (a 4-connected component of
    the background that is not outside) runs through the pixels around the hole, so its box is one pixel larger on each
    side. The area is that of the polygon through pixel centres: each 2 x 2 pixels of the filled component count 1 if
    all four belong to it, and 1/2 if three do.
    """
    background = np.empty((M.shape[0] + 2, M.shape[1] + 2), dtype=np.int32)
    ndimage.label(np.pad(~M, 1, constant_values=True), output=background)  # 4-connected; 1 is the outside
    holes = _boxes(background)[1:] + np.array([-2, -2, 0, 0])  # grown by 1, without the padding
    filled, outer = components(M | (background[1:-1, 1:-1] > 1))
    corners = np.stack([filled[:-1, :-1], filled[:-1, 1:], filled[1:, :-1], filled[1:, 1:]])  # 4 H-1 W-1
    inside = ((corners > 0).sum(axis=0) - 2).clip(min=0) / 2
    area = np.bincount(corners.max(axis=0).ravel(), inside.ravel(), len(outer) + 1)[1:]
    largest = len(area) - 1 - int(area[::-1].argmax()) if len(area) else 0
    return np.concatenate([outer, components(M)[1], holes]), largest


def boxes_above(image: UInt8[np.ndarray, "H W"], level: int) -> tuple[Real[np.ndarray, "n 4"], int]:
    """Boxes of all contours of the pixels above a level, and which of them is the largest; without any, pixel 0, 0.

    As in the code of Choe et al. (see `wsol`) a box reaches one pixel too far right and down, not beyond the image.
    """
    rectangles, largest = contours(image > level)
    end = [image.shape[1] - 1, image.shape[0] - 1] * 2
    return (rectangles + np.array([0, 0, 1, 1])).clip(max=end) if len(rectangles) else np.zeros((1, 4)), largest


def around(M: Bool[np.ndarray, "H W"]) -> Real[np.ndarray, "m 4"]:
    """The box around a mask; none where the mask is empty."""
    y, x = np.nonzero(M)
    return np.array([[x.min(), y.min(), x.max(), y.max()]] if len(x) else [], dtype=float).reshape(-1, 4)


def box_iou(a: Real[np.ndarray, "n 4"], b: Real[np.ndarray, "m 4"]) -> Real[np.ndarray, "n m"]:
    """Intersection over union, in pixels, of every box of a with every box of b."""
    a = a[:, None]  # n 1 4
    sides = np.minimum(a[..., 2:], b[:, 2:]) - np.maximum(a[..., :2], b[:, :2]) + 1  # n m 2
    both = sides.clip(min=0).prod(axis=-1)  # n m
    area_a, area_b = ((box[..., 2:] - box[..., :2] + 1).prod(axis=-1) for box in (a, b))
    return both / (area_a + area_b - both)


def _boxes(labels: Int[np.ndarray, "H W"]) -> Int[np.ndarray, "n 4"]:
    """Like `ndimage.find_objects`, but many times faster for thousands of components (noise)."""
    first, last = np.zeros((2, labels.max(), 2), dtype=np.int64)  # n x, y
    for k, L in enumerate((labels.T, labels)):
        place, label = np.nonzero(L)[0], L[L > 0] - 1  # columns, then rows, in ascending order
        last[label, k] = place  # the last assignment stays
        first[label[::-1], k] = place[::-1]
    return np.concatenate([first, last], axis=1)
