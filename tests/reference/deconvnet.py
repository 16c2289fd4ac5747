"""DeconvNet, by captum, and with the rule written out number by number."""

from captum.attr import Deconvolution

from helpers import not_in_place
from peers import gradient_with_relu_rule, on


@on("relu", "relu_module")  # captum hooks nn.ReLU modules only
def captum(model, x, target):
    return Deconvolution(not_in_place(model)).attribute(x, target)


@on("relu", "relu_module")
def literal(model, x, target):
    """Section 2.1."""
    return gradient_with_relu_rule(model, x, target, lambda f, R: max(R, 0.0))
