"""The corpus of a pre-training run as batches: opened, tokenized, packed, masked."""

import dataclasses
import functools
import hashlib
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxplm.config import Config
from jaxplm.data.corpus.holdout import hold_out
from jaxplm.data.corpus.store import TokenStore
from jaxplm.data.corpus.tokenize import tokenize
from jaxplm.data.mlm.batches import FixedMaskBatches, MlmBatches
from jaxplm.data.mlm.mask import Masking
from jaxplm.data.mlm.rows import Plan, SpecialIds
from jaxplm.data.mlm.schedule import MaskRate, SeqLenSchedule, SeqLenScheduledBatches
from jaxplm.data.mlm.sentence_pairs import sentence_ends
from jaxplm.data.sources.builtin import brings
from jaxplm.data.sources.same_files import same_files
from jaxplm.data.sources.texts import open_corpus
from jaxplm.engine.setup import steps_in
from jaxplm.errors import UserError
from jaxplm.tasks.objectives import RowSettings, selected_objective

log = logging.getLogger("jaxplm")

# Evaluation masks are drawn with this seed whatever the run's own is, so that runs can be compared.
EVAL_SEED = 20_040_964


@dataclass(frozen=True)
class Corpus:
    """The batches of a run, and what there is to say about them."""

    train: MlmBatches | SeqLenScheduledBatches
    evaluations: dict[str, FixedMaskBatches]  # 'validation', and 'general' if it was asked for
    facts: dict[str, str]
    fingerprint: str  # of all texts that were read
    max_segments_per_row: int  # at most, in training and evaluation


class CorpusReader:
    """Opens, tokenizes and packs the texts of a config as its objective needs them, and makes batches of this process's rows.

    Args:
      local_rows: which of the `train.batch_size` rows of a batch this process builds.

    Attributes:
      masking: of evaluation: the rate `data.mask_rate`, and no preferred tokens.
      fingerprints: of the sources opened so far.

    Raises:
      UserError: the tokenizer lacks a special token.
    """

    def __init__(self, config: Config, tokenizer: Any, local_rows: np.ndarray) -> None:
        ids = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id]
        if None in ids:
            raise UserError("the tokenizer lacks one of the special tokens cls, sep, pad, mask: MLM needs all four")
        self._data = config.data
        self._batch_size = config.train.batch_size
        self._seed = config.seed
        self._objective = selected_objective(config.model.pairs)
        self._tokenizer = tokenizer
        self._local_rows = local_rows
        self.fingerprints: list[str] = []
        special = SpecialIds(*ids, unk=-1 if tokenizer.unk_token_id is None else tokenizer.unk_token_id)
        outside = set(tokenizer.all_special_ids)
        random_ids = np.array([i for i in range(len(tokenizer)) if i not in outside], np.int32)
        self.masking = Masking(MaskRate.constant(config.data.mask_rate), config.data.whole_word, special, random_ids)

    def store(self, spec: str, split: str = "train", max_rows: int | None = None) -> TokenStore:
        """Return the tokens of the texts that `spec` names, from the cache where they are in it."""
        texts = open_corpus(self._data, spec, split=split, max_rows=max_rows)
        self.fingerprints.append(texts.fingerprint)
        return tokenize(texts, self._tokenizer)

    def plan(self, store: TokenStore, seed: int = 0, texts: np.ndarray | None = None, seq_len: int | None = None) -> Plan:
        """Return the rows of a store, of `data.seq_len` tokens where `seq_len` is None, as the config's objective needs them."""
        length = seq_len or self._data.seq_len
        return self._objective.plan(store, RowSettings(length, self._data.packing, seed, texts, lambda: self._sentence_ends))

    @functools.cached_property
    def _sentence_ends(self) -> np.ndarray:
        return sentence_ends(self._tokenizer.convert_ids_to_tokens(range(len(self._tokenizer))))

    def training(self, plan: Plan, masking: Masking | None = None, first_step: int = 0) -> MlmBatches:
        """Return training batches of a plan's rows; `masking` None is that of evaluation. See `MlmBatches` for `first_step`."""
        return MlmBatches(plan, masking or self.masking, batch_size=self._batch_size, seed=self._seed, local_rows=self._local_rows,
                          first_step=first_step)

    def evaluation(self, plan: Plan) -> FixedMaskBatches:
        """Return evaluation batches of a plan's rows, of at most `data.eval_rows` of them."""
        return FixedMaskBatches(plan, self.masking, batch_size=self._batch_size, seed=EVAL_SEED, max_rows=self._data.eval_rows,
                                local_rows=self._local_rows)


def load_corpus(config: Config, tokenizer: Any, local_rows: np.ndarray, prefer_from: int | None = None) -> Corpus:
    """Return training and evaluation batches of a config.

    Without `data.validation` a built-in corpus brings its own validation split; from anything else a fixed share of
    the texts is held out, and the log says so.

    Args:
      local_rows: as for `CorpusReader`.
      prefer_from: training masks prefer tokens of this id and above (`vocab.mask_new`). Evaluation masks prefer none, and
        have the rate `data.mask_rate` in rows of `data.seq_len`.

    Raises:
      UserError: a training file is also given as test, or there is nothing to train on.
    """
    data = config.data
    if data.test and (shared := same_files(data.train, data.test)):
        raise UserError(f"{shared[0]} is given as data.train and as data.test: further pre-training must not see the test texts")
    reader = CorpusReader(config, tokenizer, local_rows)
    store = reader.store(data.train, max_rows=data.max_rows)
    chosen: np.ndarray | None = None
    if data.validation or brings(data.train, "validation"):
        source = data.validation or data.train
        held_plan = reader.plan(reader.store(source, split="validation"))
    else:
        chosen, rest = hold_out(store, data.held_out)
        source = f"{len(rest):,} of the {len(rest) + len(chosen):,} texts of {data.train}"
        log.info("no data.validation: %s are held out", source)
        held_plan = reader.plan(store, texts=rest)
    plan = reader.plan(store, config.seed, chosen)
    train, rows = _training(config, reader, store, plan, chosen, prefer_from)
    evaluations = {"validation": reader.evaluation(held_plan)}
    max_segments_per_row = max(train.max_segments_per_row, held_plan.max_segments)
    facts = {
        "training text": f"{data.train}: {len(store.offsets) - 1 if chosen is None else len(chosen):,} texts, {plan.tokens:,} tokens",
        "rows": rows,
        "validation text": f"{source}: {held_plan.tokens:,} tokens",
    }
    if data.general:
        general_plan = reader.plan(reader.store(data.general, split="validation"))
        evaluations["general"] = reader.evaluation(general_plan)
        max_segments_per_row = max(max_segments_per_row, general_plan.max_segments)
        facts["general text"] = f"{data.general}: {general_plan.tokens:,} tokens"
    fingerprint = hashlib.sha256("\n".join(reader.fingerprints).encode()).hexdigest()[:16]
    return Corpus(train, evaluations, facts, fingerprint, max_segments_per_row)


def _training(config: Config, reader: CorpusReader, store: TokenStore, plan: Plan, texts: np.ndarray | None,
              prefer_from: int | None) -> tuple[MlmBatches | SeqLenScheduledBatches, str]:
    """Return training batches by the schedules of a config, and what the report says of their rows.

    The steps of a run are counted as the loop counts them.
    """
    data, train = config.data, config.train

    def described(plan: Plan) -> str:
        return f"{plan.rows:,} × {plan.seq_len}, {plan.fill:.1%} full"

    short = reader.plan(store, config.seed, texts, data.short_len) if data.short_len else None
    schedule = SeqLenSchedule(data.short_share, short.rows / train.batch_size, plan.rows / train.batch_size) if short else None
    steps = steps_in(train, schedule.steps_per_epoch if schedule else plan.rows / train.batch_size)
    rate = MaskRate(data.mask_rate, data.mask_rate if data.mask_rate_end is None else data.mask_rate_end, steps)
    masking = dataclasses.replace(reader.masking, rate=rate, prefer_from=prefer_from)
    if short is None or schedule is None:
        return reader.training(plan, masking), described(plan)
    both = SeqLenScheduledBatches(reader.training(short, masking), lambda first: reader.training(plan, masking, first), schedule, steps)
    return both, f"{described(short)}, for {both.short_steps:,} steps; then {described(plan)}"
