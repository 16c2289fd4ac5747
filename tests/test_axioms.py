"""Axioms that methods satisfy, and identities that reduce one method to another."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers import CLASSES, images
from methods import METHODS
from methods._edits import edited_scores
from methods._torch import activation, attention, noisy, read_out
from methods.ablation_cam import ablation_cam
from methods.attention_rollout import attention_rollout
from methods.blur_ig import blur_ig, gaussian
from methods.cam import cam
from methods.combine import combine
from methods.eigen_cam import eigen_cam, first_component
from methods.full_grad import full_gradients
from methods.grad_cam import grad_cam
from methods.gradient import gradient
from methods.guided_backprop import guided_backprop
from methods.guided_grad_cam import guided_grad_cam
from methods.hires_cam import hires_cam
from methods.input_x_gradient import input_x_gradient
from methods.integrated_gradients import integrated_gradients
from methods.kernel_shap import kernel_shap
from methods.layer_cam import layer_cam
from methods.lift_cam import coefficients
from methods.score_cam import score_cam
from methods.shap_bpt import shap_bpt
from methods.smooth_grad import smooth_grad
from methods.smooth_grad_squared import smooth_grad_squared
from methods.var_grad import var_grad
from methods.xgrad_cam import xgrad_cam
from nets import LINEAR_HEAD, RELU, net

x = images()
close = partial(torch.testing.assert_close, rtol=1e-7, atol=1e-10)


def y(model, x, c=CLASSES):
    with torch.no_grad():
        return model(x)[torch.arange(len(x)), c]


def last(name):
    return "norm" if name == "swin" else "layer4"


def complete_full_grad():
    for name in sorted(RELU - {"relu6"}):  # where it is cut, 6 is a bias of its own
        model = net(name)
        at_x, at_biases = full_gradients(model, x, CLASSES)
        close(at_x.sum(dim=(1, 2, 3)) + sum(b.flatten(1).sum(dim=1) for b in at_biases), y(model, x))


def complete_cam():
    for name in sorted(LINEAR_HEAD):
        model = net(name)
        close(
            cam(model, x, CLASSES, layer=last(name)).mean(dim=(1, 2, 3)) + model.get_classifier().bias[CLASSES],
            y(model, x),
        )


def complete_integrated_gradients():
    model = net("elu")
    ig = integrated_gradients(model, x, CLASSES, steps=100, rule="gauss_legendre")
    # ELU's second derivative jumps: Gauss-Legendre converges as steps^-2
    torch.testing.assert_close(ig.sum(dim=(1, 2, 3)), y(model, x) - y(model, torch.zeros_like(x)), rtol=1e-4, atol=1e-8)


def complete_blur_ig():
    """Left sums with a difference quotient: the gap closes with the steps."""
    model, gaps = net("elu"), []
    sigma = torch.full((1,), 4.0, dtype=x.dtype)
    G = gaussian(sigma, 32)[0]
    change = y(model, x) - y(model, G @ x @ G.T)
    for steps in (50, 200):
        total = blur_ig(model, x, CLASSES, steps=steps, max_sigma=4.0, grad_step=1e-4, chunk=50).sum(dim=(1, 2, 3))
        gaps.append((total - change).abs().max())
    assert gaps[1] < gaps[0]
    assert gaps[1] < 0.05 * change.abs().max()


def complete_lift_cam():
    for layer in ("layer2", "layer4"):
        model = net("elu")
        alpha, _ = coefficients(model, x, CLASSES, layer)
        with torch.no_grad():
            removed = edited_scores(model, x, CLASSES, layer, lambda A: torch.zeros_like(A)[None], 1)[0]
        close(alpha.sum(dim=1), y(model, x) - removed)


def complete_kernel_shap():
    model, x = net("elu"), images()
    phi = kernel_shap(model, x, CLASSES, segments=4, samples=21, fill="zero")[
        :, 0, ::8, ::8
    ]  # one pixel of each region
    close(phi.sum(dim=(1, 2)), y(model, x) - y(model, 0 * x))


def complete_shap_bpt():
    model, x = net("elu"), images()
    close(shap_bpt(model, x, CLASSES, samples=21).sum(dim=(1, 2, 3)), y(model, x) - y(model, 0 * x))


COMPLETE = {
    "kernel_shap": complete_kernel_shap,
    "shap_bpt": complete_shap_bpt,
    "full_grad": complete_full_grad,
    "cam": complete_cam,
    "integrated_gradients": complete_integrated_gradients,
    "blur_ig": complete_blur_ig,
    "lift_cam": complete_lift_cam,
}


def test_every_axiom_declared_is_tested():
    assert {n for n, m in METHODS.items() if "completeness" in m.satisfies} == set(COMPLETE)
    assert {a for m in METHODS.values() for a in m.satisfies} == {"completeness"}


@pytest.mark.parametrize("name", COMPLETE)
def test_completeness(name):
    COMPLETE[name]()


def test_full_grad_is_not_complete_where_nonlinearities_hold_biases():
    model = net("silu_se")
    at_x, at_biases = full_gradients(model, x, CLASSES)
    total = at_x.sum(dim=(1, 2, 3)) + sum(b.flatten(1).sum(dim=1) for b in at_biases)
    assert (total - y(model, x)).abs().min() > 1e-3


@pytest.mark.parametrize("name", sorted(LINEAR_HEAD))
def test_cams_coincide_on_pooled_linear_heads_and_only_there(name):
    model, layer = net(name), last(name)
    h, w = 4, 4
    M = cam(model, x, CLASSES, layer=layer)
    close(hires_cam(model, x, CLASSES, layer=layer), M / (h * w))
    close(grad_cam(model, x, CLASSES, layer=layer), M.relu() / (h * w))
    close(xgrad_cam(model, x, CLASSES, layer=layer), M.relu() / (h * w))
    if name != "swin":
        a, b = (f(model, x, CLASSES, layer="layer3") for f in (hires_cam, grad_cam))
        assert not torch.allclose(a.relu(), b, rtol=1e-2)


def test_ablation_on_a_pooled_linear_head_is_weight_times_mean_activation():
    model = net("relu")
    A = activation(model, x, "layer4")[1].detach()
    w = model.fc.weight[CLASSES].detach() * A.mean(dim=(2, 3)) / y(model, x)[:, None]
    close(ablation_cam(model, x, CLASSES, layer="layer4"), (w[:, :, None, None] * A).sum(dim=1, keepdim=True).relu())


def test_hires_cam_sums_to_the_score_without_bias():
    model = net("relu")
    total = hires_cam(model, x, CLASSES, layer="layer4").sum(dim=(1, 2, 3))
    close(total, y(model, x) - model.fc.bias[CLASSES].detach())


def test_without_noise_smoothing_changes_nothing():
    model = net("relu")
    g = gradient(model, x, CLASSES)
    close(smooth_grad(model, x, CLASSES, noise=0.0, samples=3), g)
    close(smooth_grad_squared(model, x, CLASSES, noise=0.0, samples=3), g**2)
    close(var_grad(model, x, CLASSES, noise=0.0, samples=3), torch.zeros_like(g))


def test_the_three_noisy_maps_fit_together():
    """Var g = E g^2 - (E g)^2 over the same draws."""
    model = net("relu")
    mean, square, variance = (f(model, x, CLASSES, samples=5) for f in (smooth_grad, smooth_grad_squared, var_grad))
    close(variance, square - mean**2)


def test_noise_has_the_promised_spread():
    X = torch.cat([*noisy(x, 400, 0.2, 0, 30)])
    assert X.shape == (400, 3, 3, 32, 32)
    spread = (X - x).std(dim=(0, 2, 3, 4)) / (x.amax(dim=(1, 2, 3)) - x.amin(dim=(1, 2, 3)))
    torch.testing.assert_close(spread, torch.full_like(spread, 0.2), rtol=5e-3, atol=0)
    close(
        (X - x)[:, 0] / (X - x)[:, 1],
        (X - x)[:1, 0, :1, :1, :1] / (X - x)[:1, 1, :1, :1, :1] + torch.zeros_like(X[:, 0]),
    )


def test_smoothing_any_map():
    model = net("relu")
    of = partial(grad_cam, layer="layer3")
    assert smooth_grad(model, x, CLASSES, of=of, samples=2).shape == (3, 1, 8, 8)
    close(smooth_grad(model, x, CLASSES, of=of, samples=2, noise=0.0), of(model, x, CLASSES))


def test_one_step_from_zero_to_x_is_input_x_gradient():
    model = net("relu")
    close(integrated_gradients(model, x, CLASSES, steps=1, rule="right"), input_x_gradient(model, x, CLASSES))


def test_guided_grad_cam_is_a_combination():
    model = net("relu")
    close(
        combine(model, x, CLASSES, layer="layer3", of=guided_backprop, cam=grad_cam),
        guided_grad_cam(model, x, CLASSES, layer="layer3"),
    )


def test_layer_cam_of_positive_gradients_is_hires_cam():
    model = net("relu")
    model.fc.weight.data.abs_()
    close(layer_cam(model, x, CLASSES, layer="layer4"), hires_cam(model, x, CLASSES, layer="layer4"))


def test_eigen_cam_of_rank_one_is_the_activation_up_to_scale():
    """And its sign does not depend on the decomposition's."""
    a = torch.rand(2, 1, 4, 4, dtype=x.dtype)
    v = torch.rand(2, 6, 1, 1, dtype=x.dtype)
    close(first_component(a * v, center=False), a * v.norm(dim=1, keepdim=True))
    svd = torch.linalg.svd

    def flipped(*args, **kwargs):
        U, S, V = svd(*args, **kwargs)
        return -U, S, -V

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.linalg, "svd", flipped)
        close(first_component(a * v, center=False), a * v.norm(dim=1, keepdim=True))
    both = (eigen_cam(net("relu"), x, c, layer="layer4") for c in (CLASSES, 0 * CLASSES))
    assert torch.equal(*both)


def test_score_cam_weights():
    """Shifting every score leaves the softmax alone; raw weights are the scores themselves."""
    model = net("relu")
    a = score_cam(model, x, CLASSES, layer="layer4")
    close(score_cam(model, x, lambda s: s[torch.arange(3), CLASSES] + 5, layer="layer4"), a)
    raw = score_cam(model, x, lambda s: 0 * s[:, 0] + 2, layer="layer4", weights="raw")
    close(raw, 2 * activation(model, x, "layer4")[1].detach().sum(dim=1, keepdim=True))


@pytest.mark.parametrize("name", ["vit", "vit_avg"])
def test_rollout_rows_sum_to_one(name):
    model = net(name)
    _, maps = attention(model, x)
    T = maps[0].shape[-1]
    I = torch.eye(T, dtype=x.dtype)
    rollout = I
    for A in maps:
        rollout = 0.5 * (A.mean(dim=1) + I) @ rollout
    close(rollout.sum(dim=-1), torch.ones(3, T, dtype=x.dtype))
    close(attention_rollout(model, x, CLASSES), read_out(model, x, rollout).detach())
    P = model.num_prefix_tokens
    rows = rollout[:, :1] if name == "vit" else rollout[:, P:]
    close(attention_rollout(model, x, CLASSES).sum(dim=(1, 2, 3)), 1 - rows.mean(dim=1)[:, :P].sum(dim=1).detach())


class Standardised(nn.Conv2d):
    """A convolution whose weights are standardised by a batch norm without running statistics, as in NFNets."""

    def forward(self, x):
        weight = F.batch_norm(self.weight.reshape(1, len(self.weight), -1), None, None, training=True)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias)


def test_full_grad_where_a_batch_norm_standardises_weights():
    torch.manual_seed(0)
    model = nn.Sequential(Standardised(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    model, x = model.double().eval(), images()
    at_x, at_biases = full_gradients(model, x, CLASSES)
    total = sum(a.flatten(1).sum(dim=1) for a in (at_x, *at_biases))
    torch.testing.assert_close(total, model(x).gather(1, CLASSES[:, None])[:, 0])
    batch = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), *model[1:]).double().eval()
    with pytest.raises(ValueError, match="batch norms with running statistics"):
        full_gradients(batch, x, CLASSES)
