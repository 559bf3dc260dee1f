"""The corpus of a pre-training run as batches: opened, tokenized, packed, masked."""

import dataclasses
import functools
import hashlib
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxplm.config import Config
from jaxplm.data.corpus.store import TokenStore
from jaxplm.data.corpus.tokenize import tokenize
from jaxplm.data.mlm.batches import FixedMaskBatches, MlmBatches
from jaxplm.data.mlm.mask import Masking
from jaxplm.data.mlm.rows import Plan, SpecialIds
from jaxplm.data.mlm.schedule import MaskRate, SeqLenSchedule, SeqLenScheduledBatches
from jaxplm.data.mlm.sentence_pairs import sentence_ends
from jaxplm.data.sources.texts import open_corpus
from jaxplm.engine.setup import steps_in
from jaxplm.errors import UserError
from jaxplm.recipes.pretrain.sources import (
    Source,
    general_text,
    mixed,
    refuse_shared_files,
    source_facts,
    training_text,
)
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

    def store(self, spec: str, split: str = "train", max_rows: int | None = None, part_of: str = "") -> TokenStore:
        """Return the tokens of the texts that `spec` names, from the cache where they are in it.

        Args:
          spec, split, max_rows, part_of: see `open_corpus`.
        """
        texts = open_corpus(self._data, spec, split=split, max_rows=max_rows, part_of=part_of)
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

    `jaxplm.recipes.pretrain.sources` says which texts are trained on, held out, replayed and measured as general text.

    Args:
      local_rows: as for `CorpusReader`.
      prefer_from: training masks prefer tokens of this id and above (`vocab.mask_new`). Evaluation masks prefer none, and
        have the rate `data.mask_rate` in rows of `data.seq_len`.

    Raises:
      UserError: a file is also given where it must not be, or there is nothing to train on.
    """
    data = config.data
    refuse_shared_files(data)
    reader = CorpusReader(config, tokenizer, local_rows)
    sources, held = training_text(data, reader.store)
    replayed, general = general_text(data, reader.store) if data.general else (None, None)
    held_plan = reader.plan(held.store, texts=held.texts)
    drawn = [*sources, *([replayed] if replayed else [])]
    plans = [reader.plan(source.store, config.seed, source.texts) for source in drawn]
    train, row_facts = _training(config, reader, drawn, plans, prefer_from)
    evaluations = {"validation": reader.evaluation(held_plan)}
    max_segments_per_row = max(train.max_segments_per_row, held_plan.max_segments)
    texts, tokens = sum(source.count for source in sources), sum(plan.tokens for plan in plans[: len(sources)])
    facts = {
        "training text": f"{data.train}: {texts:,} texts, {tokens:,} tokens",
        **row_facts,
        "validation text": f"{held.name}: {held_plan.tokens:,} tokens",
    }
    if general:
        general_plan = reader.plan(general.store, texts=general.texts)
        evaluations["general"] = reader.evaluation(general_plan)
        max_segments_per_row = max(max_segments_per_row, general_plan.max_segments)
        facts["general text"] = f"{general.name}: {general_plan.tokens:,} tokens"
    fingerprint = hashlib.sha256("\n".join(reader.fingerprints).encode()).hexdigest()[:16]
    return Corpus(train, evaluations, facts, fingerprint, max_segments_per_row)


def _training(config: Config, reader: CorpusReader, sources: list[Source], plans: list[Plan],
              prefer_from: int | None) -> tuple[MlmBatches | SeqLenScheduledBatches, dict[str, str]]:
    """Return training batches by the schedules of a config, and what the report says of their rows.

    The steps of a run are counted as the loop counts them.

    Args:
      sources: what is trained on.
      plans: the rows of each, of `data.seq_len` tokens.
      prefer_from: see `load_corpus`.
    """
    data, train = config.data, config.train

    def described(plan: Plan) -> str:
        return f"{plan.rows:,} × {plan.seq_len}, {plan.fill:.1%} full"

    plan, short = mixed(data, sources, plans), None
    if data.short_len:
        short = mixed(data, sources, [reader.plan(source.store, config.seed, source.texts, data.short_len)
                                      for source in sources])
    schedule = SeqLenSchedule(data.short_share, short.rows / train.batch_size, plan.rows / train.batch_size) if short else None
    steps = steps_in(train, schedule.steps_per_epoch if schedule else plan.rows / train.batch_size)
    rate = MaskRate(data.mask_rate, data.mask_rate if data.mask_rate_end is None else data.mask_rate_end, steps)
    masking = dataclasses.replace(reader.masking, rate=rate, prefer_from=prefer_from)
    if short is None or schedule is None:
        batches, rows, phases = reader.training(plan, masking), described(plan), [(plan, steps)]
    else:
        batches = SeqLenScheduledBatches(reader.training(short, masking),
                                         lambda first: reader.training(plan, masking, first), schedule, steps)
        rows = f"{described(short)}, for {batches.short_steps:,} steps; then {described(plan)}"
        phases = [(short, batches.short_steps), (plan, steps - batches.short_steps)]
    facts = source_facts(sources, plan, [(part, count * train.batch_size) for part, count in phases])
    for name, fact in facts.items():
        log.info("%s: %s", name, fact)
    return batches, {"rows": f"{rows} (an epoch)" if facts else rows} | facts
