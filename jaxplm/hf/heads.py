"""`HeadConfig` and labels ↔ the fields of config.json, or jaxplm.json for a head that transformers has no class for."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxplm.errors import UserError
from jaxplm.nn import HeadConfig
from jaxplm.version import VERSION

OWN = "jaxplm.json"

# kind → (what comes after "For" in the name of transformers' class, problem_type)
_CLASSES = {
    "classify": ("SequenceClassification", "single_label_classification"),
    "multilabel": ("SequenceClassification", "multi_label_classification"),
    "regress": ("SequenceClassification", "regression"),
    "tag": ("TokenClassification", None),
    "qa": ("QuestionAnswering", None),
}
_KINDS = {problem: kind for kind, (_, problem) in _CLASSES.items() if problem}


def architecture_of(head: HeadConfig) -> str:
    """What comes after "For" in the name of transformers' class."""
    return _CLASSES[head.kind][0]


def task_architecture(hf_config: Mapping[str, Any]) -> str | None:
    """The same of a config.json; None if that is not a model with the head of a task."""
    classes = hf_config.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], str) else ""
    return next((end for end, _ in _CLASSES.values() if name.endswith(f"For{end}")), None)


def check_labels(head: HeadConfig, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels as a tuple; a ValueError if they are not C different ones (none for qa; regress may have none)."""
    allowed = {"qa": (0,), "regress": (0, 1)}.get(head.kind, (head.classes,))
    if len(labels) not in allowed or len(set(labels)) != len(labels):
        raise ValueError(f"{head.kind} with {head.classes} classes and the labels {list(labels)}")
    return tuple(labels)


def head_to_hf(head: HeadConfig, labels: Sequence[str]) -> dict[str, Any]:
    """The fields of config.json that describe a stock head.

    `num_labels` is not among them: transformers counts `id2label`, and takes two where there is none.
    """
    names = check_labels(head, labels) or (("LABEL_0",) if head.kind == "regress" else ())
    fields: dict[str, Any] = {"classifier_dropout": head.dropout}
    if names:
        fields |= {"id2label": {str(i): name for i, name in enumerate(names)}, "label2id": {name: i for i, name in enumerate(names)}}
    problem = _CLASSES[head.kind][1]
    return fields | ({"problem_type": problem} if problem else {})


def head_from_hf(hf_config: Mapping[str, Any], source: str) -> tuple[HeadConfig, tuple[str, ...]]:
    """The stock head that a config.json describes, and its labels; see `head_to_hf`.

    Without `problem_type` one label means regression and more mean single-label classification, as in transformers.

    Raises:
      UserError: no head of a task, or fields that contradict each other.
    """
    architecture = task_architecture(hf_config)
    if architecture is None:
        raise UserError(f"{source} has no head of a task: its config.json says architectures {hf_config.get('architectures')!r};"
                        " fine-tune it first")
    labels = _labels(hf_config, source)
    if architecture == "SequenceClassification":
        problem = hf_config.get("problem_type") or ("regression" if len(labels) == 1 else "single_label_classification")
        if problem not in _KINDS:
            raise UserError(f"{source}: config.json: problem_type {problem!r} is none of {', '.join(_KINDS)}")
        kind = _KINDS[problem]
    else:
        kind = next(kind for kind, (end, _) in _CLASSES.items() if end == architecture)
    rate = hf_config.get("classifier_dropout")
    try:
        head = HeadConfig(kind, len(labels), dropout=None if rate is None else float(rate))
    except (TypeError, ValueError) as error:
        raise UserError(f"{source}: config.json does not describe a head: {error}") from None
    return head, () if kind == "qa" else labels


def _labels(hf_config: Mapping[str, Any], source: str) -> tuple[str, ...]:
    """The names of classes 0, 1, ...; those that transformers makes up where config.json has none."""
    names = hf_config.get("id2label")
    if names is None:
        count = hf_config.get("num_labels", 2)
        names = {i: f"LABEL_{i}" for i in range(count if isinstance(count, int) else 0)}
    try:
        by_number = {int(number): str(name) for number, name in names.items()}
        labels = tuple(by_number[i] for i in range(len(names)))
    except (AttributeError, KeyError, TypeError, ValueError):
        labels = ()
    if not labels or len(set(labels)) != len(labels):
        raise UserError(f"{source}: config.json: id2label {names!r} does not name classes 0, 1, ... by different names")
    return labels


def head_to_json(head: HeadConfig, labels: Sequence[str]) -> str:
    """The text of jaxplm.json."""
    content = {"version": VERSION, "head": dataclasses.asdict(head), "labels": list(check_labels(head, labels))}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def head_from_json(directory: Path, source: str) -> tuple[HeadConfig, tuple[str, ...]]:
    """Head and labels from jaxplm.json in `directory`.

    Raises:
      UserError: not what `head_to_json` writes.
    """
    try:
        content = json.loads((directory / OWN).read_text("utf-8"))
        head = HeadConfig(**content["head"])
        return head, check_labels(head, [str(name) for name in content["labels"]])
    except (KeyError, TypeError, ValueError) as error:  # JSON's errors are ValueErrors
        raise UserError(f"{source}: {OWN} does not describe a head ({error}); write the export again") from None
