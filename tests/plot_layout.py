"""Where the words of a plot lie: all of them in the picture, none on another, the legend on no curve and no bar."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@contextmanager
def laid_out() -> Iterator[dict[str, list[str]]]:
    """Collect {file name: what is wrong with its layout} of the plots that are written inside the block."""
    from matplotlib.figure import Figure

    found: dict[str, list[str]] = {}
    save = Figure.savefig

    def saved(figure: Any, path: Any, **options: Any) -> None:
        save(figure, path, **options)
        if isinstance(path, Path):
            found[path.name] = list(_problems(figure, cut="bbox_inches" not in options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", saved)
        yield found


def _problems(figure: Any, *, cut: bool) -> Iterator[str]:
    renderer = figure.canvas.get_renderer()
    words = [(text.get_text(), text.get_window_extent(renderer)) for axes in figure.axes for text in _texts(axes)]
    assert len(words) > 4
    for text, box in words:
        if cut and not (-1 <= box.x0 and box.x1 <= figure.bbox.width + 1 and -1 <= box.y0 and box.y1 <= figure.bbox.height + 1):
            yield f"{text!r} is cut off"
    for (text, box), (other, other_box) in combinations(words, 2):
        if _overlap(box, other_box):
            yield f"{text!r} lies on {other!r}"
    for axes in figure.axes:
        legend = axes.get_legend()
        if legend is None:
            continue
        box = legend.get_window_extent(renderer)
        if any(_overlap(box, bar.get_window_extent(renderer)) for bar in axes.patches):
            yield "the legend lies on a bar"
        for line in axes.lines:
            x, y = line.get_transform().transform(_dense(line.get_xydata())).T
            if ((box.x0 < x) & (x < box.x1) & (box.y0 < y) & (y < box.y1)).any():
                yield f"the legend lies on the line {line.get_label()!r}"


def _texts(axes: Any) -> Iterator[Any]:
    """Yield the texts of axes that are drawn."""
    ticks = []
    for axis, (low, high) in ((axes.xaxis, sorted(axes.get_xlim())), (axes.yaxis, sorted(axes.get_ylim()))):
        span = (high - low) * 1e-6
        ticks += [tick.label1 for tick in axis.get_major_ticks() if low - span <= tick.get_loc() <= high + span]
    legend = axes.get_legend()
    named = [axes.title, axes._left_title, axes._right_title, axes.xaxis.label, axes.yaxis.label]
    for text in (*named, *ticks, *axes.texts, *(legend.get_texts() if legend else [])):
        if text.get_visible() and text.get_text().strip():
            yield text


def _dense(points: Any) -> Any:
    """Return points between those of a line too."""
    if len(points) < 2:
        return points
    at = np.linspace(0, len(points) - 1, 40 * len(points))
    return np.stack([np.interp(at, np.arange(len(points)), np.asarray(points, float)[:, i]) for i in range(2)], 1)


def _overlap(one: Any, other: Any) -> bool:
    """Return whether two boxes overlap by more than a pixel."""
    return min(one.x1, other.x1) - max(one.x0, other.x0) > 1 and min(one.y1, other.y1) - max(one.y0, other.y0) > 1
