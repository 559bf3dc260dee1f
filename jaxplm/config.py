"""Every setting there is, with its type and default. `configs/*.py` return a `Config`; flags override its fields."""

import dataclasses
import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from jaxplm.errors import UserError


@dataclass
class Model:
    path: str = "builtin:tiny"  # directory in transformers' format, hub id, builtin:tiny; empty: random weights
    dropout: float | None = None  # None: the checkpoint's
    attention_dropout: float | None = None
    # The next three are read only where `path` is empty.
    size: str = "tiny"  # see jaxplm.recipes.pretrain.new_model.SIZES
    max_positions: int = 512
    tokenizer: str = ""  # directory of a tokenizer; empty: one is trained on the corpus
    pairs: str = ""  # nsp (next sentence) or sop (sentence order): a second objective on pairs of sentences; empty: none
    extension: float = 0.33  # exbert: width of the extension module, as a share of the base's


@dataclass
class Data:
    train: str = ""
    validation: str = ""  # empty: `held_out` of train
    test: str = ""
    general: str = ""  # general text whose MLM loss is followed as well
    lines: str = "auto"  # .txt: true = one text a line, false = texts between blank lines
    text: str = "text"
    text_pair: str = ""
    label: str = "label"
    tokens: str = "tokens"  # tagging: columns of token and tag lists (CoNLL files need neither)
    tags: str = "tags"
    seq_len: int = 128
    packing: str = "documents"  # documents: texts share rows but never see each other; stream: contiguous
    mask_rate: float = 0.15
    mask_rate_end: float | None = None  # the rate moves linearly to this one over the run; None: it stays
    whole_word: bool = False
    short_len: int = 0  # rows of the first `short_share` of the steps have so many tokens; 0: all have seq_len
    short_share: float = 0.9
    max_rows: int | None = None  # use at most so many texts of train
    held_out: float = 0.05  # share of train held out where no validation set is given
    eval_rows: int = 1000  # at most so many packed rows an evaluation


@dataclass
class Task:
    kind: str = ""  # classify, multilabel, regress, tag, qa; empty: masked language modelling
    pooling: str = "cls"  # cls, mean, max: a text's vector, from its tokens'
    layers: str = "last"  # last, last4 (the mean of the last four), mix (a learned mix of all; Peters et al. 2018)
    body: str = ""  # tagging: lstm or transformer between the vectors and the output; empty: nothing
    body_width: int = 256
    dropout: float | None = None  # of the head; None: the checkpoint's
    label_smoothing: float = 0.0
    class_weights: str = "none"  # balanced: each class counts alike in the loss
    overlap: int = 32  # tokens that two windows of a long text share (tag, qa)
    max_answer: int = 30  # tokens of an answer, at most (qa)
    rules: str = "squad"  # how answers are compared (qa): squad (words) or korquad (characters)
    cache: str = "auto"  # vectors of a frozen encoder are computed once: auto, on, off


@dataclass
class Train:
    steps: int | None = None  # exactly one of steps and epochs
    epochs: float | None = None
    batch_size: int = 32  # rows a step, over all devices; in labelled tasks texts, on average
    accumulate: int = 1  # the step is computed in so many parts
    learning_rate: float = 1e-4
    warmup: float = 0.06  # below 1: share of the steps; else: steps
    schedule: str = "linear"  # linear, cosine, constant
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    clip: float = 1.0  # global norm; 0 = off
    layer_decay: float = 1.0  # learning rate of block i: × layer_decay^(N - i)
    freeze: tuple[str, ...] = ()  # regular expressions over parameter paths
    seeds: tuple[int, ...] = ()  # several runs in one command
    eval_every: int = 100
    metric: str = ""  # picks the best checkpoint; empty: the task's usual one
    patience: int = 0  # evaluations without gain before the run ends; 0 = never
    reinit_layers: int = 0  # so many top blocks start from random weights (Zhang et al. 2021)
    unfreeze_every: int = 0  # steps after which one block more, from the top, is trained (Howard & Ruder 2018); 0: all at once
    log_every: int = 10
    max_bad_steps: int = 10  # so many non-finite steps in a row end the run


@dataclass
class Checkpoint:
    every: int = 100
    keep: int = 2


@dataclass
class Vocab:
    # A new vocabulary (configs/scratch.py), read only where `model.path` is empty.
    size: int = 8192
    kind: str = "wordpiece"  # wordpiece, bpe (byte-level), unigram
    language: str = "auto"  # auto (by the corpus's script), latin, korean
    cased: bool = False
    # Added to an old one (configs/extend_vocab.py, configs/exbert.py).
    new_tokens: int = 300
    terms: str = ""  # a file of terms, one a line: added first
    min_texts: int = 3  # a token found in the corpus must occur in so many texts
    init: str = "subword_mean"  # how new rows start: subword_mean, mean, normal
    new_rows_first: int = 0  # so many steps train the new rows alone
    mask_new: bool = False  # masks fall on words with new tokens first


@dataclass
class Embed:
    pooling: str = "mean"  # cls, mean, max; none: a vector for every token
    layers: str = "last"  # last, last4 (the mean of the last four), mean (of all), or a number: 0 = embeddings, 1 = first block, -1 = last
    mix: tuple[float, ...] = ()  # weights of the N + 1 layers instead; normalised to sum 1
    normalize: bool = False  # to length 1
    dtype: str = "float32"  # or float16, of the files
    shard_rows: int = 65536  # vectors a file


@dataclass
class Mesh:
    data: int = -1  # -1 takes the devices that are left
    fsdp: int = 1
    tensor: int = 1


@dataclass
class Compute:
    dtype: str = "bfloat16"  # bfloat16 or float32
    unroll: bool = True  # blocks one after the other instead of a loop: faster steps, longer compilation
    attention: str = "auto"  # auto: a flash kernel where there is one, in parts on a CPU; flash: that or an error; plain
    remat: str = "none"  # what the backward pass makes again to save memory: none, dots (all but the products), blocks (all)
    logit_parts: int = 1  # the masked positions of a row are projected onto the vocabulary in so many parts, to save memory


@dataclass
class Config:
    recipe: str = "dapt"
    seed: int = 0
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    task: Task = field(default_factory=Task)
    embed: Embed = field(default_factory=Embed)
    train: Train = field(default_factory=Train)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    vocab: Vocab = field(default_factory=Vocab)
    mesh: Mesh = field(default_factory=Mesh)
    compute: Compute = field(default_factory=Compute)


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """('train.steps', 500), ... for every leaf field of a (nested) dataclass."""
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            yield from flatten(value, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, value


def check_field(name: str) -> None:
    """Raise a `UserError` that names the nearest field if there is no field `name` (dotted)."""
    names = [path for path, _ in flatten(Config())]
    if name in names:
        return
    by_leaf = [path for path in names if path.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    near = by_leaf or difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else f"; sections: {', '.join(sorted({n.split('.')[0] for n in names}))}"
    raise UserError(f"unknown field {name}{hint}")


CHOICES = {
    "data.lines": ("auto", "true", "false"),
    "data.packing": ("documents", "stream"),
    "train.schedule": ("linear", "cosine", "constant"),
    "task.kind": ("", "classify", "multilabel", "regress", "tag", "qa"),
    "task.pooling": ("cls", "mean", "max"),
    "task.layers": ("last", "last4", "mix"),
    "task.body": ("", "lstm", "transformer"),
    "task.class_weights": ("none", "balanced"),
    "task.rules": ("squad", "korquad"),
    "task.cache": ("auto", "on", "off"),
    "model.pairs": ("", "nsp", "sop"),
    "vocab.kind": ("wordpiece", "bpe", "unigram"),
    "vocab.language": ("auto", "latin", "korean"),
    "vocab.init": ("subword_mean", "mean", "normal"),
    "embed.pooling": ("cls", "mean", "max", "none"),
    "embed.dtype": ("float32", "float16"),
    "compute.dtype": ("bfloat16", "float32"),
    "compute.attention": ("auto", "plain", "flash"),
    "compute.remat": ("none", "dots", "blocks"),
}
# name: (lowest, highest), both allowed
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**31 - 1), "model.dropout": (0, 0.99), "model.attention_dropout": (0, 0.99), "model.max_positions": (8, 2**20),
    "data.seq_len": (8, 2**20), "data.mask_rate": (0.01, 0.9), "data.max_rows": (1, math.inf),
    "data.held_out": (0.001, 0.5), "data.eval_rows": (1, math.inf), "train.steps": (0, math.inf),
    "train.epochs": (1e-6, math.inf), "train.batch_size": (1, math.inf), "train.accumulate": (1, math.inf),
    "train.learning_rate": (0, 10), "train.warmup": (0, math.inf), "train.weight_decay": (0, 10),
    "train.beta1": (0, 0.99999), "train.beta2": (0, 0.9999999), "train.epsilon": (1e-15, 1), "train.clip": (0, math.inf),
    "train.layer_decay": (0.01, 1), "train.eval_every": (1, math.inf), "train.patience": (0, math.inf),
    "task.body_width": (8, 2**14), "task.dropout": (0, 0.99), "task.label_smoothing": (0, 0.9), "task.overlap": (0, 2**20),
    "task.max_answer": (1, 2**20), "train.reinit_layers": (0, 1000), "train.unfreeze_every": (0, math.inf),
    "embed.shard_rows": (1, math.inf), "train.log_every": (1, math.inf), "train.max_bad_steps": (1, math.inf),
    "checkpoint.every": (1, math.inf),
    "checkpoint.keep": (1, math.inf), "vocab.size": (256, 2**22), "vocab.new_tokens": (0, 2**20),
    "vocab.min_texts": (1, math.inf), "vocab.new_rows_first": (0, math.inf), "model.extension": (0.05, 1),
    "data.mask_rate_end": (0.01, 0.9), "data.short_len": (0, 2**20), "data.short_share": (0.01, 0.99),
    "compute.logit_parts": (1, 2**20), "mesh.data": (-1, math.inf), "mesh.fsdp": (-1, math.inf), "mesh.tensor": (-1, math.inf),
}


def _check_types(config: Any, prefix: str = "") -> None:
    """Flags are converted by their parser; what a config file gives is taken as it is, so it is looked at here."""
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value) and isinstance(value, kind):
            _check_types(value, f"{prefix}{name}.")
        elif not _fits(value, kind):
            raise UserError(f"{prefix}{name}={value!r}: must be {getattr(kind, '__name__', kind)}, not {type(value).__name__}")


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(one, get_args(kind)[0]) for one in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def validate(config: Config) -> None:
    """Raise a `UserError` for the first impossible value; the message names the field, the value and what is possible."""
    _check_types(config)
    values = dict(flatten(config))
    for name, allowed in CHOICES.items():
        if values[name] not in allowed:
            near = difflib.get_close_matches(str(values[name]), allowed, n=1)
            raise UserError(f"{name}={values[name]!r}: must be one of {', '.join(allowed)}"
                            + (f"; did you mean {near[0]}?" if near else ""))
    for name, (low, high) in RANGES.items():
        value = values[name]
        if value is not None and not (math.isfinite(value) and low <= value <= high):
            bound = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
            raise UserError(f"{name}={value}: must be {bound}")
    for name in ("mesh.data", "mesh.fsdp", "mesh.tensor"):
        if values[name] == 0:
            raise UserError(f"{name}=0: must be -1 (what is left) or at least 1")
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
    highest = int(RANGES["seed"][1])
    if len(set(train.seeds)) != len(train.seeds) or any(not 0 <= seed <= highest for seed in train.seeds):
        raise UserError(f"train.seeds={train.seeds}: must be different numbers, not below 0 and not above {highest}")
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
