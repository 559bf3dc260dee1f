"""A plot of how many tokens words take, and of the splits that cost most, as a PNG file."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxplm.reporting.fonts import families_for
from jaxplm.reporting.plots import INK, canvas
from jaxplm.vocab.measure import Measurement
from jaxplm.vocab.report import pieces
from jaxplm.vocab.splits import WordSplit

_DOMAIN, _GENERAL = "#4f6d8f", "#d9a21b"
_MAX_TOKENS = 6  # words of so many tokens or more share the last bar
_MAX_LABEL = 44  # characters


def write_vocabulary(path: Path, measured: Measurement, splits: Sequence[WordSplit], tokenizer: Any, general: Measurement | None = None,
                     name: str = "domain") -> bool:
    """Draw two panels: the share of words by their number of tokens, and the tokens that each split costs.

    Args:
      path: of the file; its directory is created.
      measured: the domain.
      splits: of `jaxplm.vocab.splits.damaging_splits`, the costliest first.
      tokenizer: names the tokens.
      general: general text, drawn beside the domain.
      name: label of the domain's bars.

    Returns:
      Whether the splits are drawn as numbers, from 1, because no installed font has all of their characters. The section of
      report.md has the same numbers.
    """
    labels = [_label(split, tokenizer) for split in splits]
    fonts = families_for(labels)
    numbered = fonts is None
    path.parent.mkdir(parents=True, exist_ok=True)
    with canvas(10.4, max(3.6, 1.2 + 0.24 * len(splits)), fonts, layout="constrained") as figure:
        left, right = figure.subplots(1, 2, width_ratios=(4, 5)) if splits else (figure.subplots(), None)
        _lengths(left, [(name, _DOMAIN, measured), *([("general text", _GENERAL, general)] if general else [])])
        if right is not None:
            _costs(right, splits, [str(n) for n in range(1, len(splits) + 1)] if numbered else labels)
        figure.savefig(path)
    return numbered


def _label(split: WordSplit, tokenizer: Any) -> str:
    label = f"{split.word}  =  {pieces(split, tokenizer)}"
    return label if len(label) <= _MAX_LABEL else label[: _MAX_LABEL - 1].rstrip() + "…"


def _lengths(axes: Any, corpora: Sequence[tuple[str, str, Measurement]]) -> None:
    width = 0.8 / len(corpora)
    for place, (name, colour, measured) in enumerate(corpora):
        shares = _shares(measured.lengths)
        at = [i + (place - (len(corpora) - 1) / 2) * width for i in range(_MAX_TOKENS)]
        axes.bar(at, shares, width * 0.92, color=colour, label=f"{name}: {measured.fertility:.2f} tokens per word")
        for x, share in zip(at, shares, strict=True):
            if share >= 0.0005:
                text = f"{100 * share:.0f}" if share >= 0.0995 else f"{100 * share:.1f}"
                # Beside another bar the number is as wide as its bar or wider: it begins or ends where the bars meet.
                side, move = ("center", 0.0) if len(corpora) == 1 else (("right", 0.48), ("left", -0.48))[place]
                axes.annotate(text, (x + move * width, share), xytext=(0, 2), textcoords="offset points", ha=side,
                              fontsize=8 if len(corpora) == 1 else 7)
    axes.set_xticks(range(_MAX_TOKENS), [*map(str, range(1, _MAX_TOKENS)), f"{_MAX_TOKENS}+"])
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.grid(False, axis="x")
    axes.set_title("Tokens per word")
    axes.set_xlabel("tokens")
    axes.set_ylabel("share of the words")
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top * (1.08 + 0.08 * len(corpora)))  # room for the legend above the bars
    axes.legend(loc="upper right", fontsize=9)


def _shares(lengths: Counter[int]) -> list[float]:
    """Return the shares of words with 1, 2, ... tokens; the last one is of `_MAX_TOKENS` and more."""
    counts = [sum(count for length, count in lengths.items() if min(length, _MAX_TOKENS) == pieces) for pieces in range(1, _MAX_TOKENS + 1)]
    return [count / max(1, sum(counts)) for count in counts]


def _costs(axes: Any, splits: Sequence[WordSplit], labels: Sequence[str]) -> None:
    rows = range(len(splits))
    axes.barh(rows, [split.cost for split in splits], 0.72, color=_DOMAIN)
    axes.set_yticks(rows, labels)
    axes.invert_yaxis()
    for label in axes.get_yticklabels():
        label.set(color=INK, fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_title("Most damaging splits")
    axes.set_xlabel("tokens beyond one per word")
