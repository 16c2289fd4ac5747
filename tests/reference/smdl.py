"""SMDL written out literally: image by image, one region after the other, set by set."""

import math

import torch


def literal(model, x, target, *, segments=4, k=None, weights=(1, 1, 1, 1), fill="zero", chunk=8):
    side, R = 32 // segments, segments**2
    maps = []
    for image, c in zip(x, target, strict=True):

        def seen(S, image=image):
            out = torch.zeros_like(image)
            for b in S:
                i, j = b // segments * side, b % segments * side
                out[:, i : i + side, j : j + side] = image[:, i : i + side, j : j + side]
            return out[None]

        def p(S, seen=seen):
            with torch.no_grad():
                return model(seen(S)).softmax(dim=1)[0]

        phi = []
        handle = model.get_classifier().register_forward_pre_hook(lambda _m, given, phi=phi: phi.append(given[0][0]))
        for b in range(R):
            p([b])
        handle.remove()

        def d(a, b, phi=phi):
            cosine = float(phi[a] @ phi[b] / phi[a].norm() / phi[b].norm())
            return math.acos(max(-1, min(1, cosine))) / math.pi

        def value(S, p=p, c=c, d=d):
            probabilities = p(S)
            conf = 1 + float((probabilities * probabilities.log()).sum()) / math.log(len(probabilities))
            eff = sum(min((d(a, b) for b in S if b != a), default=1.0) for a in S)
            colla = 1 - float(p([b for b in range(R) if b not in S])[c])
            terms = conf, eff, float(probabilities[c]), colla
            return sum(w * term for w, term in zip(weights, terms, strict=True))

        S = []
        for _ in range(min(k or R, R)):
            S.append(max((b for b in range(R) if b not in S), key=lambda b: value([*S, b])))
        place = [1 - S.index(b) / len(S) if b in S else 0.0 for b in range(R)]
        place = torch.tensor(place, dtype=x.dtype).view(1, segments, segments)
        maps.append(place.repeat_interleave(side, 1).repeat_interleave(side, 2))
    return torch.stack(maps)
