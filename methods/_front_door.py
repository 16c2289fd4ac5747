"""`attribute`: every method in one call, on any classifier, with one clear error for each wrong argument."""

import difflib
import inspect
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods import _layers
from methods._registry import METHODS, Method
from methods._torch import Target, upsample


def attribute(
    name: str,
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: int | Int[Tensor, " B"] | Callable[[Tensor], Tensor] | None = None,
    *,
    layer: str | nn.Module | None = None,
    resize: bool = True,
    **params: Any,
) -> Float[Tensor, "B K _ _"]:
    """The map of a method for each image.

    Args:
        name: a key of METHODS.
        model: any classifier B C H W -> B N, in evaluation mode.
        x: normalised images, floating point, on the model's device.
        target: one class per image, one class for all, a callable logits (B, N) -> score (B,), or None: the top class.
        layer: for methods that use a layer: its dotted name, the module, or None for `_layers.default_layer`.
        resize: True resizes the map bilinearly to H W of the image; False returns it on its own grid.
        **params: the method's own keywords.

    Returns:
        The raw, signed map, in float32 or float64. K = C for maps of pixels and channels, K = 1 for maps of positions.

    Raises:
        ValueError: unknown method or layer, wrong shape, images that are not finite, target out of range, or a method
            that does not apply to the model's architecture.
        TypeError: an argument of the wrong type, or a keyword that the method does not have.
    """
    if name not in METHODS:
        raise ValueError(f"name: no method is called {name!r}{closest(name, METHODS)}")
    m = METHODS[name]
    model = _check_model(model)
    _check_images(model, x)
    _check_params(m, params, layer)
    with torch.inference_mode(False):  # gradients work inside, in any mode of the caller
        if x.is_inference():
            x = x.clone()
        check_architecture(m, model, x)
        goal = _check_target(m, model, x, target)
        if "layer" in m.params:
            params["layer"] = _check_layer(model, x, layer)
        if params.get("layers") is not None:
            params["layers"] = _check_layers(model, params["layers"])
        a = m.fn(model, x, goal, **params)
        return upsample(a, x) if resize else a


def check_architecture(m: Method, model: nn.Module, x: Float[Tensor, "B C H W"]) -> None:
    """Raise a ValueError if the method is not defined for this kind of model."""
    kind = _layers.probe(model, x.shape[1:]).architecture if len(m.architectures) < 3 else None
    if kind and kind not in m.architectures:
        raise ValueError(f"model: {m.name} is defined for {' and '.join(m.architectures)} models, this is a {kind}")


def bind(
    fn: Callable[..., Tensor], model: nn.Module, x: Float[Tensor, "B C H W"], *, seed: int, **params: Any
) -> partial[Tensor]:
    """`fn` as a function of (model, x, target). `layer` (the default layer) and `seed` are set if it has them.

    Args:
        fn: a method of the registry, or another function with the same signature.
        model: the model to explain.
        x: images of the size that `fn` will get.
        seed: for a method that draws random numbers.
        params: keywords; they replace the defaults above.

    Raises:
        ValueError: the method is not defined for this kind of model, or the model has no default layer.
    """
    m = METHODS.get(getattr(fn, "__name__", ""))
    if m and m.fn is fn:
        check_architecture(m, model, x)
    found = inspect.signature(fn).parameters
    if "layer" in found and "layer" not in params:
        params["layer"] = _layers.default_layer(model, x.shape[1:])
    if "seed" in found:
        params.setdefault("seed", seed)
    return partial(fn, **params)


def closest(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(words), n=4, cutoff=0.4)
    return f"; the closest are {', '.join(near)}" if near else ""


def _check_model(model: Any) -> nn.Module:
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("model: scripted modules hide their operations; pass the nn.Module it was made from")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: must be a torch.nn.Module, got {type(model).__name__}")
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper ignores hooks set after compilation
    if model.training:
        message = "model: is in training mode, so dropout and batch statistics change the map; call model.eval()"
        warnings.warn(message, stacklevel=3)
    return model


def _check_images(model: nn.Module, x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x: must be a torch.Tensor, got {type(x).__name__}")
    if x.ndim != 4:
        hint = "; add the batch dimension: x[None]" if x.ndim == 3 else ""
        raise ValueError(f"x: images must be B C H W, got shape {tuple(x.shape)}{hint}")
    if not x.is_floating_point():
        raise TypeError(f"x: images must be floating point and normalised for the model, got {x.dtype}")
    if not len(x):
        raise ValueError("x: the batch holds no image")
    p = next(model.parameters(), x)
    if p.device != x.device:
        raise ValueError(f"x: is on {x.device} but the model on {p.device}; move one: x.to({str(p.device)!r})")
    if p.dtype != x.dtype:
        raise TypeError(f"x: is {x.dtype} but the model {p.dtype}; convert one: x.to({p.dtype})")
    bad = (~torch.isfinite(x)).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"x: images must be finite; NaN or infinity in image {', '.join(map(str, bad))}")


def _check_params(m: Method, params: dict[str, Any], layer: Any) -> None:
    for word in params:
        if word not in m.params:
            raise TypeError(f"{word}: {m.name} has no such keyword{closest(word, m.params)}; it has {list(m.params)}")
    if layer is not None and "layer" not in m.params:
        raise TypeError(f"layer: {m.name} looks at no layer; leave it out")


def _check_target(m: Method, model: nn.Module, x: Tensor, target: Any) -> Target:
    if target is None:
        if m.forward.total == 1:  # the only forward pass is at x: the top class costs nothing
            return lambda logits: logits.max(dim=1).values
        with torch.no_grad():
            return model(x).argmax(dim=1)
    kinds = "must be None, an int, an integer tensor or a callable on logits"
    if isinstance(target, int) and not isinstance(target, bool):
        target = torch.full((len(x),), target, device=x.device)
    if not isinstance(target, Tensor):
        if callable(target):
            return cast("Target", target)
        raise TypeError(f"target: {kinds}, got {type(target).__name__}")
    if target.dtype not in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        raise TypeError(f"target: {kinds}, got a tensor of {target.dtype}")
    if target.shape != (len(x),):
        raise ValueError(f"target: needs one class per image, shape ({len(x)},), got {tuple(target.shape)}")
    N = getattr(model, "num_classes", None) or _layers.probe(model, x.shape[1:]).classes
    wrong = target[(target < 0) | (target >= N)]
    if len(wrong):
        raise ValueError(f"target: classes must be in 0 .. {N - 1}, got {wrong.tolist()}")
    return target.to(x.device, torch.long)


def _check_layer(model: nn.Module, x: Tensor, layer: Any) -> str:
    return _layers.default_layer(model, x.shape[1:]) if layer is None else _name_of(model, layer, "layer", " or None")


def _check_layers(model: nn.Module, layers: Any) -> list[str]:
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise TypeError(f"layers: must be a list of dotted names or modules, or None, got {type(layers).__name__}")
    return [_name_of(model, layer, "layers") for layer in layers]


def _name_of(model: nn.Module, layer: Any, argument: str, more: str = "") -> str:
    names = {module: name for name, module in model.named_modules() if name}
    if isinstance(layer, nn.Module):
        if layer not in names:
            raise ValueError(f"{argument}: this {type(layer).__name__} is not a module of the model")
        return names[layer]
    if not isinstance(layer, str):
        kinds = f"a dotted name, a module of the model{more}"
        raise TypeError(f"{argument}: must be {kinds}, got {type(layer).__name__}")
    if layer not in names.values():
        raise ValueError(f"{argument}: the model has no {layer!r}{closest(layer, names.values())}")
    return layer
