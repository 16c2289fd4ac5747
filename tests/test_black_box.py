"""Black-box methods: regions, what hides them, and maps of functions whose truth is known."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import methods
from helpers import CLASSES, images, references
from methods import METHODS, _progress
from methods._coalitions import draw, expected
from methods._partition import lab, merge_tree, order
from methods._regions import FILLS, SEGMENTATIONS, blurred, count, drawn, hiding, painted, regions
from methods.rise import rise
from nets import net

REGIONS = ("lime", "kernel_shap", "sobol_attribution", "hsic_attribution", "moxi", "smdl")
FORWARD_ONLY = (*REGIONS, "rise", "hipe", "shap_bpt")
SMALL = {"samples": 40, "designs": 8, "segments": 4, "k": 4}


def call(name, model, x, target=CLASSES, **more):
    given = {k: v for k, v in (SMALL | more).items() if k in {*METHODS[name].params, "progress"}}
    return methods.attribute(name, model, x, target, **given)


def halves(x):
    """Two classes: the mean of the left half of the image, and twice that of the right half."""
    return torch.stack([x[..., :16].mean(dim=(1, 2, 3)), 2 * x[..., 16:].mean(dim=(1, 2, 3))], dim=1)


# ---- regions


def test_a_grid_has_cells_of_equal_size_and_numbers_in_reading_order():
    labels = regions(images(2), 4)
    assert labels.shape == (2, 32, 32)
    assert labels[0].unique(return_counts=True)[1].tolist() == [64] * 16
    assert labels[1, :8, :8].unique().tolist() == [0]
    assert labels[1, 8:16, 24:].unique().tolist() == [7]
    assert count(regions(images(1, h=33, w=47), 5)) == [25]


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_segmentations_of_scikit_image_see_each_image_alone(name):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(gaussian_filter(rng.normal(size=(2, 3, 64, 64)), (0, 0, 3, 3)))
    labels = regions(x, name)
    assert min(count(labels)) > 1
    assert torch.equal(labels[1:], regions(x[1:], name))
    assert torch.equal(labels, regions(5 * x + 3, name))  # rescaled to [0, 1]
    assert regions(x[:, :1], name).shape == (2, 64, 64)  # grey


def test_labels_and_functions_may_skip_numbers():
    mine = torch.tensor([[7, 7, 100, 100]] * 4)
    x = images(2, h=4, w=4)
    assert regions(x, mine)[1].tolist() == [[0, 0, 1, 1]] * 4
    by_function = regions(x, lambda image: (image[..., 0] > 0.5) * 9)
    assert count(by_function) == [2, 2]
    assert torch.equal(by_function[0] == 1, x[0, 0] > (x[0].min() + x[0].max()) / 2)


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ("superpixels", "segments: must be one of quickshift, slic, felzenszwalb, got 'superpixels'"),
        (0, "segments: a grid needs 1 to 32 cells in a row, got 0"),
        (33, "segments: a grid needs 1 to 32 cells"),
        (torch.zeros(32, 32), "segments: labels must be whole numbers H W or B H W"),
        (torch.zeros(16, 16, dtype=torch.long), r"segments: labels must be .* \(16, 16\)"),
        (lambda image: image[..., 0], r"segments: the function must return whole numbers of shape \(32, 32\)"),
    ],
)
def test_wrong_segments_are_named(segments, words):
    with pytest.raises(ValueError, match=words):
        regions(images(3), segments)


# ---- what hides


@pytest.mark.parametrize("fill", [*FILLS, 0.7, torch.full((3, 1, 1), 0.2)])
def test_an_image_that_is_seen_is_itself_and_one_that_is_hidden_is_not(fill):
    x, labels = images(2), regions(images(2), 4)
    hide = hiding(x, fill, labels)
    assert torch.equal(hide(torch.ones(2, 2, 32, 32))[1], x)
    hidden = hide(torch.zeros(1, 2, 32, 32))[0]
    assert (hidden != x).double().mean() > 0.99
    half = torch.zeros(1, 2, 32, 32)
    half[..., :16] = 1
    assert torch.equal(hide(half)[0, ..., :16], x[..., :16])


def test_what_is_seen_where_an_image_is_hidden():
    x, none = images(2), torch.zeros(1, 2, 32, 32)
    assert hiding(x, "zero")(none).abs().max() == 0
    torch.testing.assert_close(hiding(x, "mean")(none)[0], x.mean(dim=(2, 3), keepdim=True).expand_as(x))
    cells = hiding(x, "mean", regions(x, 4))(none)[0]
    torch.testing.assert_close(cells[1, 2, 8:16, :8], x[1, 2, 8:16, :8].mean().expand(8, 8))
    noise = hiding(x, "noise", seed=1)(none)[0]
    torch.testing.assert_close(noise.mean(dim=(2, 3)), x.mean(dim=(2, 3)), rtol=0, atol=0.1)
    assert torch.equal(noise[1:], hiding(x[1:], "noise", seed=1)(none[:, 1:])[0])
    assert not torch.equal(noise, hiding(x, "noise", seed=2)(none)[0])


def test_inpainting_reads_no_hidden_pixel_and_continues_a_plane():
    x, M = images(1), torch.ones(1, 1, 32, 32)
    M[..., 8:20, 10:24] = 0
    other = torch.where(M[0] > 0, x, 100.0)
    torch.testing.assert_close(hiding(x, "inpaint")(M), hiding(other, "inpaint")(M))
    flat = torch.full((1, 3, 32, 32), 0.3, dtype=torch.float64)
    torch.testing.assert_close(hiding(flat, "inpaint")(M)[0], flat)
    assert hiding(x, "inpaint")(torch.zeros(1, 1, 32, 32)).isfinite().all()


@pytest.mark.parametrize(("edge", "mode"), [("reflect", "mirror"), ("zero", "constant")])
@pytest.mark.parametrize("sigma", [0.4, 3.0, 30.0])
def test_blur_is_scipys(edge, mode, sigma):
    a = images(1, h=20, w=31)[0]
    want = gaussian_filter(a.numpy(), (0, sigma, sigma), mode=mode, radius=math.ceil(4 * sigma))
    torch.testing.assert_close(blurred(a, sigma, edge), torch.from_numpy(want))


@pytest.mark.parametrize(
    ("fill", "words"), [("black", "fill: must be one of zero, mean"), (torch.zeros(5), r"fill: \(5,\) does not broad")]
)
def test_a_wrong_fill_is_named(fill, words):
    for name in ("rise", "hipe", "lime", "shap_bpt", "meaningful_perturbation"):
        with pytest.raises(ValueError, match=words):
            call(name, net("relu"), images(), fill=fill)


# ---- maps of functions


def test_a_region_that_does_not_count_gets_nothing():
    x = images() + 0.5
    for name in ("lime", "kernel_shap", "sobol_attribution", "hsic_attribution", "hipe"):
        a = call(name, halves, x, 0, samples=400, fill="zero")
        left, right = a[..., :8].abs().mean(), a[..., 24:].abs().mean()
        # LIME shrinks towards 0, and HSIC is 0 for infinitely many samples only
        assert right <= (0.1 if name in ("lime", "hsic_attribution") else 1e-9) * left, name
        assert left > 0


def test_a_pixel_that_does_not_count_gets_the_mean_score_in_rise():
    """Up to the error of N masks, which is below sqrt(Var M / N) / p = 0.9 % here; a pixel that counts gets more."""
    x = torch.ones(1, 3, 32, 32, dtype=torch.float64)
    a = call("rise", halves, x, 0, samples=4000) / 0.5  # the mean score: half of the image is seen
    assert (a[..., 26:] - 1).abs().max() < 4 * 0.009
    assert (a[..., 4:12] - 1).mean() > 0.02


@pytest.mark.parametrize("curve", ["insertion", "deletion"])
def test_moxi_equals_its_literal_in_both_orders(curve):
    literal = references("moxi")["literal"]
    ours = METHODS["moxi"].fn(net("elu"), images(), CLASSES, segments=4, k=None, curve=curve)
    torch.testing.assert_close(ours, literal(net("elu"), images(), CLASSES, segments=4, k=16, curve=curve))


@pytest.mark.parametrize("sampling", ["leverage", "kernel"])
@pytest.mark.parametrize("samples", [2, 7, 40, 300])
def test_shapley_values_sum_to_the_score_for_any_number_of_samples(sampling, samples):
    model, x = net("elu"), images()
    a = call("kernel_shap", model, x, sampling=sampling, samples=samples, segments=3, fill="zero")
    per_region = torch.stack([a[:, 0, i, j] for i in (0, 15, 31) for j in (0, 15, 31)], dim=1)
    y = model(x).gather(1, CLASSES[:, None])[:, 0] - model(0 * x).gather(1, CLASSES[:, None])[:, 0]
    torch.testing.assert_close(per_region.sum(dim=1), y)


def test_with_all_coalitions_the_values_are_shapleys():
    model, x, R = net("elu"), images(1), 9
    labels = regions(x, 3)
    v = {}
    for S in itertools.chain.from_iterable(itertools.combinations(range(R), s) for s in range(R + 1)):
        z = torch.zeros(1, 1, R, dtype=torch.float64)
        z[..., list(S)] = 1
        with torch.no_grad():
            v[frozenset(S)] = float(model(x * painted(z, labels)[0, :, None])[0, 1])
    phi = []
    for i in range(R):
        terms = ((S, v[S | {i}] - v[S]) for S in v if i not in S)
        phi.append(sum(d / R / math.comb(R - 1, len(S)) for S, d in terms))
    got = call("kernel_shap", model, x, CLASSES[:1], samples=510, segments=3, fill="zero")
    torch.testing.assert_close(got, painted(torch.tensor([phi], dtype=torch.float64), labels)[:, None])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", ["shap", "shapiq"])
def test_twelve_regions_as_in_other_libraries(library):
    """Neither is among the tests' requirements: they bring a compiler with them."""
    theirs = pytest.importorskip(library)
    model, x = net("gelu_ln"), images(1)
    labels = (torch.arange(32) * 3 // 32)[:, None] * 4 + torch.arange(32) * 4 // 32  # 3 x 4 regions

    def f(z):
        seen = torch.from_numpy(np.asarray(z, dtype=np.float64))[:, labels]
        with torch.no_grad():
            return model(x * seen[:, None])[:, 4].numpy()

    if library == "shap":
        explainer = theirs.KernelExplainer(f, np.zeros((1, 12)))
        values = explainer.shap_values(np.ones((1, 12)), nsamples=2**12, silent=True, l1_reg=False)[0]
    else:
        values = theirs.ExactComputer(n_players=12, game=f)(index="SV", order=1).get_n_order_values(1)
    got = call("kernel_shap", model, x, CLASSES[1:2], segments=labels, samples=2**12, fill="zero")
    want = torch.from_numpy(np.asarray(values))[labels]
    torch.testing.assert_close(got[0, 0], want, rtol=1e-5, atol=1e-7)  # shap's system is solved in another way


@pytest.mark.parametrize(
    ("samples", "R"), [(2, 1), (2, 2), (6, 3), (20, 5), (100, 12), (511, 12), (64, 50), (1000, 50)]
)
def test_leverage_samples_are_distinct_pairs_of_sizes_as_expected(samples, R):
    z = draw(samples, "leverage", 0, R)
    assert len(z) == 2 + min(samples // 2 * 2, 2**R - 2)
    assert np.array_equal(z[::2], 1 - z[1::2])
    assert len({tuple(row) for row in z}) == len(z)
    a = expected(samples, R)
    assert sum(a) == pytest.approx(len(z) // 2 - 1)
    sizes = Counter(int(min(row.sum(), R - row.sum())) for row in z[2::2])
    assert all(abs(sizes[s] - a[s - 1]) < 1 for s in range(1, R // 2 + 1))


def test_sobol_indices_of_a_sum_are_the_analytic_ones():
    """f = sum a_i z_i with z uniform and independent: S_Ti = a_i^2 / sum a^2."""
    x = torch.ones(1, 3, 32, 32, dtype=torch.float64)
    weight = torch.arange(1.0, 5).repeat_interleave(256).view(32, 32).double()
    a = call("sobol_attribution", lambda v: (v[:, :1] * weight).sum(dim=(2, 3)), x, 0, segments=2, designs=4096)
    labels = regions(x, 2)
    v = painted(
        torch.zeros(1, 4).double().scatter_add(1, labels.flatten(1), weight.expand(1, 32, 32).flatten(1)), labels
    )
    want = v**2 / sum((v[0, i, j] ** 2) for i in (0, 31) for j in (0, 31))
    torch.testing.assert_close(a[:, 0], want, rtol=0.02, atol=0)


def test_hsic_of_the_authors_code_depends_on_a_constant_and_ours_does_not():
    def shifted(v):
        return model(v) + 50

    model, x = net("elu"), images(1)
    for width, same in (("distances", True), ("scores", False)):
        a, b = (call("hsic_attribution", m, x, CLASSES[:1], width=width) for m in (model, shifted))
        assert torch.allclose(a, b, rtol=1e-6) == same


@pytest.mark.parametrize("samples", [2, 10, 61])
def test_owen_values_sum_to_the_score_for_any_number_of_samples(samples):
    model, x = net("elu"), images()
    a = call("shap_bpt", model, x, samples=samples)
    y = model(x).gather(1, CLASSES[:, None])[:, 0] - model(0 * x).gather(1, CLASSES[:, None])[:, 0]
    torch.testing.assert_close(a.sum(dim=(1, 2, 3)), y)


def test_owen_values_end_at_single_pixels():
    """A sum of pixels: the value of each pixel is its part, once all regions are split."""
    x = images(2, h=4, w=4)
    a = call("shap_bpt", lambda v: v.sum(dim=(2, 3)), x, 1, samples=4**9)
    torch.testing.assert_close(a[:, 0], x[:, 1])


def test_the_tree_merges_the_cheapest_neighbours_first():
    image = np.zeros((2, 4, 3), dtype=np.uint8)
    image[:, 2:] = 100
    tree = merge_tree(image)
    assert tree.shape == (7, 2)
    pixels = order(tree, 8)
    assert sorted(pixels(14)) == list(range(8))
    assert {frozenset(pixels(int(v))) for v in tree[-1]} == {frozenset({0, 1, 4, 5}), frozenset({2, 3, 6, 7})}
    assert lab(torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0))).dtype == np.uint8


def test_rise_stops_when_its_map_does_not_change():
    seen = []

    def model(v):
        seen.append(len(v))
        return v[..., :16].mean(dim=(2, 3))

    x = images(2) + 2
    full = rise(model_of(model), x, torch.tensor([0, 1]), samples=4000)
    assert sum(seen) == 8000
    seen.clear()
    early = rise(model_of(model), x, torch.tensor([0, 1]), samples=4000, stop=1e-3)
    assert 2 * 3 * 128 <= sum(seen) < 8000
    a, b = (v.flatten() - v.mean() for v in (full, early))
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.9


def model_of(fn):
    class Model(torch.nn.Module):
        def forward(self, x):
            return fn(x)

    return Model()


def test_moxi_takes_tokens_away_where_the_paper_does():
    """On a ViT, by the network's own parts on fewer tokens."""
    model, image, c = net("vit"), images(1), 4

    def f(patches):
        tokens = model._pos_embed(model.patch_embed(image))  # the class token first
        tokens = model.norm_pre(tokens[:, [0, *(1 + b for b in sorted(patches))]])
        with torch.no_grad():
            return float(model.forward_head(model.norm(model.blocks(tokens)))[0, c])

    A = []
    for _ in range(5):
        A.append(max((b for b in range(16) if b not in A), key=lambda b: f([*A, b])))
    a = METHODS["moxi"].fn(model, image, torch.tensor([c]), segments=4, k=5, fill="drop")
    order = a[0, 0, ::8, ::8].flatten().argsort(descending=True)
    assert order[:5].tolist() == A
    with pytest.raises(ValueError, match="fill: 'drop' takes tokens away from a ViT"):
        call("moxi", net("relu"), images(), fill="drop")
    with pytest.raises(ValueError, match=r"segments: 'drop' needs the model's patches as regions \(4 x 4\), got 25"):
        call("moxi", net("vit"), images(), fill="drop", segments=5)


# ---- any function


def numpy_model(x):
    """No gradient, no layer, no hook."""
    weight = np.random.default_rng(0).normal(size=(3, 8))
    return np.tanh(x.cpu().numpy()[..., ::3, ::2].mean(axis=(2, 3)) @ weight)


@pytest.mark.parametrize(
    "name", [n for n, m in METHODS.items() if m.family == "perturbation" and m.backward.total == 0]
)
def test_a_function_of_images_is_enough(name):
    a = call(name, numpy_model, images())
    assert a.shape == (3, 1, 32, 32)
    assert a.isfinite().all()
    assert a.abs().max() > 0


@pytest.mark.parametrize("name", ["integrated_gradients", "meaningful_perturbation", "extremal_perturbation"])
def test_a_numpy_model_has_no_gradient_and_the_error_says_so(name):
    with pytest.raises(ValueError, match="its score does not depend on the image in a differentiable way"):
        methods.attribute(name, numpy_model, images(), 0)


@pytest.mark.parametrize("name", ["rise", "lime", "kernel_shap", "sobol_attribution", "hsic_attribution"])
def test_all_classes_of_an_image_cost_the_passes_of_one(name):
    passes = Counter()

    def model(v):
        passes["images"] += len(v)
        return numpy_model(v)

    x, target = images(1).expand(4, -1, -1, -1), torch.tensor([0, 3, 5, 7])
    call(name, model, x[:1], target[:1])
    one = passes.pop("images")
    together = call(name, model, x, target)
    assert passes["images"] <= one + 8  # what the front door asks about the model
    for i in range(4):
        torch.testing.assert_close(together[i : i + 1], call(name, model, x[:1], target[i : i + 1]))


@pytest.mark.parametrize("name", [*REGIONS])
def test_images_may_have_different_numbers_of_regions(name):
    """Each map is that of the image alone; an image with fewer regions does not use the others."""
    x = images(2)
    labels = torch.stack([regions(x, 2)[0], regions(x, 4)[0]])
    together = call(name, net("elu"), x, CLASSES[:2], segments=labels, samples=30)
    for i in range(2):
        alone = call(name, net("elu"), x[i : i + 1], CLASSES[i : i + 1], segments=labels[i], samples=30)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-6, atol=1e-9)


def test_what_is_drawn_depends_on_the_number_of_regions_alone():
    labels = torch.stack([regions(images(1), g)[0] for g in (2, 4, 2)])
    z = drawn(labels, lambda R: np.random.default_rng(0).random((5, R)))
    assert torch.equal(z[:, 0], z[:, 2])
    assert z[:, 0, 4:].abs().max() == 0


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("rise", {"samples": 0}, "samples, cells, p, stop: need"),
        ("rise", {"p": 0.0}, "samples, cells, p, stop: need"),
        ("rise", {"masks": torch.ones(3, 32, 32), "samples": 4}, "masks: must be samples H W = 4 32 32"),
        ("lime", {"sampling": "slime"}, "samples, sampling: need"),
        ("lime", {"alpha": 0.0}, "width, alpha: must be positive"),
        ("kernel_shap", {"samples": 1}, "samples, sampling: need 2"),
        ("sobol_attribution", {"designs": 12}, "designs: Sobol's sequence is even for powers of two only"),
        ("hsic_attribution", {"width": "wide"}, "samples, width: need"),
        ("hipe", {"threshold": "median"}, "threshold: must be 'mid-range' or 'mean'"),
        ("shap_bpt", {"together": 0}, "samples, together, trees: need"),
        ("moxi", {"k": 0}, "k: at least one region must be found, got 0"),
        ("moxi", {"curve": "both"}, "curve: must be 'insertion' or 'deletion'"),
        ("smdl", {"k": 0}, "k: at least one region must be found, got 0"),
        ("meaningful_perturbation", {"steps": 0}, "steps, lr, cell, jitter: need"),
        ("meaningful_perturbation", {"start": torch.ones(3, 1, 5, 5)}, r"start: must be \(3, 1, 4, 4\)"),
        ("extremal_perturbation", {"areas": (1.5,)}, "areas, steps, step, sigma: need"),
        ("extremal_perturbation", {"reward": "keep"}, "reward, fill: must be 'preserve'"),
    ],
)
def test_bad_input_is_named(name, wrong, words):
    with pytest.raises(ValueError, match=words):
        call(name, net("relu"), images(), **wrong)


def test_hipe_refuses_images_without_room_for_windows():
    with pytest.raises(ValueError, match="x: images must have 8 pixels at least"):
        call("hipe", lambda v: v.mean(dim=(2, 3)), images(1, h=6, w=6), 0)


def test_progress_counts_the_images_that_run(capfd, monkeypatch):
    call("rise", net("relu"), images(), samples=50)
    assert not capfd.readouterr().err
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    call("rise", net("relu"), images(), samples=50, progress=True)
    assert "rise: 150 of 150 images" in capfd.readouterr().err
