"""What a comparison of ways found: everything that its report shows, and `comparison.json` holds."""

from dataclasses import dataclass

from jaxplm.scores.row_parts import RowParts


@dataclass(frozen=True)
class Cost:
    """What a stage, or several of them, cost.

    Attributes:
      tokens: real tokens trained on, in all steps; embedded ones where a stage embeds texts.
      flops: floating-point operations of these, by the model's size.
      seconds: wall time.
      joules: energy by the device's own counters; None where it has none.
    """

    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    joules: float | None = None


@dataclass(frozen=True)
class Run:
    """One seed of one way's training on the task.

    Attributes:
      seed: of the run.
      validation, test: scores by their names, as in metrics.jsonl; `test` is empty without a test set.
      curve: (step, validation score by the comparison's metric), in the order of the steps.
      parts: what the metric on the test set is made of, row by row, see `jaxplm.tasks.row_parts.parts_of`; None without a test set.
    """

    seed: int
    validation: dict[str, float]
    test: dict[str, float]
    curve: tuple[tuple[int, float], ...] = ()
    parts: RowParts | None = None


@dataclass(frozen=True)
class Way:
    """One row of the table: how the encoder was prepared, and how the task was learned on it.

    Attributes:
      name: "base", "dapt+tapt".
      method: "finetune" or "feature_extraction".
      runs: one per seed; empty where a stage failed.
      failure: the failed stage and the last line of its log; empty where none did.
      learning_rate: the chosen one.
      tried: (learning rate, validation score) of all that were tried.
      preparation: cost of all stages before the task, those shared with other ways included.
      training: cost of the task's stages, the search for the learning rate included.
      trained_parameters: of the task's training.
      few: (rows of the training set, runs on so many), in rising order, without the whole set.
      commands: what repeats the way by hand, in order.
    """

    name: str
    method: str
    runs: tuple[Run, ...] = ()
    failure: str = ""
    learning_rate: float = 0.0
    tried: tuple[tuple[float, float], ...] = ()
    preparation: Cost = Cost()
    training: Cost = Cost()
    trained_parameters: int = 0
    few: tuple[tuple[int, tuple[Run, ...]], ...] = ()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Encoder:
    """A prepared encoder, with its losses of masked language modelling: before its first step, and as exported.

    Attributes:
      name: the stage, "dapt".
      domain: (before, after) on held-out text that the stage trains on; None where it was not measured.
      general: (before, after) on general text that was never trained on: the forgetting meter.
      curve: (step, domain loss, general loss or NaN), in the order of the steps.
    """

    name: str
    domain: tuple[float, float] | None = None
    general: tuple[float, float] | None = None
    curve: tuple[tuple[int, float, float], ...] = ()


@dataclass(frozen=True)
class Vocabularies:
    """How similar texts are in their words, and how the tokenizer splits them.

    Attributes:
      names: of the text sets: "corpus", "task", "general".
      overlap: [S, S], share of the most frequent words that two sets have in common (Gururangan et al. 2020, figure 2).
      top_words: how many words of each set were compared, stop words left out.
      fertility: tokens per word of each set.
      unknown: share of [UNK] among each set's tokens.
    """

    names: tuple[str, ...]
    overlap: tuple[tuple[float, ...], ...]
    top_words: int
    fertility: tuple[float, ...]
    unknown: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """All ways that were compared on one task.

    Attributes:
      metric: name of the score that decides, as in metrics.jsonl.
      higher_is_better: which way it is better.
      kind: the task's kind, "classify".
      ways: in the order that they were asked for.
      encoders: those that were trained by masked language modelling.
      vocabularies: of the corpus, the task and the general text; None where there is no text to compare.
      settings: (name, value) lines: model, corpus, task, rows, seeds.
      notes: warnings that a reader must know: overlap of sets, texts removed.
      hardware: "2 × cpu", and versions.
      command: what repeats the comparison.
      complete: whether every stage has ended, well or not.
      few_rows: sizes of the smaller training sets.
      train_rows, test_rows: labelled rows of the whole training set and of the test set; 0 where there is none or it is not known.
    """

    metric: str
    higher_is_better: bool
    kind: str
    ways: tuple[Way, ...]
    encoders: tuple[Encoder, ...] = ()
    vocabularies: Vocabularies | None = None
    settings: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    hardware: str = ""
    command: str = ""
    complete: bool = True
    few_rows: tuple[int, ...] = ()
    train_rows: int = 0
    test_rows: int = 0
