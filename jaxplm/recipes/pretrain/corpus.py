"""The corpus of a pre-training run as batches: opened, tokenized, packed, masked."""

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
from jaxplm.data.mlm.pack import RowPlan, SpecialIds
from jaxplm.data.mlm.schedule import Lengths, MaskRate, ShortThenLong
from jaxplm.data.mlm.sentence_pairs import PairPlan, sentence_ends
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

    train: MlmBatches | ShortThenLong
    evaluations: dict[str, FixedMaskBatches]  # 'validation', and 'general' if it was asked for
    facts: dict[str, str]
    fingerprint: str  # of all texts that were read
    max_segments_per_row: int  # at most, in training and evaluation


class Tokenized:
    """Opens, tokenizes and packs the sources of a config; `slots` are the rows of a batch that this process makes."""

    def __init__(self, config: Config, tokenizer: Any, slots: np.ndarray) -> None:
        ids = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id]
        if None in ids:
            raise UserError("the tokenizer lacks one of the special tokens cls, sep, pad, mask: MLM needs all four")
        self._data, self._tokenizer, self._slots = config.data, tokenizer, slots
        self._objective = selected_objective(config.model.pairs)
        self.fingerprints: list[str] = []  # of the sources opened so far
        self.special = SpecialIds(*ids, unk=-1 if tokenizer.unk_token_id is None else tokenizer.unk_token_id)
        outside = set(tokenizer.all_special_ids)
        self.random_ids = np.array([i for i in range(len(tokenizer)) if i not in outside], np.int32)

    def store(self, spec: str, split: str = "train", max_rows: int | None = None) -> TokenStore:
        texts = open_corpus(self._data, spec, split=split, max_rows=max_rows)
        self.fingerprints.append(texts.fingerprint)
        return tokenize(texts, self._tokenizer)

    def plan(self, store: TokenStore, seed: int, texts: np.ndarray | None = None, seq_len: int | None = None) -> RowPlan | PairPlan:
        """The rows of a store, of `data.seq_len` tokens where `seq_len` is None; those that the config's objective is for."""
        length = seq_len or self._data.seq_len
        return self._objective.plan(store, RowSettings(length, self._data.packing, seed, texts, lambda: self._sentence_ends))

    @functools.cached_property
    def _sentence_ends(self) -> np.ndarray:
        return sentence_ends(self._tokenizer.convert_ids_to_tokens(range(len(self._tokenizer))))

    def training(self, store: TokenStore, plan: RowPlan | PairPlan, batch_size: int, seed: int, *,
                 mask_rate: float | MaskRate | None = None, prefer_from: int | None = None, first_step: int = 0) -> MlmBatches:
        """Batches of the plan's rows; `mask_rate` None is the config's at the start. See `MlmBatches` for the rest."""
        return MlmBatches(store, plan, self.special, self.random_ids, batch_size=batch_size, seq_len=plan.seq_len,
                          mask_rate=self._data.mask_rate if mask_rate is None else mask_rate, whole_word=self._data.whole_word,
                          seed=seed, slots=self._slots, prefer_from=prefer_from, first_step=first_step)

    def frozen(self, store: TokenStore, plan: RowPlan | PairPlan, batch_size: int) -> FixedMaskBatches:
        return FixedMaskBatches(store, plan, self.special, self.random_ids, batch_size=batch_size,
                             seq_len=self._data.seq_len, mask_rate=self._data.mask_rate, whole_word=self._data.whole_word,
                             eval_seed=EVAL_SEED, max_rows=self._data.eval_rows, slots=self._slots)


def load_corpus(config: Config, tokenizer: Any, slots: np.ndarray, prefer_from: int | None = None) -> Corpus:
    """Training and evaluation batches of a config. Masks of training prefer tokens of the id `prefer_from` and above
    (`vocab.mask_new`); those of evaluation prefer none, and have the rate `data.mask_rate` in rows of `data.seq_len`.

    Without `data.validation` a built-in corpus brings its own validation split; from anything else a fixed share of
    the texts is held out, and the log says so. Raises UserError for a training file that is also given as test.
    """
    data, batch = config.data, config.train.batch_size
    if data.test and (shared := same_files(data.train, data.test)):
        raise UserError(f"{shared[0]} is given as data.train and as data.test: further pre-training must not see the test texts")
    maker = Tokenized(config, tokenizer, slots)
    store = maker.store(data.train, max_rows=data.max_rows)
    chosen: np.ndarray | None = None
    if data.validation or (data.train.startswith("builtin:") and "," not in data.train):
        source = data.validation or data.train
        held = maker.store(source, split="validation")
        held_plan = maker.plan(held, 0)
    else:
        chosen, rest = hold_out(store, data.held_out)
        source = f"{len(rest):,} of the {len(rest) + len(chosen):,} texts of {data.train}"
        log.info("no data.validation: %s are held out", source)
        held, held_plan = store, maker.plan(store, 0, rest)
    plan = maker.plan(store, config.seed, chosen)
    train, rows = _training(config, maker, store, plan, chosen, prefer_from)
    evaluations = {"validation": maker.frozen(held, held_plan, batch)}
    max_segments_per_row = max(train.max_segments_per_row, held_plan.max_segments)
    facts = {
        "training text": f"{data.train}: {len(store.offsets) - 1 if chosen is None else len(chosen):,} texts, {plan.tokens:,} tokens",
        "rows": rows,
        "validation text": f"{source}: {held_plan.tokens:,} tokens",
    }
    if data.general:
        general = maker.store(data.general, split="validation")
        general_plan = maker.plan(general, 0)
        evaluations["general"] = maker.frozen(general, general_plan, batch)
        max_segments_per_row = max(max_segments_per_row, general_plan.max_segments)
        facts["general text"] = f"{data.general}: {general_plan.tokens:,} tokens"
    return Corpus(train, evaluations, facts, hashlib.sha256("\n".join(maker.fingerprints).encode()).hexdigest()[:16], max_segments_per_row)


def _training(config: Config, maker: Tokenized, store: TokenStore, plan: RowPlan | PairPlan, texts: np.ndarray | None,
              prefer_from: int | None) -> tuple[MlmBatches | ShortThenLong, str]:
    """Training batches by the schedules of a config, whose steps the loop counts in the same way; and what their rows are."""
    data, train = config.data, config.train

    def described(plan: RowPlan | PairPlan) -> str:
        return f"{plan.rows:,} × {plan.seq_len}, {plan.fill:.1%} full"

    short = maker.plan(store, config.seed, texts, data.short_len) if data.short_len else None
    lengths = Lengths(data.short_share, short.rows / train.batch_size, plan.rows / train.batch_size) if short else None
    steps = steps_in(train, lengths.steps_per_epoch if lengths else plan.rows / train.batch_size)
    rate = MaskRate(data.mask_rate, data.mask_rate if data.mask_rate_end is None else data.mask_rate_end, steps)

    def batches(of: RowPlan | PairPlan, first_step: int = 0) -> MlmBatches:
        return maker.training(store, of, train.batch_size, config.seed, mask_rate=rate, prefer_from=prefer_from, first_step=first_step)

    if short is None or lengths is None:
        return batches(plan), described(plan)
    both = ShortThenLong(batches(short), lambda first: batches(plan, first), lengths, steps)
    return both, f"{described(short)}, for {both.short_steps:,} steps; then {described(plan)}"
