"""The network before a layer, run once: its operations are recorded and, on every further pass, not computed again.

A forward pass is a list of operations. Up to the layer it is the same list each time, so a second pass is handed the
results of the first one. Only tensors that something still refers to at the layer are kept: its input, a shortcut
around it. All others have been used up; a pass that is replayed gets a tensor without data in their place, with which
an operation that is not on the tape fails.
"""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map


class Replay(TorchFunctionMode):
    """In `with replay:` an operation between `start` and `stop` is recorded the first time and replayed ever after.

    A pass that does not consist of the operations on the tape raises an error, here or at an operation that is not on
    it: while `replaying`, the caller is to set `enabled` to False and run it again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True  # False: every pass is computed in full
        self.reset()

    def reset(self) -> None:
        """Forget what was recorded."""
        self.tape: list[tuple[Any, Any]] = []  # (operation, what it returned)
        self.versions: list[tuple[Tensor, int]] = []  # of the tensors kept, to notice an in-place operation
        self.recorded = self.replaying = False  # replaying: this pass, or the last one, got what was recorded
        self.next: int | None = None  # place on the tape; None: computing as usual

    def start(self) -> None:
        """Call this before a forward pass."""
        self.next = None
        if not self.recorded or any(t.is_inference() or t._version != version for t, version in self.versions):
            self.reset()
        self.replaying = self.enabled and self.recorded
        self.next = 0 if self.enabled else None

    def stop(self) -> None:
        """Call this where passes begin to differ. Does nothing in a pass that has stopped already."""
        recording, self.next = self.next is not None and not self.recorded, None
        if recording:
            used_up = torch.empty(0, device="meta")

            def alive(out: Any) -> Any:
                return out if not isinstance(out, weakref.ref) else used_up if out() is None else out()

            self.tape = [(op, tree_map(alive, out)) for op, out in self.tape]
            kept = {id(t): t for _, out in self.tape for t in tree_flatten(out)[0] if isinstance(t, Tensor)}
            self.versions = [(t, 0 if t.is_inference() else t._version) for t in kept.values()]
            self.recorded = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.next is None:
            return func(*args, **(kwargs or {}))
        if self.recorded:
            if self.next == len(self.tape) or self.tape[self.next][0] != func:
                raise RuntimeError("the operations before the layer are not the same in each forward pass")
            self.next += 1
            return self.tape[self.next - 1][1]
        out = func(*args, **(kwargs or {}))
        self.tape.append((func, tree_map(lambda o: weakref.ref(o) if isinstance(o, Tensor) else o, out)))
        return out
