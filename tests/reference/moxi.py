"""MoXI written out literally: image by image, one patch after the other."""

import torch


def literal(model, x, target, *, segments=4, k=5, curve="deletion", fill="zero", chunk=8):
    side, R = 32 // segments, segments**2
    maps = []
    for image, c in zip(x, target, strict=True):

        def f(patches, image=image, c=c):
            seen = torch.zeros_like(image)
            for b in patches:
                i, j = b // segments * side, b % segments * side
                seen[:, i : i + side, j : j + side] = image[:, i : i + side, j : j + side]
            with torch.no_grad():
                return float(model(seen[None])[0, c])

        A = []
        for _ in range(min(k, R)):
            left = [b for b in range(R) if b not in A]
            if curve == "insertion":
                A.append(max(left, key=lambda b: f([*A, b])))
            else:
                A.append(min(left, key=lambda b: f([n for n in left if n != b])))
        place = [1 - A.index(b) / len(A) if b in A else 0.0 for b in range(R)]
        place = torch.tensor(place, dtype=x.dtype).view(1, segments, segments)
        maps.append(place.repeat_interleave(side, 1).repeat_interleave(side, 2))
    return torch.stack(maps)


literal.keywords = {"curve": "deletion", "k": 5}
