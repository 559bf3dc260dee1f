"""`report.md`, what a person looks at after a run, and the model card of what was exported."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxplm.plots import write_plots

_SPLITS = {"validation": "validation", "test": "test", "general": "general text"}
_RELATIVE = ("loss", "perplexity")
_SHARES = (
    "accuracy",
    "f1",
    "micro_f1",
    "macro_f1",
    "exact_match",
    "precision",
    "recall",
    "spearman",
    "pearson",
)
# Numbers of a row that are no scores.
_NOT_SCORES = {"step", "split", "seconds", "learning_rate", "tokens_per_second", "tokens", "rows", "epoch"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What is to be said about a run, in the words to say it with.

    The mappings are printed as tables, in their order: {"training text": "builtin:pydocs, 12.3 M tokens", ...}.
    """

    title: str  # "Domain-adaptive pre-training"
    recipe: str  # "dapt"
    command: str  # the command that made it
    base_model: str  # as given: a path, a hub id, builtin:tiny, or "" for random weights
    model: Mapping[str, str]
    data: Mapping[str, str]
    settings: Mapping[str, str]
    cost: Mapping[str, str]  # hardware, time, tokens, ...
    exported_step: int  # the step whose weights were exported
    architecture: str = "MaskedLM"  # the head that was exported
    licence: str = ""  # an identifier of the hub's list; "" is printed as unknown
    languages: Sequence[str] = ()  # ISO 639-1 codes; () is left out


@dataclasses.dataclass(frozen=True)
class Score:
    """One number of one split, before the first step and as exported; `before` is None where it was not measured."""

    split: str
    name: str
    before: float | None
    after: float


def scores(rows: Sequence[Mapping[str, Any]], exported_step: int) -> list[Score]:
    """What was measured, before and after.

    Args:
      rows: as in metrics.jsonl.
      exported_step: a split that was not measured at this step is given as last measured before it, else as first
        measured after it.

    Returns:
      One score for each split (validation, test, general) and number, in that order.
    """
    found = []
    for split in _SPLITS:
        measured = sorted((row for row in rows if row["split"] == split), key=lambda row: row["step"])
        if not measured:
            continue
        upto = [row for row in measured if row["step"] <= exported_step]
        after = upto[-1] if upto else measured[0]
        before = measured[0] if measured[0]["step"] == 0 and after["step"] > 0 else {}
        for name, value in after.items():
            if name not in _NOT_SCORES and isinstance(value, int | float):
                found.append(Score(split, name, before.get(name), value))
    return found


def score_table(found: Sequence[Score]) -> list[tuple[str, str, str, str]]:
    """Rows of text for a table, the first one a heading: what, before, after, change."""
    table = [("", "before", "after", "change")]
    for score in found:
        label = f"{_SPLITS[score.split]} {score.name.replace('_', ' ')}"
        before = "" if score.before is None else _value(score.name, score.before)
        table.append((label, before, _value(score.name, score.after), _change(score)))
    return table


def write_report(workdir: str | os.PathLike[str], facts: Facts, rows: Sequence[dict[str, Any]]) -> Path:
    """Writes `report.md` and `plots/*.png`.

    Args:
      workdir: the run's directory.
      facts: what to say.
      rows: as in metrics.jsonl.

    Returns:
      The path of report.md.
    """
    workdir = Path(workdir)
    plots = write_plots(workdir / "plots", rows, exported_step=facts.exported_step)
    found = scores(rows, facts.exported_step)
    parts = [f"# {_escape(facts.title)}"]
    if summary := _summary(found):
        parts.append(summary)
    if found:
        parts += ["## Result", _scores_markdown(found)]
        parts.append(f"Before the first step and as exported (step {facts.exported_step:,}).")
    if plots:
        parts += [f"![{caption}]({path.relative_to(workdir).as_posix()})" for caption, path in plots]
    parts += _sections(facts)
    parts += ["## Again", f"```\n{facts.command}\n```"]
    path = workdir / "report.md"
    path.write_text("\n\n".join(parts) + "\n", "utf-8")
    return path


def model_card(facts: Facts, rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of `export/README.md`: a YAML header in the hub's terms, and what a reader has to know.

    Args:
      facts: what to say.
      rows: as in metrics.jsonl.
    """
    found = scores(rows, facts.exported_step)
    masked = facts.architecture == "MaskedLM"
    origin = f"`{facts.base_model}`" if facts.base_model else "random weights"
    parts = [
        _header(facts),
        f"# {_escape(facts.title)}",
        f"An encoder made by jaxplm from {origin} with the recipe `{facts.recipe}`."
        + (f" {summary}" if (summary := _summary(found)) else ""),
        "## Use",
        _usage(masked),
    ]
    if found:
        parts += ["## Scores", _scores_markdown(found)]
        note = "Measured before the first step and with these weights"
        parts.append(f"{note}; masked-token scores on masks that are frozen by seed." if masked else f"{note}.")
    parts += _sections(facts)
    parts += [
        "## Limits",
        "The model repeats the biases and errors of the texts it was trained on, and knows nothing else. Look at its "
        "answers on your own texts before you rely on them. "
        + (
            f"Licence: {facts.licence}."
            if facts.licence
            else "No licence is recorded: the terms of the base model and of the training texts apply."
        ),
        "## Made with",
        f"```\n{facts.command}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _header(facts: Facts) -> str:
    lines = ["---", "library_name: transformers"]
    if facts.architecture == "MaskedLM":
        lines.append("pipeline_tag: fill-mask")
    if _is_hub_id(facts.base_model):  # the hub refuses anything else here
        lines.append(f"base_model: {facts.base_model}")
    lines.append(f"license: {json.dumps(facts.licence) if facts.licence else 'unknown'}")
    if facts.languages:
        lines += ["language:", *(f"  - {json.dumps(code)}" for code in facts.languages)]
    lines += ["tags:", "  - jaxplm", f"  - {facts.recipe.replace('_', '-')}", "---"]
    return "\n".join(lines)


def _is_hub_id(path: str) -> bool:
    name = r"[A-Za-z0-9][\w.-]*"
    return bool(re.fullmatch(rf"{name}(/{name})?", path)) and not Path(path).exists()


def _usage(masked: bool) -> str:
    if masked:
        return (
            "```python\nfrom transformers import pipeline\n\n"
            'fill = pipeline("fill-mask", "path/to/this/directory")\n'
            'fill(f"... {fill.tokenizer.mask_token} ...")\n```'
        )
    return (
        "```python\nfrom transformers import AutoModel, AutoTokenizer\n\n"
        'model = AutoModel.from_pretrained("path/to/this/directory")\n'
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/directory")\n```'
    )


def _sections(facts: Facts) -> list[str]:
    parts = []
    for heading, table in (
        ("Model", facts.model), ("Data", facts.data), ("Settings", facts.settings), ("Cost", facts.cost),
    ):  # fmt: skip
        if table:
            rows = [("", ""), *((name, value) for name, value in table.items())]
            parts += [f"## {heading}", _markdown(rows, "ll")]
    return parts


def _summary(found: Sequence[Score]) -> str:
    """One sentence with the first measured gain and, if it was followed, what was forgotten."""
    sentence = ""
    for split, name in (("validation", "perplexity"), ("validation", "accuracy"), ("general", "perplexity")):
        for score in found:
            if (score.split, score.name) == (split, name) and score.before is not None:
                text = f"{_SPLITS[split]} {name} {_value(name, score.before)} → **{_value(name, score.after)}** ({_change(score)})"
                sentence += (", " if sentence else "") + text
    return sentence[:1].upper() + sentence[1:] + "." if sentence else ""


def _scores_markdown(found: Sequence[Score]) -> str:
    return _markdown(score_table(found), "lrrr")


def _markdown(rows: Sequence[Sequence[str]], align: str) -> str:
    lines = ["| " + " | ".join(map(_escape, row)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join({"l": " --- ", "r": " ---: "}[side] for side in align) + "|")
    return "\n".join(lines)


def _escape(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _value(name: str, value: float) -> str:
    if name == "loss":
        return f"{value:.4f}"
    if name == "perplexity":
        return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"
    return f"{100 * value:.2f} %" if name in _SHARES else f"{value:,.4g}"


def _change(score: Score) -> str:
    """Relative for loss and perplexity, in percentage points for shares, else the difference."""
    if score.before is None:
        return ""
    if score.name in _RELATIVE:
        return f"{100 * (score.after / score.before - 1):+.1f} %" if score.before else ""
    difference = score.after - score.before
    return f"{100 * difference:+.2f} points" if score.name in _SHARES else f"{difference:+,.4g}"
