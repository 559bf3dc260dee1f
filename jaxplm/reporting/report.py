"""`report.md`: what a person looks at after a run."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxplm.reporting.facts import Facts, Section
from jaxplm.reporting.plots import write_plots
from jaxplm.reporting.tables import Score, code_block, markdown, one_line, score_table, scores, summary

__all__ = ["Facts", "Score", "score_table", "scores", "write_report"]


def write_report(workdir: str | os.PathLike[str], facts: Facts, rows: Sequence[dict[str, Any]]) -> Path:
    """Write `report.md` and the plots of the run's curves.

    Args:
      workdir: the run's directory. Figures of the sections lie in it already.
      facts: what to say.
      rows: as in metrics.jsonl.

    Returns:
      The path of report.md.
    """
    workdir = Path(workdir)
    plots = write_plots(workdir / "plots", rows, exported_step=facts.exported_step, metric=facts.metric)
    found = scores(rows, facts.exported_step)
    parts = [f"# {one_line(facts.title)}"]
    if sentence := headline(facts, found):
        parts.append(sentence)
    if found:
        parts += ["## Result", scores_markdown(found), f"Before the first step and as exported (step {facts.exported_step:,})."]
    parts += [picture(caption, path.relative_to(workdir).as_posix()) for caption, path in plots]
    for section in facts.sections:
        parts += section_markdown(section, with_figures=True)
    parts += ["## Command", code_block(facts.command)]
    path = workdir / "report.md"
    path.write_text("\n\n".join(parts) + "\n", "utf-8")
    return path


def headline(facts: Facts, found: Sequence[Score]) -> str:
    """Return the sentence with the most important result; "" where nothing was measured."""
    return facts.headline or summary(found, facts.metric)


def section_markdown(section: Section, *, with_figures: bool) -> list[str]:
    """Return the paragraphs of a section with its heading; none where it has nothing to say."""
    if section.is_empty:
        return []
    parts = [f"## {section.title}"]
    for figure in section.figures if with_figures else ():
        parts += [picture(figure.caption, figure.path), *([figure.legend] if figure.legend else [])]
    if section.values:
        parts.append(_pairs(section.values))
    if section.markdown:
        parts.append(section.markdown)
    return parts


def scores_markdown(found: Sequence[Score]) -> str:
    """Return the table of scores before and after."""
    return markdown(score_table(found), "lrrr")


def picture(caption: str, path: str) -> str:
    """Return a Markdown image; `path` is relative to the workdir."""
    return f"![{caption}]({path})"


def _pairs(values: Mapping[str, str]) -> str:
    return markdown([("", ""), *values.items()], "ll")
