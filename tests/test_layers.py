"""The default layer of 20 families, tokens <-> grid, and the machinery that reads and edits a layer."""

import copy
import gc

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack

import methods
from helpers import CLASSES, hooks, images
from methods import _grids, _layers
from methods._edits import edited_scores
from methods._lrp import z_plus
from methods._rules import relu_backward
from methods._torch import activation, activation_and_gradient
from nets import net

FAMILIES = {
    "resnet50": ("layer4", "cnn"),
    "vit_tiny_patch16_224": ("blocks.11.norm1", "vit"),  # patch tokens after it no longer reach the class token
    "deit_tiny_distilled_patch16_224": ("blocks.11.norm1", "vit"),
    "swin_tiny_patch4_window7_224": ("norm", "swin"),
    "swinv2_tiny_window8_256": ("norm", "swin"),
    "convnext_atto": ("norm_pre", "cnn"),
    "tf_efficientnet_lite0": ("bn2", "cnn"),
    "mobilenetv3_small_100": ("blocks", "cnn"),
    "densenet121": ("features", "cnn"),
    "vgg11_bn": ("features", "cnn"),
    "regnety_002": ("final_conv", "cnn"),
    "maxvit_tiny_rw_224": ("norm", "swin"),
    "eva02_tiny_patch14_224": ("norm", "vit"),
    "vit_base_patch16_siglip_224": ("norm", "vit"),
    "inception_v3": ("Mixed_7c", "cnn"),
    "pvt_v2_b0": ("stages", "swin"),
    "edgenext_xx_small": ("norm_pre", "swin"),
    "coat_lite_tiny": ("serial_blocks4.1.norm1", "cnn"),
    "resnet18": ("layer4", "cnn"),
    "xcit_nano_12_p8_224": ("cls_attn_blocks.1.norm1", "swin"),  # not the keys or values that are computed from it
}


@pytest.mark.parametrize("name", FAMILIES)
def test_default_layer_without_a_table_of_models(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7)
    model.train()
    buffers = copy.deepcopy(dict(model.named_buffers()))
    assert (_layers.default_layer(model), _layers.probe(model).architecture) == FAMILIES[name]
    assert _layers.probe(model).classes == 7
    assert model.training
    assert all(m.training for m in model.modules())
    assert hooks(model) == 0
    assert all(torch.equal(b, dict(model.named_buffers())[k]) for k, b in buffers.items())
    assert all(p.grad is None for p in model.parameters())
    size = model.pretrained_cfg["input_size"][1:]
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    a = methods.attribute("hires_cam", model.eval(), x)
    assert a.shape == (2, 1, *size)
    assert a.isfinite().all()
    assert (a.abs().amax(dim=(1, 2, 3)) > 0).all()


def test_default_layer_of_a_model_that_is_not_from_timm():
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2)).eval()
    assert _layers.default_layer(model, (3, 16, 16)) == "1"


def test_a_model_without_any_grid_is_probed_all_the_same():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)).eval()
    found = _layers.probe(model, (3, 32, 32))
    assert (found.layer, found.candidates, found.architecture, found.classes) == (None, [], "cnn", 10)
    assert methods.attribute("gradient", model, images().float()).shape == (3, 3, 32, 32)


def test_a_head_that_flattens_the_grid():
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 9), nn.Linear(9, 2)).eval()
    assert _layers.default_layer(model, (3, 8, 8)) == "1"


def test_no_default_layer_is_an_error_that_says_why():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 9), nn.Linear(9, 2)).eval()
    with pytest.raises(ValueError, match=r"^layer: no module has a grid .*'2': its output .* has no spatial grid"):
        _layers.default_layer(model, (3, 8, 8))


def test_a_weight_that_is_still_zero_hides_no_layer():
    """A new head before its first step; residual branches that timm starts at zero."""
    model = timm.create_model("vit_tiny_patch16_224", weight_init="jax", img_size=64).eval()
    assert not model.head.weight.any()
    assert _layers.default_layer(model) == "blocks.11.norm1"
    assert not model.head.weight.any()
    assert not methods.attribute("grad_cam", model, torch.randn(1, 3, 64, 64)).any()  # zero, as its definition says
    resnet = timm.create_model("resnet18", zero_init_last=True, num_classes=5).eval()
    nn.init.zeros_(resnet.fc.weight)
    assert _layers.default_layer(resnet) == "layer4"


def test_the_probe_is_made_once_and_does_not_keep_the_model_alive():
    model = net("relu")
    _layers.default_layer(model, (3, 32, 32))
    runs = []
    model.register_forward_hook(lambda *_: runs.append(1))
    _layers.default_layer(model, (3, 32, 32))
    assert not runs
    before = len(_layers._PROBES)
    del model
    gc.collect()
    assert len(_layers._PROBES) < before


class Holding(nn.Module):
    """A network whose layer `held` holds 4 x 6 cells of an image of 32 x 48 in its own way; `back` undoes that."""

    def __init__(self, hold, back):
        super().__init__()
        self.patches, self.held = nn.Conv2d(3, 5, 8, 8), nn.Identity()
        self.cls, self.fc = nn.Parameter(torch.randn(1, 2, 5)), nn.Linear(5, 7)
        self.hold, self.back = hold, back

    def forward(self, x):
        return self.fc(self.back(self.held(self.hold(self, self.patches(x)))))


def tokens(a):
    return a.flatten(2).transpose(1, 2)


SNAKE = torch.arange(24).view(4, 6).flip(1).T.flatten()  # an order of the cells that is not row by row
HOLDS = {  # what the layer returns, how it is pooled, the layout
    "B K h w": (lambda m, a: a, lambda a: a.mean((2, 3)), (4, 0, 1, 4, 6, None)),
    "B h w K": (lambda m, a: a.permute(0, 2, 3, 1), lambda a: a.mean((1, 2)), (4, 0, 3, 4, 6, None)),
    "B T K": (lambda m, a: tokens(a), lambda a: a.mean(1), (3, 0, 2, 4, 6, tuple(range(24)))),
    "B K T": (lambda m, a: a.flatten(2), lambda a: a.mean(2), (3, 0, 1, 4, 6, tuple(range(24)))),
    "T B K": (lambda m, a: tokens(a).transpose(0, 1), lambda a: a.mean(0), (3, 1, 2, 4, 6, tuple(range(24)))),
    "two tokens first": (
        lambda m, a: torch.cat([m.cls.expand(len(a), 2, 5), tokens(a)], 1),
        lambda a: a.mean(1),
        (3, 0, 2, 4, 6, tuple(range(2, 26))),
    ),
    "two tokens last": (
        lambda m, a: torch.cat([tokens(a), m.cls.expand(len(a), 2, 5)], 1),
        lambda a: a.mean(1),
        (3, 0, 2, 4, 6, tuple(range(24))),
    ),
    "another order": (
        lambda m, a: tokens(a)[:, SNAKE],
        lambda a: a.mean(1),
        (3, 0, 2, 4, 6, tuple(SNAKE.argsort().tolist())),
    ),
}


@pytest.mark.parametrize("name", HOLDS)
def test_a_layout_is_where_the_places_of_the_image_went(name):
    hold, back, want = HOLDS[name]
    torch.manual_seed(0)
    model, x = Holding(hold, back).eval(), torch.randn(2, 3, 32, 48)
    at = _layers.layout(model, "held", x)
    assert at == want
    A = model.patches(x)
    out = hold(model, A)
    assert torch.equal(_grids.to_grid(out, at), A)
    B = torch.randn(6, 5, 4, 6)  # three copies of the batch
    back_again = _grids.from_grid(B, out, at)
    assert torch.equal(back_again, hold(model, B))
    edited = edited_scores(model, x, CLASSES[:2], "held", lambda A: torch.stack([A, 2 * A]), 2)
    want = torch.stack([model.fc(back(hold(model, k * A))).gather(1, CLASSES[:2, None])[:, 0] for k in (1, 2)])
    torch.testing.assert_close(edited, want)


def window(a):
    """2 x 3 cells in each window: 4 windows of an image are 4 rows of the batch."""
    return a.unflatten(2, (2, 2)).unflatten(4, (2, 3)).permute(0, 2, 4, 3, 5, 1).flatten(0, 2).flatten(1, 2)


NO_GRID = {
    "windows": (window, lambda a: a.unflatten(0, (2, -1)).mean((1, 2)), "holds parts of images .* 8 rows for 2 images"),
    "two copies": (lambda a: torch.cat([a, a.flip(3)]), lambda a: a.mean((2, 3))[:2], "4 rows for 2 images"),
    "a shuffled batch": (lambda a: a.flip(0), lambda a: a.flip(0).mean((2, 3)), "another batch: 2 rows for 2 images"),
    "no order": (lambda a: tokens(a)[:, :23], lambda a: a.mean(1), "in no order of rows and columns"),
    "heads": (lambda a: tokens(a)[:, None].repeat(1, 3, 1, 1), lambda a: a.mean((1, 2)), "one axis of channels"),
    "one vector": (lambda a: a.mean((2, 3)), lambda a: a, "has no spatial grid"),
}


@pytest.mark.parametrize("name", NO_GRID)
def test_a_layer_that_holds_no_grid_of_whole_images_is_refused(name):
    hold, back, why = NO_GRID[name]
    model, x = Holding(lambda _m, a: hold(a), back).eval(), torch.randn(2, 3, 32, 48)
    with pytest.raises(
        ValueError, match=f"^layer: 'held': .*{why}.*; the nearest layer with whole images is 'patches'"
    ):
        methods.attribute("grad_cam", model, x, 1, layer="held")


@pytest.mark.parametrize("name", ["relu", "gelu_ln", "vit", "vit_avg", "swin"])
def test_reading_a_layer_does_not_change_what_comes_after(name):
    model, x = net(name), images()
    layer = _layers.default_layer(model, (3, 32, 32))
    logits, A = activation(model, x, layer)
    assert A.shape[0] == 3
    assert A.shape[2:] == (4, 4)
    torch.testing.assert_close(logits, model(x))


class Around(nn.Module):
    """Hands its first tensor on as it came, next to one that it computes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, pair):
        return pair[0], self.conv(pair[0] + pair[1])


class Pairs(nn.Module):
    """After the second block, only the second tensor of the pair is used."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.a, self.b = Around(), Around()
        self.fc = nn.Linear(4, 10)

    def forward(self, x):
        x = self.stem(x)
        return self.fc(self.b(self.a((x, x)))[1].mean((2, 3)))


POOLS = {
    "amax": lambda a: a.amax((2, 3)),
    "max_pool2d": lambda a: nn.functional.max_pool2d(a, 32).flatten(1),
    "adaptive_max_pool2d": lambda a: nn.functional.adaptive_max_pool2d(a, 1).flatten(1),
    "topk": lambda a: a.flatten(2).topk(3, dim=2).values.mean(dim=2),
}


def test_a_part_of_a_gate_with_as_many_channels_as_classes_is_no_head():
    torch.manual_seed(0)
    model = timm.create_model("efficientnet_b0", num_classes=10).eval()  # two of its gates have 10 channels
    assert model.blocks[2][1].se.conv_reduce.out_channels == 10
    assert _layers.probe(model, (3, 64, 64)).head == ("classifier",)
    two = timm.create_model("deit_tiny_distilled_patch16_224", img_size=64).eval()
    assert _layers.probe(two, (3, 64, 64)).head == ("head", "head_dist")


class Summary(nn.Module):
    """The form of Hugging Face: the body returns the features and what it pools from them, which the head reads."""

    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(nn.Conv2d(4, 4, 3, padding=1)))

        def forward(self, x):
            a = self.encoder(x)
            return {"features": a, "pooled": a.mean((2, 3))}

    def __init__(self):
        super().__init__()
        self.body, self.fc = self.Body(), nn.Linear(4, 10)

    def forward(self, x):
        return self.fc(self.body(x)["pooled"])


def test_a_body_that_pools_by_itself_is_no_layer():
    """What it returns first is the tensor that it pooled, but nothing reads it afterwards."""
    torch.manual_seed(0)
    model, x = Summary().eval(), torch.randn(2, 3, 8, 8)
    found = _layers.probe(model, x)
    assert found.candidates == ["body.encoder.0", "body.encoder"]  # of three names for the last tensor, one
    assert found.layer == "body.encoder"
    assert methods.attribute("score_cam", model, x).max() > 0
    with pytest.raises(ValueError, match="no position of 'body' can change the score"):
        methods.attribute("grad_cam", model, x, layer="body")


class Pooled(nn.Module):
    """4 channels on 32 x 32 positions: a maximum of each has a gradient at 4 positions of 1024."""

    def __init__(self, pool):
        super().__init__()
        self.conv, self.fc, self.pool = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 10), pool

    def forward(self, x):
        return self.fc(self.pool(self.conv(x)))


@pytest.mark.parametrize("pool", POOLS)
def test_a_maximum_over_positions_is_a_pool(pool):
    torch.manual_seed(0)
    model, x = Pooled(POOLS[pool]).eval(), images(dtype=torch.float32)
    assert _layers.default_layer(model, x) == "conv"
    assert methods.attribute("hires_cam", model, x).max() > 0


def test_a_network_without_a_grid_of_whole_images_says_why():
    class Loop(Pooled):
        def forward(self, x):
            return torch.cat([self.fc(self.conv(x[i : i + 1]).mean((2, 3))) for i in range(len(x))])

    with pytest.raises(ValueError, match=r"^layer: no module has a grid of whole images .* 'fc': it ran 2 times"):
        _layers.default_layer(Loop(None).eval(), images(dtype=torch.float32))


def test_a_tensor_that_is_handed_on_counts_where_it_is_used_afterwards():
    torch.manual_seed(0)
    model, x = Pairs().eval(), torch.randn(2, 3, 8, 8)
    found = _layers.probe(model, x)
    assert found.layer == "b.conv"
    assert found.candidates == ["stem", "a.conv", "a", "b.conv"]  # a hands on what b adds; b, what nobody reads
    assert methods.attribute("grad_cam", model, x).max() > 0


def test_a_probe_inside_a_rule_is_that_of_the_model():
    """A method may set its rules first and look at the layer then."""
    inside, outside = net("relu"), net("relu")
    with relu_backward(lambda own, R: 0 * own), z_plus(), torch.device("cpu"):
        assert len(_get_current_function_mode_stack()) == 3
        found = _layers.probe(inside, images())
        assert len(_get_current_function_mode_stack()) == 3
        inside(images())  # the rule needs a ReLU
    assert found == _layers.probe(outside, images())
    assert not _get_current_function_mode_stack()


LAYERS = [
    ("relu", "layer3"),
    ("relu", "layer3.bn2"),
    ("vit", "blocks.1"),
    ("vit", "blocks.1.norm1"),
    ("swin", "layers.0"),
]


@pytest.mark.parametrize(("name", "layer"), LAYERS)
def test_edited_copies_equal_one_run_each(name, layer):
    """Also inside a block, where a branch around the layer makes the batch sizes disagree."""
    model, x = net(name), images()
    _, A = activation(model, x, layer)
    factors = torch.tensor([0.0, 0.5, 1.0, 2.0], dtype=x.dtype)
    with torch.no_grad():
        got = edited_scores(model, x, CLASSES, layer, lambda A: factors[:, None, None, None, None] * A, 4)
    assert got.shape == (4, 3)
    torch.testing.assert_close(got[2], model(x).gather(1, CLASSES[:, None])[:, 0])

    at = _layers.layout(model, layer, x)

    def scale(_module, _args, out, f):
        return _grids.from_grid(f * _grids.to_grid(out, at), out, at)

    for i, f in enumerate(factors):
        handle = model.get_submodule(layer).register_forward_hook(lambda m, a, o, f=f: scale(m, a, o, f))
        torch.testing.assert_close(got[i], model(x).gather(1, CLASSES[:, None])[:, 0])
        handle.remove()
    assert A.shape[0] == 3


def test_the_stem_runs_once_on_the_batch():
    model, x, seen = net("relu"), images(), []
    _layers.probe(model, x)
    model.conv1.register_forward_hook(lambda _m, _a, out: seen.append(len(out)))
    with torch.no_grad():
        edited_scores(model, x, CLASSES, "layer3", lambda A: A.repeat(5, 1, 1, 1, 1), 5)
    assert seen == [3]


def test_no_graph_before_the_layer():
    model, x, graph = net("relu"), images(), []
    _layers.probe(model, x)
    model.layer1.register_forward_hook(lambda _m, _a, out: graph.append(out.requires_grad))
    activation_and_gradient(model, x, CLASSES, "layer3")
    activation_and_gradient(model, x.requires_grad_(), CLASSES, "layer3")
    assert graph == [False, True]


def test_a_layer_behind_the_last_attention_is_refused():
    model = net("vit")
    with pytest.raises(ValueError, match=r"layer: no position of 'blocks.2.norm2' .* such as 'blocks.2.norm1'"):
        activation_and_gradient(model, images(), CLASSES, "blocks.2.norm2")


def test_a_layer_without_a_grid_or_run_twice_is_refused():
    with pytest.raises(ValueError, match=r"layer: 'fc': its output \(\(2, 10\)\) has no spatial grid"):
        activation(net("relu"), images(), "fc")
    model = net("relu")
    model.layer3 = nn.Sequential(model.layer3, model.layer3)
    with pytest.raises(ValueError, match=r"layer: 'layer3.0': it ran 2 times"):
        activation(model, images(), "layer3.0")
    assert hooks(model) == 0


def test_a_layer_that_hands_on_the_image_itself_does_not_mark_it():
    model, x = nn.Sequential(nn.Identity(), net("relu")), images()
    _, A, g = activation_and_gradient(model, x, CLASSES, "0")
    assert torch.equal(A, x)
    assert g.abs().max() > 0
    assert not x.requires_grad


class Shifted(nn.Module):
    """Two strided ways that lie one pixel apart, joined along the channels, as in NASNet."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.first, self.second = nn.Conv2d(4, 5, 1), nn.Conv2d(4, 3, 1)
        self.join, self.head = nn.ReLU(), nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        apart = F.pad(x, (-1, 1, -1, 1))
        ways = [way(F.avg_pool2d(z, 1, 4)) for way, z in ((self.first, x), (self.second, apart))]
        return self.head(self.join(torch.cat(ways, dim=1)).mean(dim=(2, 3)))


def test_channels_that_lie_a_fraction_of_a_cell_apart_are_one_grid():
    model, x = Shifted().double().eval(), images(2, 64, 64)
    assert _layers.default_layer(model, x) == "join"
    at = _layers.layout(model, "join", x)
    assert (at.h, at.w, at.channel) == (8, 8, 1)
    assert methods.attribute("grad_cam", model, x, 3, resize=False).shape == (2, 1, 8, 8)
