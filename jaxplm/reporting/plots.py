"""Plots of a run's curves as PNG files. They need no display."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxplm.reporting.fonts import DEFAULT
from jaxplm.scores.names import SHARES, title

# Colours that colour-blind readers can tell apart, and that differ in grey print.
_COLOURS = {"train": "#4f6d8f", "validation": "#c8553d", "general": "#d9a21b", "test": "#2f7f6f"}
_NAMES = {"train": "training", "validation": "validation", "general": "general text", "test": "test"}
_MARKS = {"validation": "o", "general": "s", "test": "D"}
INK = "#333333"

Rows = Sequence[dict[str, Any]]


def write_plots(directory: Path, rows: Rows, *, exported_step: int | None = None, metric: str = "") -> list[tuple[str, Path]]:
    """Draw loss, a score, speed and learning rate, each where the rows have it.

    Args:
      directory: created if it does not exist; files of an earlier call are replaced.
      rows: as in metrics.jsonl.
      exported_step: marked in the plots of loss and score.
      metric: the score to draw. Accuracy is drawn where this is empty or a loss, which has its own plot.

    Returns:
      (caption, file) of each plot that was drawn.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    score = "accuracy" if metric in ("", "loss", "perplexity") else metric
    for name, caption, draw in (
        ("loss", "Loss", lambda axes: _loss(axes, rows, exported_step)),
        (score, title(score), lambda axes: _score(axes, rows, score, exported_step)),
        ("speed", "Speed", lambda axes: _speed(axes, rows)),
        ("learning_rate", "Learning rate", lambda axes: _learning_rate(axes, rows)),
    ):
        path = directory / f"{name}.png"
        if _save(path, draw):
            written.append((caption, path))
    return written


def series(rows: Rows, split: str, name: str) -> tuple[list[int], list[float]]:
    """Return (steps, values) of one number of one split; rows without it, and nulls, are left out."""
    points = [(row["step"], row[name]) for row in rows if row["split"] == split and row.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def smooth(values: Sequence[float], span: int) -> list[float]:
    """Return the mean over a window of `span` values around each value. The window shrinks evenly at the ends, so nothing lags."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    result = []
    for i in range(len(values)):
        reach = min(span // 2, i, len(values) - 1 - i)
        result.append((sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1))
    return result


@contextmanager
def canvas(width: float, height: float, families: list[str] | None = None, **options: Any) -> Iterator[Any]:
    """Yield a `matplotlib.figure.Figure` in the style of all plots, which holds inside the block.

    Args:
      width, height: in inches.
      families: of the fonts, see `jaxplm.reporting.fonts.families_for`; None: matplotlib's own.
      options: further ones of the figure.
    """
    # Imported here: it takes half a second, and a run needs it at its end.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {
        "font.family": families or [DEFAULT], "text.parse_math": False, "font.size": 10, "text.color": INK, "axes.labelcolor": INK,
        "axes.edgecolor": "#999999", "xtick.color": "#666666", "ytick.color": "#666666",
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
        "grid.linewidth": 0.8, "axes.axisbelow": True, "axes.titlelocation": "left", "axes.titlesize": 12,
        "axes.titleweight": "bold", "axes.titlepad": 12, "legend.frameon": False, "lines.solid_capstyle": "round",
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), dpi=150, **options)
        FigureCanvasAgg(figure)
        yield figure


def _save(path: Path, draw: Any) -> bool:
    with canvas(7.2, 4.0, layout="constrained") as figure:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        if not draw(axes):
            path.unlink(missing_ok=True)
            return False
        axes.set_xlabel("step")
        axes.margins(x=0.02)
        widest = len(f"{axes.get_xlim()[1]:,.0f}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=max(3, min(8, 60 // widest)), steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        spread_labels(figure, axes)
        figure.savefig(path)
    return True


def _loss(axes: Any, rows: Rows, exported_step: int | None) -> bool:
    steps, values = series(rows, "train", "loss")
    drawn = bool(values)
    if len(values) >= 30:
        axes.plot(steps, values, color=_COLOURS["train"], alpha=0.25, linewidth=1)
        axes.plot(
            steps,
            smooth(values, max(5, len(values) // 15)),
            color=_COLOURS["train"],
            linewidth=2,
            label="training",
        )
    elif values:
        axes.plot(steps, values, color=_COLOURS["train"], linewidth=2, label="training")
    drawn |= _evaluations(axes, rows, "loss", "{:.3f}")
    axes.set_title("Loss")
    axes.set_ylabel("cross-entropy, nats per predicted token" if _is_mlm(rows) else "loss")
    _finish(axes, exported_step)
    return drawn


def _score(axes: Any, rows: Rows, name: str, exported_step: int | None) -> bool:
    share = name in SHARES
    drawn = _evaluations(axes, rows, name, "{:.1%}" if share else "{:.3g}")
    if share:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    axes.set_title(title(name))
    if name == "accuracy":
        axes.set_ylabel("share of masked tokens predicted correctly" if _is_mlm(rows) else "share predicted correctly")
    else:
        axes.set_ylabel(title(name))
    _finish(axes, exported_step)
    return drawn


def _speed(axes: Any, rows: Rows) -> bool:
    steps, values = series(rows, "train", "tokens_per_second")
    if not values:
        return False
    axes.plot(steps, values, color=_COLOURS["train"], linewidth=1.5, alpha=0.9)
    median = sorted(values)[len(values) // 2]
    axes.axhline(median, color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f"median {median:,.0f}")
    _legend(axes)
    axes.set_ylim(0, max(values) * 1.12 or 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_title("Speed")
    axes.set_ylabel("tokens per second (without padding)")
    return True


def _learning_rate(axes: Any, rows: Rows) -> bool:
    steps, values = series(rows, "train", "learning_rate")
    if not values:
        return False
    axes.plot(steps, values, color=_COLOURS["train"], linewidth=2)
    axes.set_ylim(0, max(values) * 1.08 or 1)
    axes.locator_params(axis="y", nbins=5, steps=[1, 2, 5, 10])  # ticks that two digits can show
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.1e}".replace("e-0", "e-") if value else "0")
    axes.set_title("Learning rate")
    axes.set_ylabel("learning rate")
    return True


def _evaluations(axes: Any, rows: Rows, name: str, form: str) -> bool:
    drawn = False
    for split, mark in _MARKS.items():
        steps, values = series(rows, split, name)
        if not values:
            continue
        axes.plot(
            steps, values, color=_COLOURS[split], linewidth=1.8, marker=mark, markersize=5 if len(values) < 40 else 0,
            markeredgecolor="white", markeredgewidth=0.8, label=_NAMES[split], zorder=3,
        )  # fmt: skip
        axes.annotate(
            form.format(values[-1]), (steps[-1], values[-1]), xytext=(7, 0), textcoords="offset points",
            va="center", fontsize=9, color=_COLOURS[split], annotation_clip=False,
        )  # fmt: skip
        drawn = True
    return drawn


def spread_labels(figure: Any, axes: Any) -> None:
    """Move the labels beside the axes, those at the ends of curves, apart where they would lie on each other, none above the axes."""
    figure.draw_without_rendering()  # places the axes
    boxes = sorted(((label.get_window_extent(), label) for label in axes.texts), key=lambda found: found[0].y0)
    bottoms: list[float] = []
    for i, (box, _) in enumerate(boxes):
        below = [bottom + other.height for bottom, (other, _) in zip(bottoms, boxes[:i], strict=True)
                 if other.x0 < box.x1 and box.x0 < other.x1]
        bottoms.append(max([box.y0, *below]))
    top = axes.bbox.y1 + (boxes[0][0].height / 2 if boxes else 0)
    for i in reversed(range(len(boxes))):  # what was moved beyond the top pushes those below it down again
        box = boxes[i][0]
        above = [bottom for bottom, (other, _) in zip(bottoms[i + 1:], boxes[i + 1:], strict=True)
                 if other.x0 < box.x1 and box.x0 < other.x1]
        bottoms[i] = min([bottoms[i], *(bottom - box.height for bottom in (*above, top))])
    for bottom, (box, label) in zip(bottoms, boxes, strict=True):
        label.xyann = (label.xyann[0], (bottom - box.y0) * 72 / figure.dpi)


def _finish(axes: Any, exported_step: int | None) -> None:
    if exported_step is not None and axes.lines:
        axes.axvline(exported_step, color=INK, linewidth=1, linestyle=(0, (1, 2)), zorder=1, label="exported")
    if axes.lines:
        _legend(axes)


def _legend(axes: Any) -> None:
    """Write the legend above the axes: in them it would lie on a curve."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=5, fontsize=9, columnspacing=1.4, borderpad=0)


def _is_mlm(rows: Rows) -> bool:
    return any("perplexity" in row for row in rows)
