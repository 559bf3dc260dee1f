"""Every field of a config, with its type, limits, default and meaning. `configs/*.py` return a `Config`; flags override its fields.

What a field may be stands in its annotation: `Literal[...]` lists choices, `Annotated[int, Ge(1)]` gives a range. What it
means is the second argument of `setting`. Checks, `--help` and the reference of fields in the documents read both.
"""

import dataclasses
import difflib
import functools
import math
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from annotated_types import Ge, GroupedMetadata, Interval, Le

from jaxplm.errors import UserError

T = TypeVar("T")
HIGHEST_SEED = 2**31 - 1
_MOST = 2**20  # of what is counted per text or per row

Share = Annotated[float, Interval(ge=0.01, le=0.9)]
DropoutRate = Annotated[float, Interval(ge=0, le=0.99)]
Seed = Annotated[int, Interval(ge=0, le=HIGHEST_SEED)]
Count = Annotated[int, Ge(1)]
CountOrZero = Annotated[int, Ge(0)]
MeshSize = Annotated[int, Ge(-1)]
Packing = Literal["documents", "stream"]
VectorPooling = Literal["cls", "mean", "max", "none"]
VectorType = Literal["float32", "float16"]
Precision = Literal["bfloat16", "float32"]
Attention = Literal["auto", "plain", "flash"]
Remat = Literal["none", "dots", "blocks"]


def setting(default: T, about: str) -> T:
    """Return a dataclass field with a default and a description of one line, which `field_infos` reads."""
    return field(default=default, metadata={"about": about})  # pyright: ignore[reportReturnType]  # a type checker sees the default


@dataclass
class Model:
    """The encoder to start from."""

    path: str = setting("builtin:tiny", "directory in transformers' format, hub id, or builtin:tiny; empty: random weights")
    dropout: DropoutRate | None = setting(None, "dropout of hidden states; None: the checkpoint's")
    attention_dropout: DropoutRate | None = setting(None, "dropout of attention weights; None: the checkpoint's")
    size: Literal["tiny", "mini", "small", "base", "large"] = setting("tiny", "size of a new encoder, where model.path is empty")
    max_positions: Annotated[int, Interval(ge=8, le=_MOST)] = setting(512, "positions of a new encoder, where model.path is empty")
    tokenizer: str = setting("", "directory of a tokenizer, where model.path is empty; empty: one is trained on data.train")
    pairs: Literal["", "nsp", "sop"] = setting(
        "", "second objective on pairs of segments: nsp (next sentence) or sop (sentence order); empty: none")
    extension: Annotated[float, Interval(ge=0.05, le=1)] = setting(
        0.33, "exBERT: width of the extension module as a share of the base's")


@dataclass
class Data:
    """Texts, the columns they stand in, rows and masks."""

    train: str = setting("", "training texts: paths, globs or directories separated by commas, hf:<name> or builtin:<name>")
    validation: str = setting("", "validation set, given as data.train is; empty: a share of data.train is held out")
    test: str = setting("", "test set, given as data.train is")
    general: str = setting("", "general text whose MLM loss is followed as well, to show what is forgotten")
    lines: Literal["auto", "true", "false"] = setting(
        "auto", "how .txt files are read: true: one text per line; false: blank lines separate texts; auto: true where a file has no"
        " blank line")
    text: str = setting("text", "name of the column with the text")
    text_pair: str = setting("", "name of the column with the second text of a pair; empty: there is none")
    label: str = setting("label", "name of the column with the label")
    tokens: str = setting("tokens", "tagging: name of the column with a list of tokens (CoNLL files need none)")
    tags: str = setting("tags", "tagging: name of the column with a list of tags (CoNLL files need none)")
    seq_len: Annotated[int, Interval(ge=8, le=_MOST)] = setting(128, "tokens per row, special tokens included")
    packing: Packing = setting(
        "documents", "documents: texts share rows but do not see each other; stream: texts are joined and cut into full rows")
    mask_rate: Share = setting(0.15, "share of the tokens that is masked")
    mask_rate_end: Share | None = setting(None, "masking rate at the last step, reached linearly from data.mask_rate; None: constant")
    whole_word: bool = setting(False, "mask all tokens of a word together")
    short_len: Annotated[int, Interval(ge=0, le=_MOST)] = setting(
        0, "tokens per row in the first data.short_share of the steps; 0: data.seq_len in all of them")
    short_share: Annotated[float, Interval(ge=0.01, le=0.99)] = setting(0.9, "share of the steps with rows of data.short_len tokens")
    max_rows: Count | None = setting(None, "use only the first so many texts of data.train; None: all")
    held_out: Annotated[float, Interval(ge=0.001, le=0.5)] = setting(
        0.05, "share of data.train that is held out where data.validation is empty")
    eval_rows: Count = setting(1000, "packed rows per evaluation, at most")


@dataclass
class Task:
    """A downstream task and its head."""

    # A name of jaxplm.tasks.kinds.KINDS, which the recipes check: a config file may add kinds of its own.
    kind: str = setting("", "kind of task: classify, multilabel, regress, tag or qa; empty: masked language modelling")
    pooling: Literal["cls", "mean", "max"] = setting("cls", "how the vectors of a text's tokens become one vector")
    layers: Literal["last", "last4", "mix"] = setting(
        "last", "layers that the head reads: last; last4: mean of the last four; mix: learned mix of all (Peters et al. 2018)")
    body: Literal["", "lstm", "transformer"] = setting("", "tag: a layer between the token vectors and the output; empty: none")
    body_width: Annotated[int, Interval(ge=8, le=2**14)] = setting(
        256, "units per direction of the lstm body, or feed-forward width of the transformer body")
    dropout: DropoutRate | None = setting(None, "dropout of the head; None: the checkpoint's")
    label_smoothing: Annotated[float, Interval(ge=0, le=0.9)] = setting(0.0, "probability taken from the true class and spread over all")
    class_weights: Literal["none", "balanced"] = setting("none", "balanced: every class has the same total weight in the loss")
    overlap: Annotated[int, Interval(ge=0, le=_MOST)] = setting(32, "tag, qa: tokens that two windows of a long text share")
    max_answer: Annotated[int, Interval(ge=1, le=_MOST)] = setting(30, "qa: tokens per answer, at most")
    rules: Literal["squad", "korquad"] = setting("squad", "qa: how answers are compared: squad (by words) or korquad (by characters)")
    cache: Literal["auto", "on", "off"] = setting("auto", "compute the vectors of a frozen encoder once and keep them in the workdir")


@dataclass
class Train:
    """Steps, optimizer, evaluation."""

    steps: CountOrZero | None = setting(None, "steps of the run; exactly one of train.steps and train.epochs is given")
    epochs: Annotated[float, Ge(1e-6)] | None = setting(
        None, "passes over data.train; exactly one of train.steps and train.epochs is given")
    batch_size: Count = setting(32, "rows per step over all devices; in labelled tasks texts per step, on average")
    accumulate: Count = setting(1, "parts in which a step is computed, to save memory")
    learning_rate: Annotated[float, Interval(ge=0, le=10)] = setting(1e-4, "highest learning rate, reached at the end of the warm-up")
    warmup: Annotated[float, Ge(0)] = setting(0.06, "warm-up: below 1 a share of the steps, from 1 on a number of steps")
    schedule: Literal["linear", "cosine", "constant"] = setting("linear", "learning rate after the warm-up")
    weight_decay: Annotated[float, Interval(ge=0, le=10)] = setting(0.01, "decoupled weight decay (AdamW); biases and norms have none")
    beta1: Annotated[float, Interval(ge=0, le=0.99999)] = setting(0.9, "AdamW: decay of the first moment")
    beta2: Annotated[float, Interval(ge=0, le=0.9999999)] = setting(0.98, "AdamW: decay of the second moment")
    epsilon: Annotated[float, Interval(ge=1e-15, le=1)] = setting(1e-6, "AdamW: added to the root of the second moment")
    clip: Annotated[float, Ge(0)] = setting(1.0, "highest global norm of the gradient; 0: no clipping")
    layer_decay: Annotated[float, Interval(ge=0.01, le=1)] = setting(
        1.0, "learning rate of block i is multiplied by layer_decay^(N - i), so lower blocks learn less")
    freeze: tuple[str, ...] = setting((), "regular expressions over parameter paths: what they match is not trained")
    seeds: tuple[Seed, ...] = setting((), "one run per seed in one command; the report has mean and standard deviation")
    eval_every: Count = setting(100, "steps between evaluations")
    metric: str = setting("", "metric that picks the best checkpoint; empty: the first one of the task")
    patience: CountOrZero = setting(0, "evaluations without a better metric after which the run ends; 0: it never ends early")
    reinit_layers: Annotated[int, Interval(ge=0, le=1000)] = setting(
        0, "top blocks that start from random weights (Zhang et al. 2021)")
    unfreeze_every: CountOrZero = setting(
        0, "steps after which one more block, from the top down, is trained (Howard & Ruder 2018); 0: all from the start")
    log_every: Count = setting(10, "steps between lines of the log and of metrics.jsonl")
    max_bad_steps: Count = setting(10, "non-finite steps in a row after which the run ends")


@dataclass
class Checkpoint:
    """When the state of a run is saved."""

    every: Count = setting(100, "steps between checkpoints")
    keep: Count = setting(2, "checkpoints to keep, besides the best")


@dataclass
class Vocab:
    """A new vocabulary, or tokens added to an old one."""

    size: Annotated[int, Interval(ge=256, le=2**22)] = setting(8192, "tokens of a new vocabulary, where model.path is empty")
    kind: Literal["wordpiece", "bpe", "unigram"] = setting("wordpiece", "model of a new vocabulary; bpe is byte-level and makes a RoBERTa")
    language: Literal["auto", "latin", "korean"] = setting("auto", "rules for words of a new vocabulary; auto: by the corpus's script")
    cased: bool = setting(False, "a new vocabulary keeps capital letters")
    new_tokens: Annotated[int, Interval(ge=0, le=_MOST)] = setting(300, "tokens to add to the checkpoint's vocabulary")
    terms: str = setting("", "file of terms, one per line, that are added first")
    min_texts: Count = setting(3, "texts that a token found in the corpus must occur in to be added")
    init: Literal["subword_mean", "mean", "normal"] = setting(
        "subword_mean", "how embeddings of new tokens start: subword_mean: mean of the pieces they replace; mean: mean of all;"
        " normal: random")
    new_rows_first: CountOrZero = setting(0, "steps at the start that train only the embeddings of new tokens")
    mask_new: bool = setting(False, "words with new tokens are masked first")


@dataclass
class Embed:
    """Embeddings of texts."""

    pooling: VectorPooling = setting("mean", "how token vectors become one per text; none: one vector per token")
    layers: str = setting(
        "last", "last, last4 (mean of the last four), mean (of all), or a number: 0 = embeddings, 1 = first block, -1 = last block")
    mix: tuple[float, ...] = setting((), "weights of the embeddings and all N layers, instead of embed.layers; divided by their sum")
    normalize: bool = setting(False, "scale every vector to length 1")
    dtype: VectorType = setting("float32", "number format of the files")
    shard_rows: Count = setting(65536, "vectors per file")


@dataclass
class Export:
    """What the model card says about the exported model."""

    name: str = setting("", "name of the exported model; empty: made of the base model's name and the recipe's")
    license: str = setting("", "licence of the exported model, as the hub names it (apache-2.0, cc-by-nc-4.0); empty: none is given")
    language: tuple[str, ...] = setting((), "languages of the exported model, as ISO 639 codes: ('en', 'ko')")


@dataclass
class Mesh:
    """How the devices are divided; -1 takes the devices that are left."""

    data: MeshSize = setting(-1, "devices over which rows are divided, each with all parameters")
    fsdp: MeshSize = setting(1, "devices over which rows and parameters are divided")
    tensor: MeshSize = setting(1, "devices over which the matrices of a block are divided")


@dataclass
class Compute:
    """Precision, speed and memory."""

    dtype: Precision = setting("bfloat16", "number format of the computation; parameters are always float32")
    unroll: bool = setting(True, "compile the blocks one by one and not as a loop: faster steps, longer compilation")
    attention: Attention = setting(
        "auto", "auto: a flash kernel where there is one, in chunks on a CPU; flash: a flash kernel or an error; plain: XLA's")
    remat: Remat = setting(
        "none", "what the backward pass recomputes to save memory: none; dots: all but matrix products; blocks: everything")
    logit_parts: Annotated[int, Interval(ge=1, le=_MOST)] = setting(
        1, "parts in which the logits of a row's masked tokens are computed, to save memory")


@dataclass
class Config:
    """All settings of a run."""

    recipe: str = setting("dapt", "what is run; every file in configs/ sets its own")
    seed: Seed = setting(0, "everything random follows from it")
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    task: Task = field(default_factory=Task)
    embed: Embed = field(default_factory=Embed)
    train: Train = field(default_factory=Train)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    vocab: Vocab = field(default_factory=Vocab)
    export: Export = field(default_factory=Export)
    mesh: Mesh = field(default_factory=Mesh)
    compute: Compute = field(default_factory=Compute)


@dataclass(frozen=True)
class FieldInfo:
    """What a field may be and what it means.

    Attributes:
      name: dotted, as flags have it: "train.steps".
      annotation: as in its dataclass, without None.
      value_type: int, float, bool, str, or tuple.
      element_type: of a tuple's elements; None for other types.
      choices: the values that it may have; empty where it is no choice.
      low, high: range of a number, or of a tuple's elements; both ends are allowed, and may be infinite.
      optional: whether it may be None.
      default: in a `Config` of no arguments.
      about: its meaning, a line of plain text.
    """

    name: str
    annotation: Any
    value_type: type
    element_type: type | None
    choices: tuple[str, ...]
    low: float
    high: float
    optional: bool
    default: Any
    about: str

    @property
    def possible(self) -> str:
        """The values that the field takes, in words: "an integer, at least 1"."""
        if self.choices:
            words = f"one of {', '.join(filter(None, self.choices))}" + (", or empty" if "" in self.choices else "")
        elif self.element_type:
            words = f"a tuple of {_PLURAL[self.element_type]}{self._range}"
        else:
            words = f"{_SINGULAR[self.value_type]}{self._range}"
        return f"{words}, or None" if self.optional else words

    @property
    def _range(self) -> str:
        if self.low == -math.inf:
            return ""
        return f", at least {self.low:.10g}" if self.high == math.inf else f" between {self.low:.10g} and {self.high:.10g}"

    def check(self, value: Any) -> None:
        """Raise a `UserError` that names field, value and what is possible where `value` is impossible."""
        if value is None and self.optional:
            return
        if value is None or not self._has_type(value):
            raise UserError(f"{self.name}={value!r}: must be {self.possible}, not {type(value).__name__}")
        if self.choices and value not in self.choices:
            near = difflib.get_close_matches(value, self.choices, n=1)
            raise UserError(f"{self.name}={value!r}: must be {self.possible}" + (f"; did you mean {near[0]}?" if near else ""))
        numbers = value if self.element_type in (int, float) else [value] if self.value_type in (int, float) else []
        if not all(math.isfinite(number) and self.low <= number <= self.high for number in numbers):
            raise UserError(f"{self.name}={value}: must be {self.possible}")

    def _has_type(self, value: Any) -> bool:
        if self.element_type:
            return isinstance(value, tuple) and all(_is_a(one, self.element_type) for one in value)
        return _is_a(value, self.value_type)


_SINGULAR = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
_PLURAL = {int: "integers", float: "numbers", str: "texts"}


def _is_a(value: Any, kind: type) -> bool:
    """Whether a value has a type; True is no integer, and an integer will do for a float."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _read_annotation(annotation: Any) -> dict[str, Any]:
    """Return `annotation`, `value_type`, `element_type`, `choices`, `low`, `high` and `optional` of a `FieldInfo` by an annotation."""
    found: dict[str, Any] = {"annotation": annotation, "element_type": None, "choices": (), "low": -math.inf, "high": math.inf,
                             "optional": False}
    if get_origin(annotation) in (typing.Union, types.UnionType):
        (annotation,) = (one for one in get_args(annotation) if one is not type(None))
        found |= {"annotation": annotation, "optional": True}
    if get_origin(annotation) is tuple:
        element = _read_annotation(get_args(annotation)[0])
        return found | {"value_type": tuple, "element_type": element["value_type"], "low": element["low"], "high": element["high"]}
    if get_origin(annotation) is Literal:
        return found | {"value_type": str, "choices": get_args(annotation)}
    if get_origin(annotation) is Annotated:
        annotation, *constraints = get_args(annotation)
        for constraint in constraints:
            for bound in constraint if isinstance(constraint, GroupedMetadata) else (constraint,):
                match bound:
                    case Ge(low):
                        found["low"] = low
                    case Le(high):
                        found["high"] = high
                    case _:
                        raise TypeError(f"{bound} is not understood here")
    return found | {"value_type": annotation}


@functools.cache
def field_infos() -> dict[str, FieldInfo]:
    """Return what is known about every field, by its dotted name, in the order of the dataclasses."""
    found = {}

    def collect(section: Any, prefix: str) -> None:
        hints = get_type_hints(type(section), include_extras=True)
        for entry in dataclasses.fields(section):
            name, value = prefix + entry.name, getattr(section, entry.name)
            if dataclasses.is_dataclass(value):
                collect(value, f"{name}.")
            else:
                found[name] = FieldInfo(name, default=value, about=entry.metadata["about"], **_read_annotation(hints[entry.name]))

    collect(Config(), "")
    return found


def section_abouts() -> dict[str, str]:
    """Return what each section of fields is about: {"": "All settings of a run.", "model": "The encoder to start from.", ...}."""
    sections = {"": Config} | {entry.name: entry.type for entry in dataclasses.fields(Config) if dataclasses.is_dataclass(entry.type)}
    return {name: (section.__doc__ or "").split("\n")[0] for name, section in sections.items()}


def choices(name: str) -> tuple[str, ...]:
    """Return the values that the field `name` may have, in the order of its annotation."""
    return field_infos()[name].choices


def check_value(name: str, value: Any) -> None:
    """Raise a `UserError` that names what is possible where the field `name` may not have `value`."""
    field_infos()[name].check(value)


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("train.steps", 500), ... for every leaf field of a (nested) dataclass."""
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            yield from flatten(value, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, value


def check_field(name: str) -> None:
    """Raise a `UserError` that names the nearest field if there is no field `name` (dotted)."""
    names = field_infos().keys()
    if name in names:
        return
    by_leaf = [path for path in names if path.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    near = by_leaf or difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else f"; sections: {', '.join(sorted({n.split('.')[0] for n in names}))}"
    raise UserError(f"unknown field {name}{hint}")


def check_values(config: Config) -> None:
    """Raise a `UserError` for the first field whose value its annotation does not allow."""
    for entry in dataclasses.fields(config):
        value, expected = getattr(config, entry.name), entry.type
        if isinstance(expected, type) and dataclasses.is_dataclass(expected) and not isinstance(value, expected):
            raise UserError(f"{entry.name}={value!r}: must be a jaxplm.config.{expected.__name__}, not {type(value).__name__}")
    infos = field_infos()
    for name, value in flatten(config):
        infos[name].check(value)
    for name in ("mesh.data", "mesh.fsdp", "mesh.tensor"):
        if getattr(config.mesh, name.removeprefix("mesh.")) == 0:
            raise UserError(f"{name}=0: must be -1 (what is left) or at least 1")


def validate(config: Config) -> None:
    """Raise a `UserError` for the first impossible value; the message names the field, the value and what is possible."""
    check_values(config)
    _check_task(config)
    _check_objective(config)
    if config.recipe == "evaluate":
        if not (config.data.validation or config.data.test or config.data.general):
            raise UserError("nothing to evaluate on: give data.validation, data.test, data.general or several of them")
        return
    if config.recipe == "embed":
        _check_embed(config)
        return
    if (config.train.steps is None) == (config.train.epochs is None):
        raise UserError("train.steps and train.epochs: exactly one must be given"
                        f" (now train.steps={config.train.steps}, train.epochs={config.train.epochs})")
    if config.train.batch_size % config.train.accumulate and config.recipe not in DOWNSTREAM:
        raise UserError(f"train.batch_size={config.train.batch_size} does not divide by"
                        f" train.accumulate={config.train.accumulate}")
    for pattern in config.train.freeze:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"train.freeze={pattern!r}: not a regular expression ({error})") from None
    if not config.data.train:
        raise UserError("data.train is empty: give a path, a glob, a directory, hf:<name> or builtin:pydocs")


# The scores of each kind of task; the first one picks the best checkpoint where `train.metric` is empty.
METRICS = {
    "classify": ("accuracy", "macro_f1", "micro_f1", "mcc", "loss"),
    "multilabel": ("micro_f1", "macro_f1", "accuracy", "loss"),
    "regress": ("spearman", "pearson", "mse", "loss"),
    "tag": ("f1", "precision", "recall", "accuracy", "macro_f1", "micro_f1", "loss"),  # the last three: also of plain tags
    "qa": ("f1", "exact_match", "loss"),
}
DOWNSTREAM = ("finetune", "feature_extraction")
EXTENDING = ("extend_vocab", "exbert")
PRETRAINING = ("dapt", "tapt", "scratch", *EXTENDING)


def _check_task(config: Config) -> None:
    """What belongs to labelled tasks alone, and what does not go together there."""
    task, train = config.task, config.train
    if task.kind and task.kind not in METRICS:
        near = difflib.get_close_matches(task.kind, METRICS, n=1)
        raise UserError(f"task.kind={task.kind!r}: must be one of {', '.join(METRICS)}" + (f"; did you mean {near[0]}?" if near else ""))
    if config.recipe not in DOWNSTREAM:
        for name, value in (("train.seeds", train.seeds), ("train.metric", train.metric), ("train.reinit_layers", train.reinit_layers),
                            ("task.kind", task.kind)):
            if value and not (name == "task.kind" and config.recipe == "evaluate"):
                raise UserError(f"{name}={value!r} is for downstream tasks (configs/finetune.py, configs/feature_extraction.py)"
                                + ("; use seed=... here" if name == "train.seeds" else ""))
        return
    if not task.kind:
        raise UserError(f"task.kind is empty: must be one of {', '.join(METRICS)}")
    if not config.model.path:
        raise UserError("model.path is empty: a task needs a pre-trained encoder (configs/scratch.py makes one)")
    if train.metric and train.metric not in METRICS[task.kind]:
        raise UserError(f"train.metric={train.metric!r}: task.kind={task.kind} has {', '.join(METRICS[task.kind])}")
    if task.body and task.kind != "tag":
        raise UserError(f"task.body={task.body!r} stands between tokens and tags: task.kind={task.kind} has no use for it")
    if task.pooling != "cls" and task.kind in ("tag", "qa"):
        raise UserError(f"task.pooling={task.pooling!r}: task.kind={task.kind} looks at every token and pools nothing")
    if task.class_weights != "none" and task.kind in ("regress", "qa"):
        raise UserError(f"task.class_weights={task.class_weights!r}: task.kind={task.kind} has no classes")
    if task.label_smoothing and task.kind not in ("classify", "tag"):
        raise UserError(f"task.label_smoothing={task.label_smoothing:g} is for classify and tag, not for {task.kind}")
    if len(set(train.seeds)) != len(train.seeds):
        raise UserError(f"train.seeds={train.seeds}: must be different numbers")
    if config.data.general:
        raise UserError(f"data.general={config.data.general!r} is for masked language modelling: a task's model has no such loss")


def _check_objective(config: Config) -> None:
    """What belongs to masked language modelling alone, and what does not go together there."""
    model, data = config.model, config.data
    if config.recipe not in PRETRAINING:
        for name, value in (("data.mask_rate_end", data.mask_rate_end), ("data.short_len", data.short_len)):
            if value:
                raise UserError(f"{name}={value} is a schedule over the steps of pre-training (configs/{', '.join(PRETRAINING)}):"
                                f" {config.recipe} has none; leave it out")
    if config.recipe not in EXTENDING:
        for name, value in (("vocab.mask_new", config.vocab.mask_new), ("vocab.new_rows_first", config.vocab.new_rows_first)):
            if value:
                raise UserError(f"{name}={value} is for recipes that add tokens (configs/extend_vocab.py, configs/exbert.py)")
    if config.recipe in EXTENDING and not model.path:
        raise UserError(f"model.path is empty: {config.recipe} adds tokens to a checkpoint (configs/scratch.py makes a new vocabulary)")
    if data.short_len and not 8 <= data.short_len < data.seq_len:
        raise UserError(f"data.short_len={data.short_len}: must be 0 (all rows have data.seq_len tokens), or at least 8 and less than"
                        f" data.seq_len={data.seq_len}")
    if not model.pairs:
        return
    if config.recipe not in ("dapt", "tapt", "scratch", "evaluate"):
        raise UserError(f"model.pairs={model.pairs!r} is for masked language modelling (configs/dapt.py, tapt.py, scratch.py, evaluate.py),"
                        f" not for {config.recipe}")
    if data.packing == "stream":
        raise UserError(f"model.pairs={model.pairs!r} makes rows of its own, of one pair each: data.packing='stream' joins texts;"
                        " use data.packing=documents")


def _check_embed(config: Config) -> None:
    settings = config.embed
    if settings.layers not in ("last", "last4", "mean") and not re.fullmatch(r"-?\d{1,4}", settings.layers):
        raise UserError(f"embed.layers={settings.layers!r}: must be last, last4, mean or a number"
                        " (0 = embeddings, 1 = first block, -1 = last)")
    if settings.mix and not (all(map(math.isfinite, settings.mix)) and sum(settings.mix) > 0):
        raise UserError(f"embed.mix={settings.mix}: the weights must be finite, and their sum more than 0")
    if not config.data.train:
        raise UserError("data.train is empty: give the texts to embed: a path, a glob, a directory, hf:<name> or builtin:pydocs")
