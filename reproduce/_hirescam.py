"""A network of one linear layer for which Grad-CAM and HiResCAM differ, and its picture with numbers in the cells.

Draelos, Carin. 2020. arXiv:2011.08891, form of its counterexample. The upper part of fig_hirescam.py.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn

import _plot
import _run  # noqa: F401  puts the repository on the path
from methods import _display


class Example(nn.Module):
    """Two feature maps, one of red and one of blue, and a linear layer with a weight for each of their cells."""

    num_features = 2

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(3, 2, 1, bias=False)
        self.features = nn.Sequential(conv, nn.ReLU())
        self.head = nn.Linear(2 * 9, 1, bias=False)
        red = torch.tensor([3.0, 1, -1]).expand(3, 3)  # for the class at the left, against it at the right
        blue = torch.tensor([2.0, 0, -2])[:, None].expand(3, 3)  # for it at the top, against it at the bottom: mean 0
        with torch.no_grad():
            conv.weight[:] = torch.tensor([[1.0, 0, 0], [0, 0, 1]])[..., None, None]
            self.head.weight[:] = torch.cat([red.flatten(), blue.flatten()])

    def forward(self, x: Float[Tensor, "B 3 3 3"]) -> Float[Tensor, "B 1"]:
        """The score of the only class."""
        return self.head(self.features(x).flatten(1))


def picture() -> Float[Tensor, "1 3 3 3"]:
    """A red cell at the left and one at the right, a blue cell at the top, on black."""
    x = torch.zeros(1, 3, 3, 3)
    x[0, 0, 1, 0] = x[0, 0, 1, 2] = x[0, 2, 0, 1] = 1
    return x


def draw_example(found: dict[str, Any], title: str) -> Figure:
    """The picture, the weights of red and of blue, and the three maps, with numbers in the cells."""
    red, blue = found["alpha"]
    sums = found["sum"]
    terms = " ".join(f"{'-' if v < 0 else '+'} {abs(v):g}" for v in np.ravel(found["effect"]) if v)
    cells: dict[str, tuple[list[list[float]], str]] = {
        "Picture": ([[]], f"weights of its cells:\n{terms.lstrip('+ ')} = score {found['score']:g}"),
        "Weights of red": (found["weights"][0], f"mean {red:g}"),
        "Weights of blue": (found["weights"][1], f"mean {blue:g}"),
        "Grad-CAM": (found["maps"]["grad_cam"], f"mean weight x map,\nsum {sums['grad_cam']:g}"),
        "HiResCAM": (found["maps"]["hires_cam"], f"weight x map,\nsum {sums['hires_cam']:g}"),
        "Score lost": (found["effect"], f"without the cell,\nsum {np.sum(found['effect']):g}"),
    }
    with _display.style():
        figure, axes = _plot.chart(1, len(cells), "", height=1.5, title=title)
        axes[0, 0].imshow(np.moveaxis(np.array(found["picture"]), 0, 2))
        for ax, (name, (values, text)) in zip(axes[0], cells.items(), strict=True):
            if any(values):
                ax.imshow(values, cmap=_display.COLOURS, vmin=-4, vmax=4)
            for (i, j), v in np.ndenumerate(np.array(values)):
                ax.text(j, i, f"{v:g}", ha="center", va="center")
            for line in (0.5, 1.5):
                ax.axhline(line, color=_plot.CONTROL, lw=0.5)
                ax.axvline(line, color=_plot.CONTROL, lw=0.5)
            ax.set(xticks=[], yticks=[], xlabel=text, title=name)
            ax.spines[:].set_visible(True)
    return figure
