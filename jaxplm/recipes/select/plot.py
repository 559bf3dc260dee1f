"""The histogram of a selection: similarities of neighbours, or importance weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxplm.recipes.select.selection import Selection
from jaxplm.reporting.plots import canvas

_CHOSEN, _NEAREST, _OTHERS = "#4f6d8f", "#c8553d", "#d9a21b"
_BINS = 60


def write_histogram(path: Path, selection: Selection) -> bool:
    """Draw a histogram where there is something to draw, and return whether there is.

    Args:
      path: of the PNG file; its directory is created.
      selection: with similarities or weights.
    """
    if selection.similarities is not None and selection.chance is not None:
        groups = [
            ("pairs by chance", _OTHERS, selection.chance),
            ("selected texts: to the nearest task text", _CHOSEN, selection.values["similarity"]),
            ("task texts: to the nearest corpus text", _NEAREST, selection.similarities[:, 0]),
        ]
        _draw(path, groups, "Similarity", "cosine")
        return True
    if selection.weights is not None:
        _draw(path, [("corpus", _OTHERS, selection.weights), ("selected texts", _CHOSEN, selection.values["weight"])],
              "Importance weight", "log weight")
        return True
    return False


def _draw(path: Path, groups: Sequence[tuple[str, str, np.ndarray]], title: str, label: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    everything = np.concatenate([values for _, _, values in groups])
    low, high = np.quantile(everything, [0.001, 0.999]) if len(everything) > 1000 else (everything.min(), everything.max())
    edges = np.linspace(low, max(high, low + 1e-6), _BINS + 1)
    with canvas(7.2, 4.0, layout="constrained") as figure:
        axes = figure.subplots()
        for name, colour, values in groups:
            counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)  # what lies outside is in the last bars
            axes.stairs(counts, edges, color=colour, fill=True, alpha=0.25)
            axes.stairs(counts, edges, color=colour, linewidth=1.8, label=f"{name} (median {np.median(values):.3g})")
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        axes.set_title(title)
        axes.set_xlabel(label)
        axes.set_ylabel("share of each group")
        axes.margins(x=0.02)
        bottom, top = axes.get_ylim()
        axes.set_ylim(bottom, top * 1.3)  # room for the legend above
        axes.legend(loc="upper left", fontsize=9)
        figure.savefig(path)
