"""Our maps compared with those that the authors' own code gave, on two tiny networks: tests/golden/README.md.

A method with `authors` among `verified` has a function of that name in tests/reference/<method>.py: it gives, under the
names of the arrays in tests/golden/<method>.npz, what our method gives for them.
"""

import numpy as np
import pytest
import torch

import golden_nets
from helpers import references
from methods import METHODS

CLAIMED = [m for m in METHODS.values() if "authors" in m.verified]


@pytest.mark.parametrize("m", CLAIMED, ids=lambda m: m.name)
def test_equals_the_map_of_the_authors_code(m):
    authors = references(m.name)["authors"]
    theirs = golden_nets.arrays(m.name)
    ours = authors(*(golden_nets.vit() if m.architectures == ("vit",) else golden_nets.cnn()), theirs)
    assert ours
    for name, got in ours.items():
        want = torch.as_tensor(theirs[name])
        assert want.abs().max() > 0, name
        # both in float32: a few units in the last place of the largest value
        tolerance = getattr(authors, "tolerance", {"rtol": 1e-4, "atol": 1e-5 * float(want.abs().max())})
        torch.testing.assert_close(
            got.detach().to(want.dtype), want, msg=lambda m, name=name: f"{name}: {m}", **tolerance
        )


def test_every_array_says_where_it_is_from():
    files = sorted(file.stem for file in golden_nets.FOLDER.glob("*.npz"))
    readme = (golden_nets.FOLDER / "README.md").read_text()
    assert {f for f in files if not f.endswith("inputs")} <= set(METHODS)
    for name in files:
        assert f"`{name}" in readme or f"| {name} |" in readme, name
        assert all(np.isfinite(a).all() for a in golden_nets.arrays(name).values() if a.dtype.kind == "f")
