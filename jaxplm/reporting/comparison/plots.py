"""Draw a comparison: PNG files with titles for Markdown, and SVG without words that `report.html` colours.

The names of axes and plots are text of the page in the SVG's case, so that one picture serves both languages.
"""

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxplm.errors import visible
from jaxplm.reporting.comparison.comparison import Encoder, Run, Vocabularies
from jaxplm.reporting.comparison.findings import Findings, Outcome, scores_of
from jaxplm.reporting.comparison.wording import change, metric_name, operations
from jaxplm.reporting.fonts import families_for
from jaxplm.reporting.plots import INK, canvas, spread_labels
from jaxplm.scores.names import SHARES, title
from jaxplm.scores.seeds import mean_std

_GREY, _FAINT = "#7d8590", "#b3b9c1"  # of base and of random
_WAYS = ("#c8553d", "#4f6d8f", "#2f7f6f", "#b07d12", "#8e5ea2", "#3f8fbf", "#a8577e", "#6b8e23", "#8c6d52")
_DOMAIN, _GENERAL = "#4f6d8e", "#d9a21b"
# Colours of a plot and the CSS variables that take their places in an SVG. The last ones are those of `canvas`.
_VARIABLES = {
    **{colour: f"--way-{i}" for i, colour in enumerate(_WAYS)},
    _GREY: "--base", _FAINT: "--random", _DOMAIN: "--domain", _GENERAL: "--general", "#ffffff": "--card",
    INK: "--ink", "#999999": "--axis", "#666666": "--soft", "#e6e6e6": "--grid",
}  # fmt: skip
_WIDTH = 4.6  # inches of a wide plot: its text can be read on a phone too
_LONGEST_NAME = 24  # characters
_SMALL = (0.4, 0.12, 0.25, 0.08)  # margins of a small plot without words


@dataclass(frozen=True)
class Plot:
    """A plot of its own file.

    Attributes:
      name: of the file, without its ending.
      width, height: in inches.
      draw: puts it on a figure; its second argument says whether axes are named.
      texts: data that is written in it, for the choice of fonts.
      margins: of the axes in inches: left, right, bottom, top; None: found by matplotlib, which takes longer.
    """

    name: str
    width: float
    height: float
    draw: Callable[[Any, bool], None]
    texts: tuple[str, ...] = ()
    margins: tuple[float, float, float, float] | None = None

    @contextmanager
    def figure(self) -> Iterator[Any]:
        """Yield an empty figure with the plot's size, fonts and margins."""
        with canvas(
            self.width, self.height, families_for(self.texts), layout=None if self.margins else "constrained"
        ) as figure:
            if engine := figure.get_layout_engine():
                engine.set(h_pad=0.12)  # room for half a name beside the top of the axes
            if self.margins:
                left, right, bottom, top = self.margins
                figure.subplots_adjust(
                    left / self.width, bottom / self.height, 1 - right / self.width, 1 - top / self.height
                )
            yield figure


def png(plot: Plot, path: Path) -> None:
    """Write a plot with its titles."""
    with plot.figure() as figure:
        plot.draw(figure, True)
        figure.savefig(path, format="png")


def svg(plot: Plot) -> str:
    """Return a plot as an SVG element for an HTML page: no title, colours as CSS variables, text as text."""
    import matplotlib

    with plot.figure() as figure:
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": plot.name}):
            plot.draw(figure, False)
            file = io.StringIO()
            figure.savefig(
                file,
                format="svg",
                transparent=True,
                metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
            )
    text = file.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r"<style.*?</style>\s*", "", text, flags=re.S)  # for all of the page; its own style has these rules
    text = re.sub(
        r' id="[A-Za-z]+[A-Za-z0-9]*_\d+"', "", text
    )  # nothing refers to these, and two plots would share them
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)  # HTML knows these
    text = text.replace("xlink:href", "href")
    return re.sub(
        r"#[0-9a-f]{6}\b", lambda found: f"var({_VARIABLES[found[0]]})" if found[0] in _VARIABLES else found[0], text
    )


def colours(findings: Findings) -> Mapping[str, str]:
    """Return the colour of each way: grey for `base` and `random`, one of its own for each other while they last."""
    names = dict.fromkeys(outcome.way.name for outcome in findings.outcomes)
    others = [name for name in names if name not in ("base", "random")]
    return {"base": _GREY, "random": _FAINT, **{name: _WAYS[i % len(_WAYS)] for i, name in enumerate(others)}}


def variables(findings: Findings) -> Mapping[str, str]:
    """Return the CSS variable of each way's colour."""
    return {name: _VARIABLES[colour] for name, colour in colours(findings).items()}


def quality_cost(findings: Findings) -> Plot | None:
    """Return quality against cost with the Pareto front; None where fewer than two ways have both."""
    shown = [outcome for outcome in findings.done if findings.cost_of(outcome) > 0]
    if len(shown) < 2:
        return None
    return Plot(
        "quality_cost",
        _WIDTH,
        max(3.0, 0.21 * len(shown) + 0.9),
        lambda figure, words: _quality_cost(figure, findings, shown, words),
        tuple(_short(outcome.way.name) for outcome in shown),
    )


def differences(findings: Findings) -> Plot | None:
    """Return the gains over `base` with their intervals; None where none was measured."""
    shown = [outcome for outcome in findings.done if outcome.gain is not None]
    if not shown:
        return None
    return Plot(
        "differences",
        5.4,
        0.3 * len(shown) + 1.1,
        lambda figure, words: _differences(figure, findings, shown, words),
        tuple(_short(outcome.way.name) for outcome in shown),
    )


def learning_curve(findings: Findings, outcome: Outcome) -> Plot | None:
    """Return the validation score of a way against the step, `base` in grey behind it; None where there is no curve."""
    if not any(run.curve for run in outcome.way.runs):
        return None
    return Plot(
        "curve",
        2.6,
        1.9,
        lambda figure, words: _curve_axes(figure.subplots(), findings, outcome, words),
        margins=_SMALL,
    )


def learning_curves(findings: Findings) -> Plot | None:
    """Return all learning curves in one picture; None where there is none."""
    shown = [outcome for outcome in findings.done if any(run.curve for run in outcome.way.runs)]
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)

    def draw(figure: Any, words: bool) -> None:
        for i, outcome in enumerate(shown):
            axes = figure.add_subplot(rows, columns, i + 1)
            _curve_axes(axes, findings, outcome, words)
            axes.set_title(_label(findings, outcome), fontsize=9, pad=5)
        figure.subplots_adjust(wspace=0.42, hspace=0.62)

    return Plot(
        "learning_curves",
        2.7 * columns,
        2.1 * rows + 0.3,
        draw,
        tuple(_label(findings, outcome) for outcome in shown),
        (0.65, 0.15, 0.5, 0.35),
    )


def few_labels(findings: Findings, method: str) -> Plot | None:
    """Return the score against the number of labelled rows, for one method; None where it was not measured."""
    shown = [outcome for outcome in findings.done if outcome.way.method == method and outcome.way.few]
    if not shown:
        return None
    return Plot(
        f"few_labels_{re.sub('[^a-z_]', '', method)}",
        _WIDTH,
        max(3.0, 0.21 * len(shown) + 0.9),
        lambda figure, words: _few_labels(figure, findings, shown, words),
        tuple(_short(outcome.way.name) for outcome in shown),
    )


def forgetting(encoders: Sequence[Encoder]) -> Plot | None:
    """Return the losses of each encoder before and after its training; None where none was measured."""
    shown = [encoder for encoder in encoders if encoder.domain is not None or encoder.general is not None]
    if not shown:
        return None
    return Plot(
        "forgetting",
        _WIDTH,
        0.55 * len(shown) + 1.1,
        lambda figure, words: _forgetting(figure, shown, words),
        tuple(_short(encoder.name) for encoder in shown),
    )


def encoder_curve(encoder: Encoder) -> Plot | None:
    """Return the losses of an encoder during its training; None without a curve."""
    if len(encoder.curve) < 2:
        return None
    return Plot(
        "encoder", 2.6, 1.9, lambda figure, words: _encoder_axes(figure.subplots(), encoder, words), margins=_SMALL
    )


def vocabulary(vocabularies: Vocabularies) -> Plot:
    """Return the heatmap of shared words."""
    side = 1.1 * len(vocabularies.names) + 1.2
    return Plot(
        "vocabulary_overlap",
        max(side, 4.2),
        max(side - 0.4, 2.4),
        lambda figure, words: _vocabulary(figure, vocabularies, words),
        tuple(map(_short, vocabularies.names)),
    )


def _quality_cost(figure: Any, findings: Findings, shown: Sequence[Outcome], words: bool) -> None:
    metric, colour = findings.comparison.metric, colours(findings)
    axes = figure.subplots()
    axes.set_xscale("log")
    front = [outcome for outcome in findings.front if outcome in shown]
    if len(front) > 1:
        axes.plot(
            [findings.cost_of(one) for one in front],
            [one.mean for one in front],
            color=_GREY,
            linewidth=1.2,
            linestyle=(0, (4, 3)),
            drawstyle="steps-post",
            zorder=1,
        )
    for outcome in shown:
        cost = findings.cost_of(outcome)
        if not math.isnan(outcome.std):
            axes.plot(
                [cost, cost],
                [outcome.mean - outcome.std, outcome.mean + outcome.std],
                color=colour[outcome.way.name],
                linewidth=1.4,
                alpha=0.45,
                zorder=2,
            )
        axes.plot(
            cost,
            outcome.mean,
            marker="o" if outcome.way.method == "finetune" else "s",
            markersize=8 if outcome in front else 6,
            color=colour[outcome.way.name],
            markeredgecolor="#ffffff",
            markeredgewidth=1,
            zorder=3,
        )
    axes.margins(x=0.06, y=0.08)
    axes.minorticks_off()
    _cost_ticks(axes, findings)
    _score_axis(axes, metric)
    if words:
        axes.set_title("Quality against cost")
        axes.set_xlabel("FLOP of preparation and task" if findings.has_flops else "wall time, s")
        axes.set_ylabel(title(metric))
    marks = {"finetune": "● ", "feature_extraction": "■ "} if len(findings.methods) > 1 else {}
    names = [marks.get(one.way.method, "") + _short(one.way.name) for one in shown]
    _margin_labels(
        figure,
        axes,
        [(findings.cost_of(one), one.mean, name, colour[one.way.name]) for one, name in zip(shown, names, strict=True)],
    )


def _differences(figure: Any, findings: Findings, shown: Sequence[Outcome], words: bool) -> None:
    metric, colour = findings.comparison.metric, colours(findings)
    axes = figure.subplots()
    ordered = sorted(shown, key=lambda one: one.mean, reverse=not findings.comparison.higher_is_better)
    for i, outcome in enumerate(ordered):
        assert outcome.gain is not None
        strong = 1.0 if findings.is_significant(outcome) else 0.55
        axes.plot(
            [outcome.gain.low, outcome.gain.high], [i, i], color=colour[outcome.way.name], linewidth=2.2, alpha=strong
        )
        axes.plot(
            outcome.gain.mean,
            i,
            marker="o",
            markersize=6,
            color=colour[outcome.way.name],
            markeredgecolor="#ffffff",
            alpha=strong,
        )
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(ordered)), [_label(findings, one) for one in ordered])
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter(lambda value, _: change(metric, value))
    if words:
        axes.set_title("Difference to base")
        axes.set_xlabel(f"{title(metric)}, {'points, ' if metric in SHARES else ''}95 % interval")


def _curve_axes(axes: Any, findings: Findings, outcome: Outcome, words: bool) -> None:
    metric, colour = findings.comparison.metric, colours(findings)
    base = findings.base(outcome.way.method)
    for one, shade in ((base, _GREY), (outcome, colour[outcome.way.name])):
        if one is None or (one is base and outcome is base):
            continue
        for run in one.way.runs:
            axes.plot(*_points(run), color=shade, linewidth=0.8, alpha=0.28)
        steps, means = _mean_curve(one.way.runs)
        axes.plot(
            steps,
            means,
            color=shade,
            linewidth=2 if one is outcome else 1.3,
            marker="o" if len(steps) == 1 else "",
            zorder=4 if one is outcome else 3,
        )
    if outcome is base:
        for run in outcome.way.runs:
            axes.plot(*_points(run), color=_GREY, linewidth=0.8, alpha=0.28)
        axes.plot(*_mean_curve(outcome.way.runs), color=_GREY, linewidth=2, zorder=4)
    axes.set_ylim(*_curve_limits(findings))
    _step_axis(axes)
    _score_axis(axes, metric, 4)
    if words:
        axes.set_xlabel("step", fontsize=8)
        axes.set_ylabel(f"validation {metric_name(metric)}", fontsize=8)


def _few_labels(figure: Any, findings: Findings, shown: Sequence[Outcome], words: bool) -> None:
    metric, colour = findings.comparison.metric, colours(findings)
    axes = figure.subplots()
    sizes = sorted({rows for outcome in shown for rows, _ in outcome.way.few})
    places = {rows: i for i, rows in enumerate(sizes)}  # evenly spaced: the whole set may be far larger
    labels = []
    for outcome in shown:
        points = [
            (places[rows], found)
            for rows, runs in outcome.way.few
            if (found := scores_of(runs, findings.split, metric))
        ]
        points.append((len(sizes), outcome.scores))
        at, means = [place for place, _ in points], [mean_std(found)[0] for _, found in points]
        spread = [0.0 if len(found) < 2 else mean_std(found)[1] for _, found in points]
        shade = colour[outcome.way.name]
        axes.fill_between(at, np.subtract(means, spread), np.add(means, spread), color=shade, alpha=0.1, linewidth=0)
        axes.plot(
            at,
            means,
            color=shade,
            linewidth=1.8,
            marker="o",
            markersize=5,
            markeredgecolor="#ffffff",
            markeredgewidth=0.8,
            linestyle=(0, (4, 2)) if outcome.way.name in ("base", "random") else "-",
            zorder=3,
        )
        labels.append((at[-1], means[-1], _short(outcome.way.name), shade))
    every = f"{findings.comparison.train_rows:,}" if findings.comparison.train_rows else "…"
    axes.set_xticks(range(len(sizes) + 1), [*(f"{rows:,}" for rows in sizes), every])
    axes.margins(x=0.04, y=0.08)
    _score_axis(axes, metric)
    if words:
        axes.set_title("Few labels")
        axes.set_xlabel("labelled rows of the training set")
        axes.set_ylabel(title(metric))
    _margin_labels(figure, axes, labels)


def _forgetting(figure: Any, shown: Sequence[Encoder], words: bool) -> None:
    axes = figure.subplots()
    count = len(shown)
    for i, encoder in enumerate(reversed(shown)):
        for pair, height, shade in ((encoder.domain, 0.16, _DOMAIN), (encoder.general, -0.16, _GENERAL)):
            if pair is None:
                continue
            before, after = pair
            axes.annotate(
                "",
                (after, i + height),
                (before, i + height),
                arrowprops={"arrowstyle": "-|>", "color": shade, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0},
            )
            axes.plot(before, i + height, marker="o", markersize=5, color=shade, markerfacecolor="#ffffff")
            axes.annotate(
                f"{after:.2f}",
                (after, i + height),
                xytext=(6 if after >= before else -6, 0),
                textcoords="offset points",
                ha="left" if after >= before else "right",
                va="center",
                fontsize=8.5,
                color=shade,
            )
    axes.set_yticks(range(count), [_short(encoder.name) for encoder in reversed(shown)])
    axes.set_ylim(-0.6, count - 0.4)
    losses = [loss for encoder in shown for pair in (encoder.domain, encoder.general) if pair for loss in pair]
    margin = 0.16 * (max(losses) - min(losses)) or 0.1  # the values stand beyond the arrows
    axes.set_xlim(min(losses) - margin, max(losses) + margin)
    axes.grid(visible=False, axis="y")
    if words:
        axes.set_title("Loss before and after")
        axes.set_xlabel("loss (blue: domain, yellow: general)")


def _encoder_axes(axes: Any, encoder: Encoder, words: bool) -> None:
    for column, shade in ((1, _DOMAIN), (2, _GENERAL)):
        points = [(point[0], point[column]) for point in encoder.curve if math.isfinite(point[column])]
        if points:
            axes.plot(*zip(*points, strict=True), color=shade, linewidth=1.8)
    _step_axis(axes)
    axes.locator_params(axis="y", nbins=4)
    if words:
        axes.set_xlabel("step")
        axes.set_ylabel("loss")


def _vocabulary(figure: Any, vocabularies: Vocabularies, words: bool) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    axes = figure.subplots()
    shares = np.asarray(vocabularies.overlap, float)
    axes.imshow(shares, cmap=LinearSegmentedColormap.from_list("overlap", ["#ffffff", _DOMAIN]), vmin=0, vmax=1)
    for (i, j), share in np.ndenumerate(shares):
        axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", color="#ffffff" if share > 0.55 else INK)
    names = [_short(name, 10) for name in vocabularies.names]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if words:
        axes.set_title("Shared words, %")


def _margin_labels(figure: Any, axes: Any, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Write the names of points to the right of the axes, apart from each other, a thin line from each point."""
    texts = [
        axes.annotate(
            text,
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(16, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=shade,
            annotation_clip=False,
        )
        for _, y, text, shade in labels
    ]
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what is moved below would move the axes again
    spread_labels(figure, axes)
    figure.draw_without_rendering()
    right = axes.bbox.x1
    for (x, y, _, shade), text in zip(labels, texts, strict=True):
        box = text.get_window_extent()
        start = axes.transData.transform((x, y))
        ends = [start, (right, start[1]), (right + 12 * figure.dpi / 72, (box.y0 + box.y1) / 2)]
        if start[0] > right - 2:
            ends = ends[1:]
        axes.plot(
            *axes.transAxes.inverted().transform(ends).T,
            transform=axes.transAxes,
            color=shade,
            linewidth=0.7,
            alpha=0.5,
            clip_on=False,
            zorder=1,
            scalex=False,
            scaley=False,
        )


def _short(name: str, longest: int = _LONGEST_NAME) -> str:
    """Return a name as it fits beside a plot."""
    name = " ".join(visible(name).split())
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _label(findings: Findings, outcome: Outcome) -> str:
    name = _short(outcome.way.name)
    if len(findings.methods) < 2 or outcome.way.method == "finetune":
        return name
    return (
        f"{name} (features)" if outcome.way.method == "feature_extraction" else f"{name} ({_short(outcome.way.method)})"
    )


def _score_axis(axes: Any, metric: str, ticks: int = 6) -> None:
    axes.locator_params(axis="y", nbins=ticks)
    if metric in SHARES:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}")


def _step_axis(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=3, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value < 10_000 else f"{value / 1000:,.4g} K")


def _cost_ticks(axes: Any, findings: Findings) -> None:
    from matplotlib.ticker import LogLocator

    low, high = axes.get_xlim()
    decades = math.log10(high / low)
    axes.xaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if decades < 1.6 else (1, 3) if decades < 3 else (1,), numticks=12)
    )
    axes.xaxis.set_major_formatter(
        (lambda value, _: operations(value).replace(".00", "").replace(".0", "").removesuffix("FLOP"))
        if findings.has_flops
        else (lambda value, _: f"{value:,.4g}")
    )


def _points(run: Run) -> tuple[list[int], list[float]]:
    return [step for step, _ in run.curve], [value for _, value in run.curve]


def _mean_curve(runs: Sequence[Run]) -> tuple[list[int], list[float]]:
    """Return the mean over the seeds at each step that all of them have: seeds that stopped early end the curve."""
    curves = [dict(run.curve) for run in runs if run.curve]
    steps = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    return steps, [float(np.mean([curve[step] for curve in curves])) for step in steps]


def _curve_limits(findings: Findings) -> tuple[float, float]:
    """Return the same range for all learning curves, so that they can be compared; the lowest tenth is cut."""
    values = [
        value for outcome in findings.done for run in outcome.way.runs for _, value in run.curve if math.isfinite(value)
    ]
    low, high = (
        (float(np.quantile(values, 0.02)), max(values))
        if findings.comparison.higher_is_better
        else (min(values), float(np.quantile(values, 0.98)))
    )
    margin = 0.06 * (high - low) or 0.05
    return low - margin, high + margin
