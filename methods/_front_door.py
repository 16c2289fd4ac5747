"""`attribute`: every method in one call, on any classifier, with one clear error for each wrong argument."""

import contextlib
import difflib
import inspect
import numbers
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods import _layers
from methods._calls import AUTOCAST, PROGRESS, logits_of, run
from methods._progress import progress as bar_of
from methods._registry import METHODS, Method
from methods._shared import sharing
from methods._torch import Target, upsample


def attribute(
    name: str,
    model: nn.Module | Callable[[Tensor], Any],
    x: Float[Tensor, "B C H W"],
    target: int | Sequence[int] | Int[Tensor, " B"] | Callable[[Any], Tensor] | None = None,
    *,
    layer: str | nn.Module | None = None,
    resize: bool = True,
    progress: bool = False,
    **params: Any,
) -> Float[Tensor, "B K _ _"]:
    """The map of a method for each image.

    Args:
        name: a key of METHODS.
        model: a module in evaluation mode, or a function, from images B C H W to logits (B, N): the output itself, its
            `.logits`, its ["logits"], or the first tensor of a tuple. For another output, `target` must be a callable.
            A function may return a NumPy array.
        x: normalised images, floating point, on the model's device.
        target: one class per image (a tensor, list or array), one class for all, None: the top class; or a callable
            that gets what the model returned and gives one score per image (B,).
        layer: for methods that use a layer: its dotted name, the module, or None for `_layers.default_layer`. For a
            function the module, since it hides the names.
        resize: True resizes the map bilinearly to H W of the image; False returns it on its own grid.
        progress: print to stderr how many of the images that the method runs are done, and the time left.
        **params: the method's own keywords.

    Returns:
        The raw, signed map, in float32 or float64. K = C for maps of pixels and channels, K = 1 for maps of positions.

    Raises:
        ValueError: unknown method or layer, wrong shape, images that are not finite, target out of range, a method
            that does not apply to the model, or a map that is not finite.
        TypeError: an argument of the wrong type, or a keyword that the method does not have.
    """
    m = _check_name(name)
    _check_images(x)
    user, model = model, _check_model(m, model, layer)
    _check_device(model, x)
    params = _check_params(m, params, layer, x)
    with torch.inference_mode(False), _model_autocast(x.device.type):  # gradients work, in any mode of the caller
        x = x.clone() if x.is_inference() else x
        mixes = _layers.probe(model, x).mixes
        if mixes:
            warnings.warn(
                "model: a score depends on the other images of the batch (statistics of the batch?), so does the map",
                stacklevel=2,
            )
        check_architecture(m, model, x)
        goal = _check_target(m, model, x, target)
        if "layer" in m.params:
            params["layer"] = _check_layer(user, model, x, layer)
        if params.get("layers") is not None:
            params["layers"] = _check_layers(user, model, params["layers"])
        with contextlib.nullcontext(len(x)) if mixes else sharing(model, x) as different:
            if m.backward.total == 0 and params.get("chunk", m.params.get("chunk", 0)) > 0:
                chunk = params.get("chunk", m.params["chunk"])
                params["chunk"] = chunk * len(x) // different  # images that run: several classes of one are one
            with _told(m, x, different, params) if progress else contextlib.nullcontext():
                a = m.fn(model, x, goal, **params)
        if bad := _not_finite(a):
            raise ValueError(
                f"model: the map of {m.name} has NaN or infinity in image {bad}: a score or its "
                "derivative is not finite there (a root or logarithm of 0, or an overflow)"
            )
        return upsample(a, x) if resize else a


@contextlib.contextmanager
def _told(m: Method, x: Tensor, different: int, params: dict[str, Any]) -> Iterator[None]:
    """Within the block each forward pass moves a progress bar, or a line in a log."""
    total = None
    with contextlib.suppress(AttributeError):  # its passes depend on a layer
        total = different * m.cost(H=x.shape[2], W=x.shape[3], **params).forward.before
    bar = bar_of(m.name, "image", total)
    token = PROGRESS.set(bar.update)
    try:
        yield
    finally:
        PROGRESS.reset(token)
        bar.close()


class Function(nn.Module):
    """A plain function as a model. `layer` is a module inside it whose output a method reads; a hook finds it there."""

    def __init__(self, fn: Callable[[Tensor], Any], layer: nn.Module | None) -> None:
        super().__init__()
        self.fn, self.layer = fn, layer
        self.training = False  # not train(False): that would change `layer`

    def forward(self, x: Float[Tensor, "B C H W"]) -> Any:
        try:
            output = self.fn(x)
        except RuntimeError as error:
            if not x.requires_grad or "numpy()" not in str(error):
                raise
            output = self.fn(x.detach())  # it leaves PyTorch: its scores have no gradient
        return torch.from_numpy(output).to(x.device) if isinstance(output, np.ndarray) else output


@contextlib.contextmanager
def _model_autocast(device: str) -> Iterator[None]:
    """Within the block the caller's torch.autocast acts on the model alone."""
    if not torch.is_autocast_enabled(device):
        yield
        return
    token = AUTOCAST.set((device, torch.get_autocast_dtype(device)))
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        AUTOCAST.reset(token)


def check_architecture(m: Method, model: nn.Module, x: Float[Tensor, "B C H W"]) -> None:
    """Raise a ValueError if the method is not defined for this kind of model."""
    if len(m.architectures) == 3:
        return
    found = _layers.probe(model, x)
    if found.architecture not in m.architectures:
        why = f"; {found.attention}" if m.architectures == ("vit",) else ""
        kinds = " and ".join(m.architectures)
        raise ValueError(f"model: {m.name} is defined for {kinds} models, this is a {found.architecture}{why}")


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
        params["layer"] = _layers.default_layer(model, x)
    if "seed" in found:
        params.setdefault("seed", seed)
    return partial(fn, **params)


def closest(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(words), n=4, cutoff=0.4)
    return f"; the closest are {', '.join(near)}" if near else ""


def _check_name(name: Any) -> Method:
    if not isinstance(name, str):
        order = "attribute(method, model, x, target)"
        raise TypeError(f"name: must be the name of a method, got {type(name).__name__}; the order is {order}")
    if name not in METHODS:
        raise ValueError(f"name: no method is called {name!r}{closest(name, METHODS)}")
    return METHODS[name]


def _check_model(m: Method, model: Any, layer: Any) -> nn.Module:
    """The module that is run: a function as a module, and the network inside DataParallel and torch.compile.

    Raises:
        TypeError: a model whose operations or gradients are hidden from PyTorch.
        ValueError: a model that was built in inference mode.
    """
    if isinstance(model, torch.export.ExportedProgram):
        raise TypeError("model: an exported program hides its modules; pass the nn.Module it was made from")
    if not callable(model):
        raise TypeError(f"model: must be a torch.nn.Module or a function of images, got {type(model).__name__}")
    if not isinstance(model, nn.Module):
        if isinstance(layer, str) or ("layer" in m.params and layer is None):
            raise ValueError("layer: a function as a model hides the names of its layers; pass the module as layer=")
        model = Function(getattr(model, "_torchdynamo_orig_callable", model), layer)
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) or hasattr(model, "_orig_mod"):
        model = getattr(model, "_orig_mod", None) or model.module
    training = ""
    for name, module in model.named_modules():
        where = f"{name!r} is" if name else "it is"
        kind = f"{type(module).__module__}.{type(module).__name__}"
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(f"model: {where} scripted, and scripted modules hide their operations; use the nn.Module")
        if isinstance(module, torch.fx.GraphModule) and any(
            isinstance(node.target, torch._ops.OpOverload) for node in module.graph.nodes
        ):
            raise TypeError(
                f"model: {where} an exported graph, which hides its modules; pass the nn.Module it came from"
            )
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise TypeError(f"model: {where} a DataParallel over several devices; put its .module there")
        if ".quantized" in kind and m.backward.total != 0:
            raise TypeError(
                f"model: {where} quantised ({kind}), so it has no gradient; pass the floating-point model, or use a "
                "method without backward passes"
            )
        training = training or (where if module.training else "")
    if any(t.is_inference() for t in (*model.parameters(), *model.buffers())):
        raise ValueError(
            "model: was built or loaded under torch.inference_mode(), so it can have no gradient; build it outside, "
            "or under torch.no_grad()"
        )
    if training:
        message = (
            f"model: {training} in training mode, so dropout and batch statistics change the map; call model.eval()"
        )
        warnings.warn(message, stacklevel=3)
    return model


def _check_images(x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x: must be a torch.Tensor, got {type(x).__name__}")
    if x.ndim != 4:
        hint = {3: "; add the batch dimension: x[None]", 5: "; videos and volumes have no method here"}.get(x.ndim, "")
        raise ValueError(f"x: images must be B C H W, got shape {tuple(x.shape)}{hint}")
    if not x.is_floating_point():
        raise TypeError(f"x: images must be floating point and normalised for the model, got {x.dtype}")
    if not len(x):
        raise ValueError("x: the batch holds no image")


def _check_device(model: nn.Module, x: Tensor) -> None:
    weights = [p for p in model.parameters() if p.is_floating_point()]
    if weights and x.device not in {p.device for p in weights}:
        p = weights[0]
        raise ValueError(f"x: is on {x.device} but the model on {p.device}; move one: x.to({str(p.device)!r})")
    if weights and x.dtype not in {p.dtype for p in weights}:
        p = weights[0]
        raise TypeError(f"x: is {x.dtype} but the model {p.dtype}; convert one: x.to({p.dtype})")
    if bad := _not_finite(x):
        raise ValueError(f"x: images must be finite; NaN or infinity in image {bad}")


def _not_finite(a: Tensor) -> str:
    """The numbers of the rows with NaN or infinity, with commas."""
    bad = (~torch.isfinite(a)).flatten(1).any(dim=1).nonzero().flatten().tolist()
    return ", ".join(map(str, bad))


def _check_params(m: Method, params: dict[str, Any], layer: Any, x: Tensor) -> dict[str, Any]:
    """The keywords; a number or an array as baseline becomes a tensor."""
    for word in params:
        if word not in m.params:
            raise TypeError(f"{word}: {m.name} has no such keyword{closest(word, m.params)}; it has {list(m.params)}")
    if layer is not None and "layer" not in m.params:
        raise TypeError(f"layer: {m.name} looks at no layer; leave it out")
    kinds: dict[Any, tuple[Any, str]] = {
        int: (numbers.Integral, "a whole number"),
        float: (numbers.Real, "a number"),
        float | None: (numbers.Real | None, "a number or None"),
        bool: (bool, "a bool"),
        str: (str, "a str"),
    }
    declared, checked = inspect.signature(m.fn).parameters, {}
    for word, value in params.items():
        kind, words = kinds.get(declared[word].annotation, (object, ""))
        wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, object))
        if word == "baseline" and value is not None:
            wrong, words = not isinstance(value, numbers.Real | np.ndarray | Tensor), "a tensor, a number or None"
            value = torch.as_tensor(value, dtype=x.dtype, device=x.device) if not wrong else value
        if wrong:
            raise TypeError(f"{word}: must be {words}, got {value!r}")
        checked[word] = value
    return checked


def _check_target(m: Method, model: nn.Module, x: Tensor, target: Any) -> Target:
    if target is None:
        if m.forward.total == 1:  # the only forward pass is at x: the top class costs nothing
            return lambda output: logits_of(output).max(dim=1).values
        with torch.no_grad():
            return logits_of(run(model, x)).argmax(dim=1)
    kinds = "must be None, an int, integers (one per image) or a callable on what the model returns"
    if isinstance(target, numbers.Integral) and not isinstance(target, bool):
        target = torch.full((len(x),), int(target), device=x.device)
    if isinstance(target, list | tuple | np.ndarray):
        target = torch.from_numpy(np.asarray(target)) if len(target) else torch.empty(0, device="cpu")
    if not isinstance(target, Tensor):
        if callable(target):
            return cast("Target", target)
        raise TypeError(f"target: {kinds}, got {type(target).__name__}")
    if target.dtype.is_floating_point or target.dtype.is_complex or target.dtype == torch.bool:
        raise TypeError(f"target: {kinds}, got a tensor of {target.dtype}")
    target = target.to(x.device, torch.long).clone()
    target = target.expand(len(x)) if target.ndim == 0 else target
    if target.shape != (len(x),):
        raise ValueError(f"target: needs one class per image, shape ({len(x)},), got {tuple(target.shape)}")
    N = _layers.classes(model, x)
    wrong = target[(target < 0) | (target >= N)]
    if len(wrong):
        raise ValueError(f"target: classes must be in 0 .. {N - 1}, got {wrong.tolist()}")
    return target


def _check_layer(user: Any, model: nn.Module, x: Tensor, layer: Any) -> str:
    name = _layers.default_layer(model, x) if layer is None else _name_of(user, model, layer, "layer", " or None")
    _layers.layout(model, name, x)
    return name


def _check_layers(user: Any, model: nn.Module, layers: Any) -> list[str]:
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise TypeError(f"layers: must be a list of dotted names or modules, or None, got {type(layers).__name__}")
    return [_name_of(user, model, layer, "layers") for layer in layers]


def _name_of(user: Any, model: nn.Module, layer: Any, argument: str, more: str = "") -> str:
    names = {module: name for name, module in model.named_modules() if name}
    if isinstance(layer, str) and layer not in names.values() and isinstance(user, nn.Module):
        layer = dict(user.named_modules()).get(layer, layer)  # a name inside DataParallel or torch.compile
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
