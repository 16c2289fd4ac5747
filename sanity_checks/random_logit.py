"""When Explanations Lie: Why Many Modified BP Attributions Fail (random logit test).

Sixt, Granz, Landgraf. ICML 2020. arXiv:1912.09818

    s = mean over classes r  of  sim( M(f, x, c), M(f, x, r) )         r != c drawn uniformly     (section 5)
    sim = max( SSIM(a, b), SSIM(a, -b) )                               (the paper's; column `ssim`)

M, c    the method, the class that is explained          of, target
r       other classes                                    classes of them, the same for every image

Differs from the paper: the main number is Spearman of |a| at the map's own resolution, to compare it with
model_randomization: for a network that ends in one linear layer, this test is the same as discarding the head only.
SSIM uses a uniform 5 x 5 window on maps divided by their 99.5th percentile of |a|, as in the authors' code, then put
into [0, 1]. The paper draws one class per image; here `classes` of them, and the runner-up.
Differs from other code: Quantus 0.6 computes SSIM of flattened maps, a line of numbers: another measure.
Good to know: similar classes share evidence, so the runner-up keeps more than a random class. Rollout, raw attention
and Eigen-CAM use no class: they score 1.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._calls import logits
from methods._cost import Formula
from methods._torch import Attribution, at_least_float32, ratio, upsample
from sanity_checks._registry import Result, check
from sanity_checks._torch import explain
from sanity_checks.similarity import between_images, similarities, ssim


@check(
    title="Random logit (class sensitivity)",
    cite="sixt2020when",
    kind="randomization",
    protocol=(
        "Another class is explained in the same image; the number is the rank correlation of the absolute maps of the "
        "two classes, averaged over random classes."
    ),
    higher_is_better=False,
    forward=1,
    runs=Formula("4 + classes", lambda s: 4 + min(s.classes, s.N - 1)),
    verified=("literal", "closed form"),
    quick={"classes": 5},
)
@torch.no_grad()
def random_logit(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    of: Attribution,
    *,
    classes: int = 20,
    seed: int = 0,
) -> Result:
    """Whether the map depends on the class that is explained: its similarity to maps of other classes.

    Args:
        model: classifier with two classes at least.
        x: normalised images.
        target: classes.
        of: the method.
        classes: how many random other classes.
        seed: of their draw.

    Returns:
        Columns: `signed` (Spearman of the signed maps), `ssim` (the paper's, NaN for images below 5 x 5), `runner_up`
        (the class with the next highest logit), `far` (the lowest logit), `size` (mean of |Spearman|), `null`,
        `null_size` and `ceiling` as model_randomization.

    Raises:
        ValueError: classes below 1, or a network of one class.
    """
    y = logits(model, x)  # B N
    N = y.shape[1]
    if classes < 1 or N < 2:
        raise ValueError(f"classes: need at least one other class of at least two, got {classes} of {N}")
    ref = explain(of, model, x, target)
    null, again = between_images(ref, x, ("spearman",)), explain(of, model, x, target)
    draws = torch.randperm(N - 1, generator=torch.Generator().manual_seed(seed))[:classes].to(x.device)
    total = torch.zeros(4, len(x), dtype=torch.float64, device=x.device)
    for r in draws:
        other = explain(of, model, x, (target + 1 + r) % N)
        s = similarities(ref, other, x, ("spearman", "signed"))
        total += torch.stack([s["spearman"], s["signed"], _sign_tolerant(ref, other, x), s["spearman"].abs()])
    c = target[:, None]
    others = y.scatter(1, c, -torch.inf).argmax(dim=1), y.scatter(1, c, torch.inf).argmin(dim=1)
    runner_up, far = (similarities(ref, explain(of, model, x, r), x, ("spearman",))["spearman"] for r in others)
    s, signed, structure, size = total / len(draws)
    ceiling = similarities(ref, again, x, ("spearman",))["spearman"]
    found = {"signed": signed, "ssim": structure, "runner_up": runner_up, "far": far, "size": size, "ceiling": ceiling}
    found |= {"null": null["spearman"], "null_size": null["spearman_size"]}
    return Result(values=s, columns=found, facts={"classes": len(draws)})


def _sign_tolerant(
    a: Float[Tensor, "B K h w"], b: Float[Tensor, "B K h w"], x: Float[Tensor, "B C H W"]
) -> Float[Tensor, " B"]:
    """max(SSIM(a, b), SSIM(a, -b)) of maps summed over channels."""
    if min(x.shape[2:]) < 5:
        return torch.full((len(x),), torch.nan, dtype=torch.float64, device=x.device)

    def scaled(v: Tensor) -> Tensor:
        v = upsample(at_least_float32(v).sum(dim=1, keepdim=True), x)[:, 0]  # B H W
        size = v.flatten(1).abs().sort(dim=1).values  # B HW
        return ratio(v, size[:, round(0.995 * (size.shape[1] - 1)), None, None]).clamp(-1, 1)

    a, b = scaled(a), scaled(b)
    return torch.maximum(*(ssim((a + 1) / 2, (sign * b + 1) / 2, window=5) for sign in (1, -1)))
