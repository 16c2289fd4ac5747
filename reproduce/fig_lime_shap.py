"""LIME and Shapley values of the regions of a photograph, for two classes; how far two seeds agree.

Ribeiro, Singh, Guestrin. "Why Should I Trust You?" KDD 2016. arXiv:1602.04938, figure 4 (several classes of one
photograph); Lundberg, Lee. A Unified Approach to Interpreting Model Predictions. NeurIPS 2017. arXiv:1705.07874; Tan,
Tian, Li. GLIME. NeurIPS 2023 (stability); Rashid et al. ShapBPT. AAAI 2026. arXiv:2602.07047.

The reader should see: on the same regions LIME and Shapley values tell nearly the same, each class is found where it
is, and how much of a map is noise of its samples.

Settings that differ from the papers: another network and photographs; the regions are SLIC's.
"""

from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from skimage.segmentation import mark_boundaries
from torch import Tensor

import _run  # puts the repository on the path
from methods import _display, _images
from methods._regions import regions
from sanity_checks._torch import explain

SEGMENTS = "slic"
SAMPLES = 1000
COLUMNS: dict[str, tuple[str, dict[str, Any]]] = {
    "LIME": ("lime", {"sampling": "lime", "segments": SEGMENTS}),
    "GLIME": ("lime", {"sampling": "glime", "segments": SEGMENTS}),
    "Kernel SHAP": ("kernel_shap", {"segments": SEGMENTS}),
    "ShapBPT": ("shap_bpt", {"fill": "mean"}),
}


def main() -> None:
    """Draw figures/fig_lime_shap.png."""
    run = _run.start(__file__, __doc__, photos="chelsea_coffee", quick_photos="coffee")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    x = _images.tensor([r.photo for r in rows], loaded)
    target = torch.tensor([r.target for r in rows], device=x.device)
    samples = 60 if run.args.quick else SAMPLES
    run.bar.reset(total=2 * len(COLUMNS))

    labels = regions(x, SEGMENTS)
    found: dict[str, list[Tensor]] = {}
    for title, (name, keywords) in COLUMNS.items():
        found[title] = []
        for seed in (0, 1) if name != "shap_bpt" else (0,):  # it draws nothing
            run.bar.set_postfix_str(f"{title}, seed {seed}")
            more = {"seed": seed} if name != "shap_bpt" else {}
            of = _run.bind(run, name, loaded.model, x, samples=samples, **keywords, **more)
            found[title].append(explain(of, loaded.model, x, target))
            run.bar.update()
    per_region = {t: [of_regions(a, labels) for a in maps] for t, maps in found.items() if t != "ShapBPT"}
    seeds = {t: correlation(a, b) for t, (a, b) in per_region.items()}
    pairs = {
        f"{t} and Kernel SHAP": correlation(per_region[t][0], per_region["Kernel SHAP"][0]) for t in ("LIME", "GLIME")
    }
    run.numbers |= {
        "regions": int(labels.max()) + 1,
        "samples": samples,
        "rank correlation of two seeds": seeds,
        "rank correlation": pairs,
        "share of the positive part in the right half": {t: right(maps[0]) for t, maps in found.items()},
    }
    shown = np.asarray(mark_boundaries(rows[0].photo.rgb, labels[0].cpu().numpy(), color=(1, 1, 0)))
    borders = _display.Panel((shown * 255).round().astype(np.uint8), below=f"{int(labels.max()) + 1} regions")
    lines = []
    for i, photograph in enumerate(_run.photographs(rows)):
        maps = [_display.Panel(rows[i].photo.rgb, a[0][i, 0], overlay=True) for a in found.values()]
        lines.append([photograph if i == 0 else None, borders if i == 0 else None, *maps])
    block = _display.Block(["Photograph", "Regions", *COLUMNS], lines, _run.labels(rows))
    caption = (
        f"{loaded.note}. Each line explains the class at its left, {samples} samples for each method. Regions that are "
        f"hidden have their mean colour; ShapBPT makes its own regions, and hides in the mean colour of the "
        f"image. Rank correlation of the regions of two seeds: {words(seeds)}. Of two methods: {words(pairs)}. "
        f"{_display.SCALE}" + _run.refusals(run, "cell left empty")
    )
    title = f"LIME and Kernel SHAP agree on the same regions: rank correlation {pairs['LIME and Kernel SHAP']:.2f}"
    neutral = "LIME and Shapley values of the same regions"
    title = title if pairs["LIME and Kernel SHAP"] > 0.8 else neutral
    _run.save(run, _display.grid([block], caption, _run.banner(run), title=title, widest=1.2), caption)


def of_regions(a: Tensor, labels: Tensor) -> Tensor:
    """The value of each region: B R."""
    values = a.new_zeros(len(a), int(labels.max()) + 1)
    return values.scatter(1, labels.flatten(1), a[:, 0].flatten(1))


def correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of the regions, the mean over lines."""
    pairs = zip(a, b, strict=True)
    return float(np.mean([np.asarray(spearmanr(p.cpu().numpy(), q.cpu().numpy()))[0] for p, q in pairs]))


def right(a: Tensor) -> list[float]:
    """The share of the positive part in the right half of the image, line by line."""
    positive = a.clamp(min=0).sum(dim=(1, 2))  # B W
    return (positive[:, positive.shape[1] // 2 :].sum(dim=1) / positive.sum(dim=1)).tolist()


def words(found: dict[str, float]) -> str:
    """Names and numbers."""
    return ", ".join(f"{name} {value:.2f}" for name, value in found.items())


if __name__ == "__main__":
    main()
