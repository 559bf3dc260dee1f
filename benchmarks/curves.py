"""Compare loss curves of the same training by different settings: figures, a table, a plot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

WINDOW = 20  # steps over which a curve is averaged


def compare(raw: Mapping[str, np.ndarray], plot: Path) -> dict[str, dict[str, float]]:
    """Print how far each curve is from the first one, plot all of them, and return the figures of each but the first.

    Args:
      raw: the training loss of every step, by name; at least WINDOW of each.
      plot: file of the plot.

    Returns:
      {name: {"apart_max", "apart_mean": of the curves averaged over WINDOW steps; "mean_apart": of the means over all steps}}, as shares
      of the first one's.
    """
    curves = {name: np.convolve(losses, np.ones(WINDOW) / WINDOW, "valid") for name, losses in raw.items()}
    first, *others = raw
    apart = {name: curves[name] / curves[first] - 1 for name in others}
    figures = {name: {"apart_max": float(np.abs(curve).max()), "apart_mean": float(np.abs(curve).mean()),
                      "mean_apart": float(raw[name].mean() / raw[first].mean() - 1)} for name, curve in apart.items()}
    for name, found in figures.items():
        print(f"{name} beside {first}, {len(raw[first])} steps: training loss averaged over {WINDOW} steps differs by at most "
              f"{found['apart_max']:.3%}, by {found['apart_mean']:.3%} on average; its mean over all steps by {found['mean_apart']:+.3%}")
    _plot(curves, apart, first, plot)
    return figures


def beyond(figures: Mapping[str, Mapping[str, Any]], limit: float) -> list[str]:
    """Return the names of the curves that differ from the first one by more than `limit` percent, or are not finite."""
    return [name for name, found in figures.items() if not found["apart_max"] <= limit / 100]


def _plot(curves: Mapping[str, np.ndarray], apart: Mapping[str, np.ndarray], first: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(7, 5), sharex=True, height_ratios=(3, 1))
    steps = np.arange(WINDOW, WINDOW + len(curves[first]))
    colours = {name: f"C{number}" for number, name in enumerate(curves)}
    for (name, curve), style in zip(curves.items(), ("-", "--", ":", "-."), strict=False):
        above.plot(steps, curve, style, color=colours[name], label=name)
    above.set_ylabel(f"training loss, mean of {WINDOW} steps")
    above.legend()
    for name, curve in apart.items():
        below.plot(steps, 100 * curve, color=colours[name])
    below.axhline(0, color=colours[first], linewidth=1)
    below.set_ylabel("difference, %")
    below.set_xlabel("step")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
