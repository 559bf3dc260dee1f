"""jaxplm adapts pre-trained BERT and RoBERTa encoders to a domain. The command is `python -m jaxplm.main`."""

from jaxplm.version import VERSION as __version__

# As type checkers read it. Without `typing`, which takes longer to import than all else here, the command answers Ctrl-C earlier.
TYPE_CHECKING = False

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    import numpy as np
    from transformers import PreTrainedTokenizerFast

    from jaxplm.config import Precision, VectorPooling, VectorType
    from jaxplm.library.results import RunResult
    from jaxplm.nn import MaskedLM, TaskModel
    from jaxplm.reporting.comparison.comparison import Comparison

__all__ = ["__version__", "compare", "embed", "load", "run"]


def load(path: "str | os.PathLike[str]") -> "tuple[MaskedLM | TaskModel, PreTrainedTokenizerFast]":
    """Load a model and its tokenizer from a run's export, any directory in transformers' format, a hub id or builtin:tiny.

    A directory with the head of a task gives a `TaskModel`, whose `labels` are the names of its classes; any other
    gives a `MaskedLM`.

    >>> model, tokenizer = jaxplm.load("builtin:tiny")
    >>> batch = tokenizer(["The [MASK] sat by the fire."], return_tensors="np")
    >>> logits = model.mlm_logits(batch["input_ids"], batch["attention_mask"])  # [B, L, V] float32

    >>> model, tokenizer = jaxplm.load("runs/finetune/export")
    >>> scores = model.logits(**tokenizer(["a text", "another one"], padding=True, return_tensors="np"))  # [B, C] float32
    >>> [model.labels[i] for i in scores.argmax(-1)]

    Raises:
      jaxplm.errors.UserError: nothing there, a pickle, an unsupported architecture, weights that do not fit.
    """
    # Imported here: `import jaxplm` alone should not wait for JAX.
    import jax
    import jax.numpy as jnp

    from jaxplm import hf, nn
    from jaxplm.tasks.kinds import KINDS

    loaded = hf.load_model(str(path), KINDS)
    if isinstance(loaded, hf.LoadedTask):
        graph, _ = nn.abstract_task_model(loaded.config, loaded.head, loaded.labels)
    else:
        graph, _ = nn.abstract_model(loaded.config)
    return nn.merge_params(graph, jax.tree.map(jnp.asarray, loaded.params)), loaded.tokenizer


def embed(texts: "Iterable[str]", path: "str | os.PathLike[str]", pooling: "VectorPooling" = "mean", layers: str | int = "last",
          normalize: bool = False, *, mix: tuple[float, ...] = (), dtype: "VectorType" = "float32", seq_len: int | None = None,
          batch_size: int = 32, compute: "Precision" = "bfloat16") -> "np.ndarray":
    """Return vectors of texts by the encoder at `path`: [n, D], row i that of text i.

    >>> vectors = jaxplm.embed(["a text", "another one"], "runs/dapt/export", pooling="mean")  # [2, D] float32

    The numbers are those of `configs/embed.py`, which writes them to files for a corpus of any size. Texts are taken
    without white space at their ends; an empty one has the vector of [CLS] and [SEP] alone.

    Args:
      texts: any number of them.
      path: as in `load`.
      pooling: mean or max over all tokens of a text, special ones too, or cls (the first token), as in
        sentence-transformers.
      layers: last, last4 (the mean of the last four), mean (of all), or a number: 0 = embeddings, -1 = last.
      normalize: to length 1.
      mix: weights of the embeddings and all N layers instead of `layers`; divided by their sum.
      dtype: float32 or float16, of the result.
      seq_len: tokens at which longer texts are cut, special ones included; None: the model's positions, at most 512.
      batch_size: rows of tokens computed at once; texts share rows.
      compute: bfloat16 or float32; see `jaxplm.devices.compute.resolve_compute`.

    Raises:
      jaxplm.errors.UserError: a single str, something that is no str, a setting or a model that cannot be used.
    """
    from jaxplm.config import Embed
    from jaxplm.recipes.embed import in_memory

    settings = Embed(pooling, str(layers), tuple(mix), normalize, dtype)
    return in_memory.embed(texts, str(path), settings, seq_len=seq_len, batch_size=batch_size, compute=compute)


def run(recipe: "str | os.PathLike[str]", *, workdir: "str | os.PathLike[str] | None" = None,
        fields: "Mapping[str, Any] | None" = None) -> "RunResult":
    """Run a recipe in this process, as the command does, and return its scores and paths.

    >>> result = jaxplm.run("dapt", workdir="runs/x", fields={"model.path": "roberta-base", "data.train": "corpus/*.txt"})
    >>> result.best["validation"]["loss"]
    >>> model, tokenizer = jaxplm.load(result.export)

    The workdir is that of the command `jaxplm --config=dapt --workdir=runs/x --config.model.path=roberta-base ...`:
    the same call or the same command resumes a run that was stopped, and a finished run returns its result at once.

    Args:
      recipe: its name, or the path of a config file.
      workdir: where the run is kept; None: runs/<recipe>.
      fields: values of fields by their dotted names. A list is taken as a tuple, and a path as text.

    Raises:
      jaxplm.errors.UserError: what the command answers with one line: a field or a value that there is not, data or a
        model that cannot be used, a workdir of another config or of a run that is going on.
      KeyboardInterrupt: stopped by Ctrl-C; from the first step on the run has been saved. After SIGTERM it is a
        `jaxplm.devices.stop_signals.Terminated`, a kind of KeyboardInterrupt.
    """
    from jaxplm.library import running

    return running.run(recipe, workdir, fields or {})


def compare(*, workdir: "str | os.PathLike[str] | None" = None, ways: "Sequence[str] | None" = None,
            fields: "Mapping[str, Any] | None" = None) -> "Comparison":
    """Compare ways to adapt an encoder to a task, as `configs/adapt.py` does, and return what the report shows.

    >>> comparison = jaxplm.compare(workdir="runs/which", ways=("base", "dapt", "tapt"), fields={
    ...     "model.path": "roberta-base", "task.kind": "classify", "data.corpus": "corpus/*.txt",
    ...     "data.train": "train.jsonl", "data.validation": "dev.jsonl", "data.test": "test.jsonl"})
    >>> for way in comparison.ways:
    ...     print(way.name, [run.test[comparison.metric] for run in way.runs])

    Each stage is a process of its own; this one starts no device. `report.html` and `report.md` are in the workdir.

    Args:
      workdir: where the comparison is kept; None: runs/adapt.
      ways: those of the field adapt.ways; None: as fields or the config file have them.
      fields: values of fields by their dotted names, as in `run`.

    Raises:
      jaxplm.errors.UserError, KeyboardInterrupt: as `run`. A stage that fails is no error: its way has a `failure`.
    """
    from jaxplm.library import comparing

    return comparing.compare(workdir, ways, fields or {})
