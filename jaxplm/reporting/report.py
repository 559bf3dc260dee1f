"""`report.md`, what a person looks at after a run, and the model card of what was exported."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxplm.reporting.confusion_plot import write_confusion
from jaxplm.reporting.plots import write_plots
from jaxplm.reporting.tables import Score, class_table, markdown, one_line, score_table, scores, seed_table, summary
from jaxplm.scores.classification import ClassScore

__all__ = ["Facts", "Score", "model_card", "score_table", "scores", "write_report"]

_HUB_TASKS = {
    "MaskedLM": "fill-mask",
    "SequenceClassification": "text-classification",
    "TokenClassification": "token-classification",
    "QuestionAnswering": "question-answering",
}


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
    sections: Sequence[str] = ()  # further sections of report.md, in Markdown, each with its heading
    # The rest is for labelled tasks.
    task: str = ""  # as `task.kind`
    metric: str = ""  # the score that picked the exported step
    stock: bool = True  # transformers has a class for it
    seeds: Mapping[int, Mapping[str, float]] = dataclasses.field(default_factory=dict)  # {seed: {"test macro_f1": 0.84, ...}}
    detail_split: str = "test"  # the split of the next three
    classes: Sequence[ClassScore] = ()  # in the order of the labels
    entities: Sequence[ClassScore] = ()  # by type
    confusion: np.ndarray | None = None  # [C + 1, C] counts, given with `classes`


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
    plots = write_plots(workdir / "plots", rows, exported_step=facts.exported_step, metric=facts.metric)
    found = scores(rows, facts.exported_step)
    parts = [f"# {one_line(facts.title)}"]
    if sentence := summary(found, facts.metric, facts.seeds):
        parts.append(sentence)
    if found:
        parts += ["## Result", _scores_markdown(found)]
        parts.append(f"Before the first step and as exported (step {facts.exported_step:,}).")
    if plots:
        parts += [_picture(caption, path, workdir) for caption, path in plots]
    parts += _details(facts, workdir)
    parts += facts.sections
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
    sentence = summary(found, facts.metric, facts.seeds)
    parts = [
        _header(facts),
        f"# {one_line(facts.title)}",
        f"An encoder made by jaxplm from {origin} with the recipe `{facts.recipe}`." + (f" {sentence}" if sentence else ""),
        "## Use",
        _usage(facts),
    ]
    if found:
        parts += ["## Scores", _scores_markdown(found)]
        note = "Measured before the first step and with these weights"
        parts.append(f"{note}; masked-token scores on masks that are frozen by seed." if masked else f"{note}.")
    parts += _details(facts, None)
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
    lines = ["---", f"library_name: {'transformers' if facts.stock else 'jaxplm'}"]
    if facts.architecture in _HUB_TASKS:
        lines.append(f"pipeline_tag: {_HUB_TASKS[facts.architecture]}")
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


def _usage(facts: Facts) -> str:
    path = '"path/to/this/directory"'
    if not facts.stock:
        return f"```python\nimport jaxplm\n\nmodel, tokenizer = jaxplm.load({path})\n```\n\ntransformers has no class for all of it."
    pipeline = "from transformers import pipeline\n\n"
    auto = f"model = AutoModel.from_pretrained({path})\ntokenizer = AutoTokenizer.from_pretrained({path})"
    if facts.architecture == "MaskedLM":
        code = f'{pipeline}fill = pipeline("fill-mask", {path})\nfill(f"... {{fill.tokenizer.mask_token}} ...")'
    elif facts.architecture == "SequenceClassification":
        every = ", top_k=None" if facts.task == "multilabel" else ""
        code = (
            f'{pipeline}classify = pipeline("text-classification", {path}{every})\nclassify("a text")\n'
            'classify({"text": "a text", "text_pair": "its pair"})  # a model of pairs'
        )
    elif facts.architecture == "TokenClassification":
        # A word's label is its first piece's, in training too.
        code = f'{pipeline}tag = pipeline("token-classification", {path}, aggregation_strategy="first")\ntag("a text")'
    elif facts.architecture == "QuestionAnswering":
        code = (
            "import torch\nfrom transformers import AutoModelForQuestionAnswering, AutoTokenizer\n\n"
            + auto.replace("AutoModel.", "AutoModelForQuestionAnswering.")
            + '\ninputs = tokenizer("a question", "the text with its answer", return_tensors="pt")\n'
            "with torch.no_grad():\n    output = model(**inputs)\n"
            "first, last = output.start_logits.argmax(), output.end_logits.argmax()\n"
            'tokenizer.decode(inputs["input_ids"][0, first : last + 1])'
        )
    else:
        code = f"from transformers import AutoModel, AutoTokenizer\n\n{auto}"
    return f"```python\n{code}\n```"


def _details(facts: Facts, workdir: Path | None) -> list[str]:
    """Seeds, classes and entities; with `workdir` the confusion matrix, which is drawn there, as well."""
    parts = []
    if facts.seeds:
        table = seed_table(facts.seeds)
        parts += ["## Seeds", markdown(table, "l" + "r" * (len(table[0]) - 1))]
    if facts.classes:
        parts.append(f"## Classes ({facts.detail_split})")
        numbered = False
        if workdir is not None and facts.confusion is not None:
            path = workdir / "plots" / "confusion.png"
            names = [row.name for row in facts.classes[: facts.confusion.shape[1]]]
            numbered = write_confusion(path, facts.confusion, names)
            parts.append(_picture("Confusion matrix", path, workdir))
        parts.append(markdown(class_table(facts.classes, "class", numbered=numbered), ("r" if numbered else "") + "lrrrr"))
    if facts.entities:
        parts += [f"## Entities ({facts.detail_split})", markdown(class_table(facts.entities, "entity"), "lrrrr")]
    return parts


def _picture(caption: str, path: Path, workdir: Path) -> str:
    return f"![{caption}]({path.relative_to(workdir).as_posix()})"


def _sections(facts: Facts) -> list[str]:
    parts = []
    for heading, table in (
        ("Model", facts.model), ("Data", facts.data), ("Settings", facts.settings), ("Cost", facts.cost),
    ):  # fmt: skip
        if table:
            rows = [("", ""), *((name, value) for name, value in table.items())]
            parts += [f"## {heading}", markdown(rows, "ll")]
    return parts


def _scores_markdown(found: Sequence[Score]) -> str:
    return markdown(score_table(found), "lrrr")
