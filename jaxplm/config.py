"""Every field of a config, with its type, limits, default and meaning. `configs/*.py` return a `Config`; flags override its fields.

What a field may be stands in its annotation: `Literal[...]` lists choices, `Annotated[int, Ge(1)]` gives a range. What it
means is the second argument of `setting`. Checks, `--help` and the reference of fields in the documents read both.
"""

import dataclasses
import difflib
import fnmatch
import functools
import math
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from annotated_types import Ge, GroupedMetadata, Interval, Le

from jaxplm.errors import UserError, did_you_mean

T = TypeVar("T")
HIGHEST_SEED = 2**31 - 1
MOST_STEPS = 2**31 - 1  # the devices count steps in 32 bits
_MOST = 2**20  # of what is counted per text or per row

Share = Annotated[float, Interval(ge=0.01, le=0.9)]
ReplayShare = Annotated[float, Interval(ge=0, le=0.9)]
Weight = Annotated[float, Interval(ge=1e-6, le=1e6)]
DropoutRate = Annotated[float, Interval(ge=0, le=0.99)]
Seed = Annotated[int, Interval(ge=0, le=HIGHEST_SEED)]
Count = Annotated[int, Ge(1)]
CountOrZero = Annotated[int, Ge(0)]
StepCount = Annotated[int, Interval(ge=0, le=MOST_STEPS)]
RowCount = Annotated[int, Interval(ge=1, le=2**20)]
MeshSize = Annotated[int, Interval(ge=-1, le=2**24)]
Packing = Literal["documents", "stream"]
VectorPooling = Literal["cls", "mean", "max", "none"]
VectorType = Literal["float32", "float16"]
Precision = Literal["bfloat16", "float32", "float8"]
Attention = Literal["auto", "plain", "flash"]
Kernels = Literal["auto", "plain"]
Remat = Literal["none", "dots", "blocks"]


def setting(default: T, about: str) -> T:
    """Return a dataclass field with a default and a description of one line, which `field_infos` reads."""
    return field(default=default, metadata={"about": about})  # pyright: ignore[reportReturnType]  # a type checker sees the default


class Fallback(str):
    """Text in a recipe's config file that gives way where other fields leave it without meaning. Plain text never gives way."""


def fallback(value: T) -> T:
    """Return a `Fallback` of a text, for the config files of recipes."""
    return Fallback(value)  # pyright: ignore[reportReturnType]  # a type checker sees the text


@dataclass
class Model:
    """The encoder to start from."""

    path: str = setting("builtin:tiny", "directory in transformers' format, hub id, or builtin:tiny; empty: random weights")
    dropout: DropoutRate | None = setting(None, "dropout of hidden states; None: the checkpoint's")
    attention_dropout: DropoutRate | None = setting(None, "dropout of attention weights; None: the checkpoint's")
    size: Literal["tiny", "mini", "small", "base", "large"] = setting("tiny", "size of a new encoder, where model.path is empty")
    max_positions: Annotated[int, Interval(ge=8, le=_MOST)] = setting(512, "positions of a new encoder, where model.path is empty")
    random: bool = setting(
        False, "labelled tasks: the encoder starts from random weights; architecture and tokenizer are those of model.path")
    tokenizer: str = setting("", "directory of a tokenizer, where model.path is empty; empty: one is trained on data.train")
    pairs: Literal["", "nsp", "sop"] = setting(
        "", "second objective on pairs of segments: nsp (next sentence) or sop (sentence order); empty: none")
    extension: Annotated[float, Interval(ge=0.05, le=1)] = setting(
        0.33, "exBERT: width of the extension module as a share of the base's")


@dataclass
class Data:
    """Texts, the columns of their files, rows and masks."""

    train: str = setting("", "training texts: paths, globs or directories separated by commas, hf:<name> or builtin:<name>")
    validation: str = setting("", "validation set, given as data.train is; empty: a share of data.train is held out")
    test: str = setting("", "test set, given as data.train is")
    corpus: str = setting("", "unlabelled texts of the domain, given as data.train is, beside the task's labelled sets")
    general: str = setting("", "general text whose MLM loss is followed as well, to show what is forgotten")
    weights: tuple[Weight, ...] = setting(
        (), "one weight per comma-separated entry of data.train: its share of the rows is its weight divided by their"
        " sum; empty: every text is read equally often")
    replay: ReplayShare | None = setting(
        None, "share of all rows that is drawn from data.general, against forgetting; its loss is then measured on a"
        " part that is not replayed; 0: measured so, nothing is replayed")
    lines: Literal["auto", "true", "false"] = setting(
        "auto", "how .txt files are read: true: one text per line; false: blank lines separate texts; auto: true where a file has"
        " hardly a blank line; embeddings: a line is a row")
    text: str = setting("text", "name of the column with the text")
    text_pair: str = setting("", "name of the column with the second text of a pair; empty: there is none")
    label: str = setting("label", "name of the column with the label")
    label_names: tuple[str, ...] = setting(
        (), "names of the classes in the order of their numbers, where the data have numbers or lists of zeros and ones, one per class;"
        " empty: the numbers")
    tokens: str = setting("tokens", "tagging: name of the column with a list of tokens; of CoNLL files a column's number, from 1")
    tags: str = setting("tags", "tagging: name of the column with a list of tags; of CoNLL files a column's number, from 1")
    token_unit: Literal["auto", "words", "characters"] = setting(
        "auto", "tagging: what the tokens of the data are; auto: characters where nearly all of data.train are one character long")
    tag_scheme: Literal["auto", "IOB1", "IOB2", "BIOES", "plain"] = setting(
        "auto", "tagging: how tags mark entities; plain: they mark none; auto: as data.train shows")
    seq_len: Annotated[int, Interval(ge=8, le=_MOST)] = setting(128, "tokens per row, special tokens included")
    packing: Packing = setting(
        "documents", "how texts fill rows; documents: they share rows but do not see each other; stream: they are joined and cut")
    mask_rate: Share = setting(0.15, "share of the tokens that is masked")
    mask_rate_end: Share | None = setting(None, "masking rate at the last step, reached linearly from data.mask_rate; None: constant")
    whole_word: bool = setting(False, "mask all tokens of a word together")
    short_len: Annotated[int, Interval(ge=0, le=_MOST)] = setting(
        0, "tokens per row in the first data.short_share of the steps; 0: data.seq_len in all of them")
    short_share: Annotated[float, Interval(ge=0.01, le=0.99)] = setting(0.9, "share of the steps with rows of data.short_len tokens")
    max_rows: Count | None = setting(None, "use only this many texts from the start of data.train; None: all")
    rows_chosen: Literal["first", "spread"] = setting(
        "first", "which rows data.max_rows takes of a labelled set: first: those at its start; spread: a fixed sample that keeps the shares"
        " of the labels")
    held_out: Annotated[float, Interval(ge=0.001, le=0.5)] = setting(
        0.05, "share of data.train that is held out where data.validation is empty; with data.replay, share of"
        " data.general that is measured and not replayed")
    eval_rows: Count = setting(1000, "packed rows per evaluation, at most")


@dataclass
class Task:
    """A downstream task and its head."""

    # A name of jaxplm.tasks.kinds.KINDS, which the recipes check: a config file may add kinds of its own.
    kind: str = setting("", "kind of task: classify, multilabel, regress, tag or qa; empty: masked language modelling")
    pooling: Literal["cls", "mean", "max"] = setting("cls", "how the vectors of a text's tokens become one vector")
    layers: Literal["last", "last4", "mix"] = setting(
        "last", "layers that the head reads: last, last4 (mean of the last four), or mix (learned mix of all; Peters et al. 2018)")
    body: Literal["", "lstm", "transformer"] = setting("", "tag: a layer between the token vectors and the output; empty: none")
    body_width: Annotated[int, Interval(ge=8, le=2**14)] = setting(
        256, "units per direction of the lstm body, or feed-forward width of the transformer body")
    dropout: DropoutRate | None = setting(None, "dropout of the head; None: the checkpoint's")
    label_smoothing: Annotated[float, Interval(ge=0, le=0.9)] = setting(0.0, "probability taken from the true class and spread over all")
    class_weights: Literal["none", "balanced"] = setting(
        "none", "weights of classes in the loss; balanced: every class has the same total weight")
    overlap: Annotated[int, Interval(ge=0, le=_MOST)] = setting(32, "tag, qa: tokens that two windows of a long text share")
    max_answer: Annotated[int, Interval(ge=1, le=_MOST)] = setting(30, "qa: tokens per answer, at most")
    rules: Literal["squad", "korquad"] = setting("squad", "qa: how answers are compared: squad (by words) or korquad (by characters)")
    cache: Literal["auto", "on", "off"] = setting(
        "auto", "keep the vectors of a frozen encoder in the workdir instead of computing them in every epoch")


@dataclass
class Train:
    """Steps, optimizer and evaluation."""

    steps: StepCount | None = setting(None, "steps of the run; exactly one of train.steps and train.epochs is given")
    epochs: Annotated[float, Interval(ge=1e-6, le=1e6)] | None = setting(
        None, "passes over data.train; exactly one of train.steps and train.epochs is given")
    batch_size: RowCount = setting(32, "rows per step over all devices; in labelled tasks texts per step, on average")
    accumulate: RowCount = setting(1, "parts in which a step is computed, to save memory")
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
    unfreeze_every: StepCount = setting(
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
    new_rows_first: StepCount = setting(0, "steps at the start that train only the embeddings of new tokens")
    mask_new: bool = setting(False, "words with new tokens are masked first")


@dataclass
class Embed:
    """Embeddings of texts."""

    pooling: VectorPooling = setting("mean", "how token vectors become one per text; none: one vector per token")
    layers: str = setting(
        "last", "layers to take vectors from: last, last4 (mean of the last four), mean (of all), or a number:"
        " 0 = embeddings, 1 = first block, -1 = last block")
    mix: tuple[float, ...] = setting((), "weights of the embeddings and all N layers, instead of embed.layers; divided by their sum")
    normalize: bool = setting(False, "scale every vector to length 1")
    dtype: VectorType = setting("float32", "number format of the files")
    shard_rows: Count = setting(65536, "vectors per file")


@dataclass
class Select:
    """Choosing texts of a corpus for a task."""

    method: Literal["knn", "dsir", "random"] = setting(
        "knn", "how texts are chosen: knn: the nearest to each task text by embeddings; dsir: by importance weights of hashed n-grams,"
        " without a model; random: by chance, as a control")
    neighbours: Annotated[int, Interval(ge=1, le=2**12)] = setting(50, "corpus texts to find for each task text")
    texts: Count | None = setting(
        None, "dsir, random: texts to choose; None: as many as knn may choose, select.neighbours per task text, or all that there are")
    leak_ngram: Annotated[int, Interval(ge=2, le=100)] = setting(
        8, "corpus texts that share so many words in a row with data.validation or data.test are left out")


@dataclass
class Adapt:
    """The comparison of ways to adapt an encoder to a task."""

    ways: tuple[str, ...] = setting(
        ("base", "dapt", "tapt", "dapt+tapt"), "ways to compare: random, base, dapt, tapt, dapt+tapt, knn-tapt, dapt+replay,"
        " extend_vocab+dapt, exbert, off-domain-dapt")
    methods: tuple[str, ...] = setting(("finetune",), "how each way learns the task: finetune, feature_extraction")
    learning_rates: tuple[float, ...] = setting(
        (2e-5, 5e-5), "learning rates of fine-tuning; the one that is best on the validation set with the first seed is taken")
    head_learning_rates: tuple[float, ...] = setting((1e-3,), "the same for feature extraction")
    few_rows: tuple[Count, ...] = setting((), "sizes of subsets of data.train that are learned from as well, such as (100, 500)")
    off_domain: str = setting("", "texts of another domain, for the way off-domain-dapt; given as data.corpus is")
    parallel: Annotated[int, Interval(ge=1, le=1024)] = setting(1, "stages that run at a time on this machine")
    engine: Literal["local", "snakemake"] = setting("local", "what starts the stages: local: this command; snakemake: Snakemake")
    profile: str = setting("", "directory of a Snakemake profile, for adapt.engine=snakemake")
    dry_run: bool = setting(False, "show the stages with their estimated cost, and run none")
    dapt: tuple[str, ...] = setting((), "fields of the dapt stages, such as ('train.steps=1000',)")
    tapt: tuple[str, ...] = setting((), "fields of the tapt stages")
    select: tuple[str, ...] = setting((), "fields of the select stage")
    extend_vocab: tuple[str, ...] = setting((), "fields of the extend_vocab stage")
    exbert: tuple[str, ...] = setting((), "fields of the exbert stage")
    finetune: tuple[str, ...] = setting((), "fields of the finetune stages")
    feature_extraction: tuple[str, ...] = setting((), "fields of the feature_extraction stages")
    few: tuple[str, ...] = setting((), "fields of the stages of adapt.few_rows, after those of adapt.finetune or feature_extraction")


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

    dtype: Precision = setting(
        "bfloat16", "number format of the computation; float8: bfloat16 with float8 factors in the blocks' matrix products (NVIDIA"
        " GPUs from Ada and Hopper on); parameters are always float32")
    unroll: bool = setting(True, "compile the blocks one by one and not as a loop: faster steps, longer compilation")
    attention: Attention = setting(
        "auto", "kernel of attention; auto: a flash kernel where there is one, chunks on a CPU; flash: a flash kernel or an error;"
        " plain: matrix products by XLA")
    kernels: Kernels = setting(
        "auto", "passes over activations between the products; auto: own kernels on an NVIDIA GPU that pass their check; plain: XLA's")
    remat: Remat = setting(
        "none", "what the backward pass recomputes to save memory: none; dots: all but matrix products; blocks: everything")
    logit_parts: Annotated[int, Interval(ge=1, le=_MOST)] = setting(
        1, "parts in which the logits of a row's masked tokens are computed, to save memory")


@dataclass
class Config:
    """All settings of a run."""

    recipe: str = setting("dapt", "name of the recipe that is run")
    seed: Seed = setting(0, "seed of everything random")
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    task: Task = field(default_factory=Task)
    embed: Embed = field(default_factory=Embed)
    adapt: Adapt = field(default_factory=Adapt)
    train: Train = field(default_factory=Train)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    vocab: Vocab = field(default_factory=Vocab)
    select: Select = field(default_factory=Select)
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

    def check(self, value: Any, called: str = "") -> None:
        """Raise a `UserError` where `value` is impossible.

        Args:
          value: of the field.
          called: the name in messages; empty: that of the field.
        """
        called = called or self.name
        if value is None and self.optional:
            return
        if value is None or not self._has_type(value):
            wrong = value
            if self.element_type and isinstance(value, tuple):  # the tuple is right, and one in it is not
                wrong = next(one for one in value if not _is_a(one, self.element_type))
            named = f" ({wrong!r})" if wrong is not value else ""
            raise UserError(f"{called}={value!r}: must be {self.possible}, not {type(wrong).__name__}{named}")
        if self.choices and value not in self.choices:
            raise UserError(f"{called}={value!r}: must be {self.possible}{did_you_mean(value, self.choices)}")
        numbers = value if self.element_type in (int, float) else [value] if self.value_type in (int, float) else []
        if not all(math.isfinite(number) and self.low <= number <= self.high for number in numbers):
            raise UserError(f"{called}={value}: must be {self.possible}")

    def _has_type(self, value: Any) -> bool:
        if self.element_type:
            return isinstance(value, tuple) and all(_is_a(one, self.element_type) for one in value)
        return _is_a(value, self.value_type)


_SINGULAR = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
_PLURAL = {int: "integers", float: "numbers", str: "texts"}


def _is_a(value: Any, kind: type) -> bool:
    """Return whether a value has a type; True is no integer, and an integer will do for a float."""
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


def check_value(name: str, value: Any, called: str = "") -> None:
    """Raise a `UserError` where the field `name` may not have `value`; `called` is its name in the message, if it has another one."""
    field_infos()[name].check(value, called)


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("train.steps", 500), ... for every leaf field of a (nested) dataclass."""
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            yield from flatten(value, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, value


def as_flag(name: str, value: Any) -> str:
    """Return the flag that gives the field `name` a value: "--config.train.steps=5". A shell needs it quoted."""
    return f"--config.{name}={str(value).lower() if isinstance(value, bool) else value}"


def fields_matching(patterns: Iterable[str]) -> list[FieldInfo]:
    """Return the fields whose dotted names match any of the patterns, such as "train.*", in the order of the dataclasses."""
    patterns = tuple(patterns)
    return [info for name, info in field_infos().items() if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def check_field(name: str) -> None:
    """Raise a `UserError` that names the nearest field if there is no field `name` (dotted)."""
    names = field_infos().keys()
    if name in names:
        return
    by_leaf = [path for path in names if path.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    near = by_leaf or difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else f"; sections: {', '.join(sorted({n.split('.')[0] for n in names}))}"
    raise UserError(f"unknown field {name}{hint}")


def validate(config: Config) -> None:
    """Raise a `UserError` for the first impossible value; the message names the field, the value and what is possible.

    This holds for every recipe. What goes together in one recipe is checked by `checks.py` in its folder.
    """
    for entry in dataclasses.fields(config):
        value, expected = getattr(config, entry.name), entry.type
        if isinstance(expected, type) and dataclasses.is_dataclass(expected) and not isinstance(value, expected):
            raise UserError(f"{entry.name}={value!r}: must be a jaxplm.config.{expected.__name__}, not {type(value).__name__}")
    for name, value in flatten(config):
        check_value(name, value)
    for axis, size in flatten(config.mesh):
        if size == 0:
            raise UserError(f"mesh.{axis}=0: must be -1 (what is left) or at least 1")
