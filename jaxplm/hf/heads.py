"""`HeadConfig` and labels ↔ the fields of config.json, or jaxplm.json for a head that transformers has no class for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jaxplm.errors import UserError
from jaxplm.hf.config_fields import MOST_OUTPUTS, Kind, Number, Whole, check_fields, shown, takes
from jaxplm.hf.json_file import read_object
from jaxplm.hf.names import ENCODER
from jaxplm.nn import EncoderConfig, HeadConfig
from jaxplm.version import VERSION

HEAD_FILE = "jaxplm.json"

# What comes after "For" in the names of transformers' classes whose heads are read and written.
CLASSES = ("SequenceClassification", "TokenClassification", "QuestionAnswering")


# The fields of "head" in jaxplm.json, with bounds as in `config_fields`.
_OWN_FIELDS = {
    "kind": Kind("a string", str), "classes": Whole(1, MOST_OUTPUTS), "pooling": Kind("a string", str),
    "layers": Kind("a string", str), "body": Kind("a string", str), "body_width": Whole(1, 2**16),
    "dropout": Number(0, 1, open_end=True, null=True),
}


class HeadKind(Protocol):
    """What the files of a model need to know of a kind of task; see `jaxplm.tasks.kinds.kind.TaskKind`."""

    @property
    def name(self) -> str: ...

    @property
    def hf_class(self) -> str: ...

    @property
    def problem_type(self) -> str | None: ...

    @property
    def named_outputs(self) -> bool: ...

    def head_config(self, outputs: int, **settings: Any) -> HeadConfig:
        """Return the head of this kind. Raises ValueError where there is none such."""
        ...


Kinds = Mapping[str, HeadKind]  # by their names


def hf_class_of(kind: HeadKind, head: HeadConfig, config: EncoderConfig) -> str:
    """Return what comes after "For" in the name of transformers' class that has this very model; `ENCODER` if it has none."""
    return kind.hf_class if head.hf_native and not config.extension else ENCODER


def task_architecture(hf_config: Mapping[str, Any]) -> str | None:
    """Return what comes after "For" in the class of a config.json; None if that is not a model with the head of a task."""
    classes = hf_config.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], str) else ""
    return next((end for end in CLASSES if name.endswith(f"For{end}")), None)


def check_labels(kind: HeadKind, head: HeadConfig, labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels as a tuple.

    Raises:
      ValueError: they are not C different ones. A kind whose outputs have no names has no labels, or one if it has one output:
        the name of the column that was learned.
    """
    allowed = (head.classes,) if kind.named_outputs else (0, 1) if head.classes == 1 else (0,)
    if len(labels) not in allowed or len(set(labels)) != len(labels):
        raise ValueError(f"{kind.name} with {head.classes} classes and the labels {shown(list(labels))}")
    return tuple(labels)


def head_to_hf(kind: HeadKind, head: HeadConfig, labels: Sequence[str]) -> dict[str, Any]:
    """Return the fields of config.json that describe a head which transformers has.

    `num_labels` is not among them: transformers counts `id2label`, and takes two where there is none.
    """
    names = check_labels(kind, head, labels) or (("LABEL_0",) if head.classes == 1 else ())
    fields: dict[str, Any] = {"classifier_dropout": head.dropout}
    if names:
        fields |= {"id2label": {str(i): name for i, name in enumerate(names)}, "label2id": {name: i for i, name in enumerate(names)}}
    return fields | ({"problem_type": kind.problem_type} if kind.problem_type else {})


def head_from_hf(hf_config: Mapping[str, Any], kinds: Kinds, source: str) -> tuple[HeadConfig, tuple[str, ...]]:
    """Return the head of transformers that a config.json describes, and its labels; see `head_to_hf`.

    Without `problem_type` one label means regression and more mean single-label classification, as in transformers.

    Raises:
      UserError: no head of a task, or fields that contradict each other.
    """
    architecture = task_architecture(hf_config)
    if architecture is None:
        classes = shown(hf_config.get("architectures"))
        raise UserError(f"{source} has no head of a task: its config.json says architectures {classes}; fine-tune it first")
    labels = _labels(hf_config, source)
    kind = _kind_of(architecture, hf_config.get("problem_type"), len(labels), kinds, source)
    rate = hf_config.get("classifier_dropout")
    try:
        head = kind.head_config(len(labels), dropout=None if rate is None else float(rate))
    except (TypeError, ValueError) as error:
        raise UserError(f"{source}: config.json does not describe a head: {error}") from None
    return head, labels if kind.named_outputs or len(labels) == 1 else ()


def _kind_of(architecture: str, problem: Any, outputs: int, kinds: Kinds, source: str) -> HeadKind:
    """Return the kind whose models transformers loads by this class."""
    by_problem = {kind.problem_type: kind for kind in kinds.values() if kind.hf_class == architecture}
    if not problem and architecture == "SequenceClassification":
        problem = "regression" if outputs == 1 else "single_label_classification"
    kind = by_problem.get(problem, by_problem.get(None))
    if kind is None:
        known = ", ".join(filter(None, by_problem))
        raise UserError(f"{source}: config.json: problem_type {shown(problem)} is none of {known}")
    return kind


def _labels(hf_config: Mapping[str, Any], source: str) -> tuple[str, ...]:
    """Return the names of classes 0, 1, ...; those that transformers makes up where config.json has none."""
    check_fields(hf_config, source)
    names = hf_config.get("id2label")
    if names is None:
        names = {i: f"LABEL_{i}" for i in range(hf_config.get("num_labels", 2))}
    try:
        by_number = {int(number): str(name) for number, name in names.items() if isinstance(name, (str, int, float))}
        labels = tuple(by_number[i] for i in range(len(names)))
    except (KeyError, ValueError):
        labels = ()
    if not labels or len(set(labels)) != len(labels):
        raise UserError(f"{source}: config.json: id2label {shown(names)} does not name classes 0, 1, ... by different"
                        " names")
    return labels


def head_to_json(kind: HeadKind, head: HeadConfig, labels: Sequence[str]) -> str:
    """Return the text of jaxplm.json."""
    content = {"version": VERSION, "head": head.as_dict(), "labels": list(check_labels(kind, head, labels))}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def head_from_json(directory: Path, kinds: Kinds, source: str) -> tuple[HeadConfig, tuple[str, ...]]:
    """Return head and labels from jaxplm.json in `directory`.

    Raises:
      UserError: not what `head_to_json` writes, or a kind that is not among `kinds`.
    """
    content = read_object(directory / HEAD_FILE, source, "object with the head")
    try:
        settings = dict(content["head"])
        for name, field in _OWN_FIELDS.items():
            if name in settings and not takes(field, settings[name]):
                raise ValueError(f"{name} is {shown(settings[name])} and must be {field}")
        name, outputs = settings.pop("kind"), settings.pop("classes")
        if name not in kinds:
            known = ", ".join(kinds)
            raise ValueError(f"kind {shown(name)} is none of {known}; a kind of your own must be registered first")
        head = kinds[name].head_config(outputs, **settings)
        return head, check_labels(kinds[name], head, [str(label) for label in content["labels"]])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source}: {HEAD_FILE} does not describe a head ({error}); write the export again") from None
