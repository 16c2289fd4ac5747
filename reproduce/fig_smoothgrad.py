"""SmoothGrad: the amount of noise (columns) times the number of samples (rows), for one photograph.

Smilkov, Thorat, Kim, Viegas, Wattenberg. SmoothGrad: removing noise by adding noise. 2017. arXiv:1706.03825, form of
figure 3 (level of noise) and figure 4 (number of samples).

The reader should see: with few samples the map is a draw of chance, since a second draw gives another one. With more
samples two draws agree better; on this network 50 samples of the usual noise are still few. The plain gradient has no
chance in it and is grainy all the same: that two draws agree does not mean that a map is right.

Settings that differ from the paper: another network and photograph. The numbers are added.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import _run  # puts the repository on the path
from methods import _display, _images
from sanity_checks._torch import explain
from sanity_checks.similarity import similarities

NOISE = (0.05, 0.1, 0.2, 0.3, 0.5)  # shares of the range of the image
SAMPLES = (1, 5, 20, 50)
USUAL = 0.2  # the largest that the paper recommends


def main() -> None:
    """Draw figures/fig_smoothgrad.png, for the first photograph of --images."""
    run = _run.start(__file__, __doc__, photos="chelsea", quick_photos="chelsea")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)[:1]
    levels, counts = (NOISE[1:3], SAMPLES[:2]) if run.args.quick else (NOISE, SAMPLES)
    run.bar.reset(total=1 + 2 * len(levels) * len(counts))

    (photograph,), x = _run.photographs(rows), _images.tensor([rows[0].photo], loaded)
    target = torch.tensor([rows[0].target], device=x.device)

    def draw(name: str, **keywords: Any) -> Float[Tensor, "1 1 H W"]:  # noqa: ANN401
        run.bar.set_postfix_str(", ".join([name, *(f"{k} {v}" for k, v in keywords.items())]))
        a = explain(_run.bind(run, name, loaded.model, x, **keywords), loaded.model, x, target)
        run.bar.update()
        return a.abs().sum(dim=1, keepdim=True)

    def panel(a: Float[Tensor, "1 1 H W"], below: str = "") -> _display.Panel:
        return _display.Panel(rows[0].photo.rgb, a[0, 0].cpu(), below=below)

    plain = panel(draw("gradient"))
    lines: list[list[_display.Panel | None]] = []
    agreement: dict[float, dict[int, float]] = {noise: {} for noise in levels}
    for n in counts:
        lines.append([None, None] if lines else [photograph, plain])
        for noise in levels:
            a, b = (draw("smooth_grad", noise=noise, samples=n, seed=run.args.seed + k) for k in range(2))
            agreement[noise][n] = similarities(a, b, x, ("spearman",))["spearman"].item()
            lines[-1].append(panel(a, f"r = {agreement[noise][n]:.2f}"))
    run.numbers["agreement"] = {str(noise): {str(n): r for n, r in by.items()} for noise, by in agreement.items()}

    header = ["Photograph", "Gradient", *(f"noise {noise:.0%}" for noise in levels)]
    labels = [f"{n} sample{'s' * (n > 1)}" for n in counts]
    caption = (
        f"{loaded.note}; the top class of the photograph is named below it and explained. Noise: its standard "
        "deviation as a share of the range of the image (the paper recommends 10 to 20 %). r: Spearman's "
        "correlation of |a| "
        f"of this map with a second one that has other random numbers. {_display.SCALE} Maps are |a|, summed over the "
        "colour channels."
    )
    title = headline(run.numbers["agreement"])
    _run.save(
        run, _display.grid([_display.Block(header, lines, labels)], caption, _run.banner(run), title=title), caption
    )


def headline(agreement: dict[str, dict[str, float]]) -> str:
    """How far two draws agree at the usual noise, with the fewest and the most samples."""
    (few, low), *_, (many, high) = agreement[str(USUAL)].items()
    return f"SmoothGrad at {USUAL:.0%} noise: two draws of {few} sample agree by r = {low:.2f}, of {many} by {high:.2f}"


if __name__ == "__main__":
    main()
