"""`report.md` of a selection: sizes, what was left out, similarities, examples side by side, words shared with the task."""

from pathlib import Path

import numpy as np

from jaxplm.recipes.select.chosen import Chosen
from jaxplm.recipes.select.plot import write_histogram
from jaxplm.reporting.facts import Figure, Section
from jaxplm.reporting.report import section_markdown
from jaxplm.reporting.tables import code, code_block, markdown
from jaxplm.vocab.overlap import shared_words

_LONGEST = 240  # characters of an example
_HISTOGRAM = "plots/similarity.png"
_METHODS = {
    "knn": "by the cosine of their embeddings to a task text",
    "dsir": "by importance weights of hashed n-grams",
    "random": "by chance",
}


def write_report(workdir: Path, chosen: Chosen, command: str) -> Path:
    """Write `report.md` and the histogram, and return the path of the report."""
    drawn = write_histogram(workdir / _HISTOGRAM, chosen.selection)
    sections = [_sizes(chosen), _values(chosen, drawn), _examples(chosen), _words(chosen)]
    parts = ["# Selection of texts", _headline(chosen)]
    for section in sections:
        parts += section_markdown(section, with_figures=True)
    parts += ["## Command", code_block(command)]
    path = workdir / "report.md"
    path.write_text("\n\n".join(parts) + "\n", "utf-8")
    return path


def _headline(chosen: Chosen) -> str:
    facts = chosen.facts
    return (f"**{facts['texts']:,} texts** of the {facts['available']:,} that may be selected from {code(facts['corpus'])} were chosen"
            f" {_METHODS[facts['method']]}, for the {facts['task_texts']:,} texts of {code(facts['task'])}.")


def _sizes(chosen: Chosen) -> Section:
    facts = chosen.facts
    by_set = "; ".join(f"data.{name}: {count:,}" for name, count in facts["leaks_by_set"].items())
    values = {
        "corpus": f"{facts['corpus']}: {facts['corpus_texts']:,} texts",
        f"left out: {facts['leak_ngram']} words in a row shared with an evaluation set":
            f"{facts['leaks']:,}" + (f" ({by_set})" if by_set else "; no evaluation set was given"),
        "left out: stands in the corpus before": f"{facts['duplicates']:,}",
        "available": f"{facts['available']:,}",
        "task texts": f"{facts['task']}: {facts['task_texts']:,}",
    }
    if facts["method"] == "knn":
        pairs = facts["task_texts"] * facts["neighbours"]
        values |= {
            "neighbours of each task text": f"{facts['neighbours']:,}",
            "model": f"{facts['model']}, pooling {facts['pooling']}",
            "selected": f"{facts['texts']:,} different texts among {pairs:,} neighbours",
        }
    else:
        values |= {"seed": str(facts["seed"]), "selected": f"{facts['texts']:,}"}
    return Section("Sizes", values)


def _values(chosen: Chosen, drawn: bool) -> Section:
    selection = chosen.selection
    if not drawn:
        return Section("Similarity")
    if selection.similarities is None or selection.chance is None:
        assert selection.weights is not None
        title, groups = "Importance weight", {"corpus": selection.weights, "selected": selection.values["weight"]}
    else:
        title = "Similarity"
        groups = {
            "task texts, to the nearest corpus text": selection.similarities[:, 0],
            f"task texts, to neighbour {selection.similarities.shape[1]:,}": selection.similarities[:, -1],
            "selected texts, to the nearest task text": selection.values["similarity"],
            "pairs by chance": selection.chance,
        }
    table = [("", "lowest", "median", "highest")]
    table += [(name, *(f"{value:.3f}" for value in np.quantile(values, [0, 0.5, 1]))) for name, values in groups.items()]
    return Section(title, markdown=markdown(table, "lrrr"), figures=[Figure(title, _HISTOGRAM)])


def _examples(chosen: Chosen) -> Section:
    paired = chosen.selection.neighbours is not None
    name = "similarity" if paired else "log weight" if chosen.selection.weights is not None else ""
    table = [tuple(filter(None, (name, "task text" if paired else "", "nearest corpus text" if paired else "selected text")))]
    for example in chosen.examples:
        cells = [f"{example.value:.3f}"] if example.value is not None else []
        if example.task is not None:
            cells.append(_shortened(chosen.task.texts[example.task]))
        table.append((*cells, _shortened(chosen.texts[example.corpus])))
    return Section("Examples", markdown=markdown(table, ("r" if name else "") + "l" * (len(table[0]) - bool(name))))


def _shortened(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST else flat[: _LONGEST - 1].rstrip() + "…"


def _words(chosen: Chosen) -> Section:
    words = chosen.words
    rows = [("selected texts", words["selected"])]
    if words["control"]:
        rows.append(("as many texts of the corpus, by chance", words["control"]))
    table = [("", "words shared with the task", "words", "different words")]
    table += [(name, f"{100 * shared_words(words['task'], counts):.1f} %", f"{sum(counts.values()):,}", f"{len(counts):,}")
              for name, counts in rows]
    text = ("Share of the most frequent words, 10,000 or as many as the smaller side has, that the task's training texts have too; words"
            " among the 100 most frequent of both sides are not counted (Gururangan et al. 2020, Figure 2).")
    return Section("Vocabulary", markdown=f"{markdown(table, 'lrrr')}\n\n{text}")
