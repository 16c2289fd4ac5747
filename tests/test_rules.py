"""Operations intercepted: backward rules by operation, attention maps of unmodified models."""

import pytest
import timm
import torch
from torch.nn import functional as F

from helpers import CLASSES, images
from methods._layers import probe
from methods._rules import attention_maps, explicit_attention, relu_backward, rules
from methods._torch import attention, read_out
from methods.gradient import gradient
from methods.guided_backprop import guided_backprop
from nets import net


def test_attention_of_a_stock_vit_with_fused_attention():
    """Equal to what timm computes when told not to fuse; the model is not touched."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5).eval()
    assert all(b.attn.fused_attn for b in model.blocks)
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        logits, maps = attention(model, x)
        plain = model(x)
        assert all(b.attn.fused_attn for b in model.blocks)
        assert not any(b.attn.attn_drop._forward_hooks for b in model.blocks)
        seen = []
        for b in model.blocks:
            b.attn.fused_attn = False
            b.attn.attn_drop.register_forward_hook(lambda _m, _a, out: seen.append(out))
        model(x)
    assert len(maps) == 12
    torch.testing.assert_close(logits, plain, rtol=1e-4, atol=1e-5)
    for A, B in zip(maps, seen, strict=True):
        assert A.shape == (2, 3, 197, 197)
        torch.testing.assert_close(A, B, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(A.sum(dim=-1), torch.ones(2, 3, 197))


def test_attention_gradients_are_those_of_the_score():
    model, x = net("vit"), images()
    logits, maps = attention(model, x)
    (g,) = torch.autograd.grad(logits.gather(1, CLASSES[:, None]).sum(), maps[1])
    step, kept = 1e-6, []

    def nudge(A, sign):
        kept.append(A)
        A = A.clone()
        if len(kept) % 3 == 2:  # the second of three layers
            A[0, 1, 2, 3] += sign * step
        return A

    y = []
    for sign in (1, -1):
        with torch.no_grad(), attention_maps(lambda A, sign=sign: nudge(A, sign)):
            y.append(model(x)[0, CLASSES[0]])
    torch.testing.assert_close(g[0, 1, 2, 3], (y[0] - y[1]) / (2 * step), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("mask", [None, "bool", "float", "causal"])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_explicit_attention_is_the_fused_one(mask, scale):
    q, k, v = torch.randn(3, 2, 4, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given = {"bool": torch.ones(6, 6).tril().bool(), "float": torch.randn(6, 6, dtype=torch.float64)}.get(mask)
    want = F.scaled_dot_product_attention(q, k, v, given, is_causal=mask == "causal", scale=scale)
    torch.testing.assert_close(explicit_attention(q, k, given, mask == "causal", scale) @ v, want)


@pytest.mark.parametrize("name", ["relu", "swin"])
def test_no_global_attention_is_an_error(name):
    with pytest.raises(
        ValueError,
        match=r"^model: needs attention between the tokens of one grid; (computes no attention|.* inside windows)",
    ):
        attention(net(name), images())


@pytest.mark.parametrize("name", ["elu", "silu_se", "gelu_ln", "vit"])
def test_a_rule_that_matches_nothing_raises(name):
    with pytest.raises(ValueError, match="model: has no relu operation"):
        guided_backprop(net(name), images(), CLASSES)


def test_a_rule_that_matches_nothing_does_not_hide_an_error():
    def fail():
        with rules(relu=lambda op, *a, **k: op(*a, **k)):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()


def test_the_identity_rule_is_the_gradient_and_the_rule_ends_with_the_block():
    model, x = net("relu"), images()
    plain = gradient(model, x, CLASSES)
    with relu_backward(lambda own, R: own):
        same = gradient(model, x, CLASSES)
    with relu_backward(lambda own, R: 2 * own):
        scaled = gradient(model, x, CLASSES)
    torch.testing.assert_close(same, plain)
    assert scaled.abs().max() > 30 * plain.abs().max()  # a factor of 2 at each of 5 to 9 ReLUs
    torch.testing.assert_close(gradient(model, x, CLASSES), plain)


def test_relu6_counts_as_a_relu_and_other_clamps_do_not():
    x = torch.tensor([-1.0, 3.0, 7.0], requires_grad=True)
    with relu_backward(lambda own, R: 10 * own):
        (g,) = torch.autograd.grad(F.relu6(x).sum() + torch.nn.ReLU6()(x).sum(), x)
    assert g.tolist() == [0, 20, 0]
    with pytest.raises(ValueError, match="no relu"), relu_backward(lambda own, R: own):
        F.hardtanh(x)


def test_in_place_relu_whose_result_is_not_used():
    x = torch.tensor([-1.0, 3.0], requires_grad=True)
    with relu_backward(lambda own, R: (R > 0) * R):
        y = x * 2
        y.relu_()
        assert y.tolist() == [0, 6]
        (g,) = torch.autograd.grad((y * torch.tensor([1.0, -1.0])).sum(), x)
    assert g.tolist() == [2, 0]


def test_in_place_relu_of_a_part():
    x = torch.tensor([-1.0, 3.0, -5.0], requires_grad=True)
    with relu_backward(lambda own, R: (R > 0) * R):
        y = x * 2
        y[:2].relu_()
        assert y.tolist() == [0, 6, -10]
        (g,) = torch.autograd.grad((y * torch.tensor([1.0, -1.0, -1.0])).sum(), x)
    assert g.tolist() == [2, 0, -2]


def test_activations_that_the_rule_leaves_alone_are_warned_about():
    model = net("relu")
    model.layer2.act1 = torch.nn.SiLU()
    with pytest.warns(UserWarning, match="model: also has silu, which this method's ReLU rule does not change"):
        guided_backprop(model, images(), CLASSES)


SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}


@pytest.mark.parametrize(
    ("name", "options", "rows"),
    [
        ("vit_tiny_patch16_224", {}, [0]),
        ("vit_tiny_patch16_224", {"reg_tokens": 4}, [0]),
        ("vit_tiny_patch16_224", {"global_pool": "avg", "reg_tokens": 2}, [*range(3, 19)]),
        ("vit_tiny_patch16_224", {"global_pool": "avg", "class_token": False}, [*range(16)]),
        ("deit_tiny_distilled_patch16_224", {}, [0, 1]),
        ("eva02_tiny_patch14_224", {}, [*range(1, 17)]),
    ],
)
def test_the_rows_read_out_are_those_that_the_score_depends_on(name, options, rows):
    torch.manual_seed(0)
    model = timm.create_model(name, **SMALL | options).eval()
    kept = []
    model.norm.register_forward_hook(lambda _m, _a, out: kept.append(out))
    (g,) = torch.autograd.grad(model(torch.randn(1, 3, 32, 32))[:, 3].sum(), kept[0])
    P = getattr(model, "num_prefix_tokens", 0)
    assert g[0].abs().sum(dim=1).nonzero().flatten().tolist() == rows
    assert probe(model, (3, 32, 32)).tokens.read == tuple(rows)
    R = torch.arange(1.0, g.shape[1] ** 2 + 1).view(1, g.shape[1], g.shape[1])
    row = R[0, rows].mean(dim=0)[P:]
    torch.testing.assert_close(read_out(model, torch.zeros(1, 3, 32, 32), R), row.view(1, 1, 4, 4))
