"""A plot of a classifier's confusion matrix, as a PNG file."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxplm.reporting.fonts import families_for
from jaxplm.reporting.plots import INK, canvas
from jaxplm.scores.classification import UNSEEN

_MAX_NAMED = 40  # classes; with more there is no room for names and counts
_MAX_NAME = 28  # characters


def write_confusion(path: Path, counts: np.ndarray, names: Sequence[str]) -> bool:
    """Draw counts in cells that are coloured by their share of the gold class.

    Args:
      path: of the file; its directory is created.
      counts: [C + 1, C] of `jaxplm.scores.classification.confusion`. The last row is drawn if it counts anything.
      names: [C].

    Returns:
      Whether the classes are drawn as numbers, from 1, because no installed font has all characters of the names, or because there
      are more than 40 classes. A reader then needs the names beside the picture.
    """
    classes = len(names)
    names = [_shorten(name) for name in names]
    fonts = families_for(names)
    numbered = fonts is None or classes > _MAX_NAMED
    labels = [str(i + 1) for i in range(classes)] if numbered else names
    rows = [*labels, UNSEEN] if counts[-1].any() else labels
    cell = next((size for most, size in ((4, 0.95), (8, 0.72), (14, 0.56), (_MAX_NAMED, 0.42)) if classes <= most), 16 / classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with canvas(classes * cell, len(rows) * cell, fonts) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        image = _draw(axes, counts[: len(rows)], cell if classes <= _MAX_NAMED else None)
        _name(axes, rows, labels, cell)
        bar = figure.add_axes((1 + 0.25 / (classes * cell), 0, 0.14 / (classes * cell), 1))
        figure.colorbar(image, cax=bar, ticks=[0, 0.5, 1], format=lambda share, _: f"{100 * share:.0f} %", label="share of the gold class")
        bar.grid(False)
        bar.spines[:].set_visible(False)
        bar.tick_params(length=0)
        figure.savefig(path, bbox_inches="tight", pad_inches=0.15)
    return numbered


def _shorten(name: str) -> str:
    # Decomposed Hangul would be drawn letter by letter.
    name = " ".join(unicodedata.normalize("NFC", name).split())
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1].rstrip() + "…"


def _width(name: str) -> int:
    """Return the width in Latin letters; a syllable of Hangul is about two wide."""
    from rich.cells import cell_len

    return cell_len(name)


def _draw(axes: Any, counts: np.ndarray, cell: float | None) -> Any:
    """Draw the cells and, given their size in inches, the counts."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("shares", ["#f7f9fb", "#9db4cd", "#4f6d8f", "#23384f"])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap=colours, vmin=0, vmax=1, aspect="auto")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    if cell is None:
        return image
    for edge in range(1, counts.shape[1]):
        axes.axvline(edge - 0.5, color="white", linewidth=1)
    for edge in range(1, counts.shape[0]):
        axes.axhline(edge - 0.5, color="white", linewidth=1)
    # A digit is about 0.6 of the size wide, and 72 points are an inch.
    size = min(11.0, 0.42 * 72 * cell, 0.86 * 72 * cell / (0.62 * max(3, len(f"{counts.max():,}"))))
    for (row, column), count in np.ndenumerate(counts):
        if count or counts.shape[1] <= 12:  # zeros would hide the pattern of a large matrix
            colour = "white" if shares[row, column] > 0.45 else INK if count else "#b5bcc4"
            axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=size, color=colour)
    return image


def _name(axes: Any, rows: Sequence[str], columns: Sequence[str], cell: float) -> None:
    """Write the names of the classes along both axes."""
    size = min(10.0, 0.5 * 72 * cell)
    step = -(-len(columns) // _MAX_NAMED)
    turned = max(map(_width, columns)) * 0.6 * size > 0.85 * 72 * cell * step
    axes.set_xticks(range(0, len(columns), step), columns[::step])
    axes.set_yticks([*range(0, len(columns), step), *range(len(columns), len(rows))], [*columns[::step], *rows[len(columns) :]])
    axes.tick_params(length=0, labelsize=size, colors=INK)
    if turned:
        axes.tick_params(axis="x", labelrotation=45)
    for label in axes.get_xticklabels() if turned else ():
        label.set(ha="right", rotation_mode="anchor")
    axes.set_xlabel("predicted", labelpad=8)
    axes.set_ylabel("gold", labelpad=8)
    axes.set_title("Confusion matrix")
