"""Guided backpropagation, by captum, and with the rule written out number by number."""

from captum.attr import GuidedBackprop

from helpers import not_in_place
from peers import gradient_with_relu_rule, on


@on("relu", "relu_module")  # captum hooks nn.ReLU modules only
def captum(model, x, target):
    return GuidedBackprop(not_in_place(model)).attribute(x, target)


@on("relu", "relu_module")
def literal(model, x, target):
    """Figure 1c."""
    return gradient_with_relu_rule(model, x, target, lambda f, R: R if f > 0 and R > 0 else 0.0)
