"""Which texts a pre-training run is trained on, which it is measured on, and in which shares they are mixed."""

import logging
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple, Protocol

import numpy as np

from jaxplm.config import Data
from jaxplm.data.corpus.holdout import hold_out, hold_out_of_all, without_copies
from jaxplm.data.corpus.store import TokenStore, joined
from jaxplm.data.mlm.mixture import MOST_ROWS, Mixture, divide_rows, replayed_rows
from jaxplm.data.mlm.rows import Plan
from jaxplm.data.sources.builtin import brings
from jaxplm.data.sources.same_files import same_files
from jaxplm.data.sources.specs import has_splits, items_of
from jaxplm.errors import UserError

log = logging.getLogger("jaxplm")


class Source(NamedTuple):
    """Some texts of a store."""

    name: str  # for the user
    store: TokenStore
    texts: np.ndarray | None = None  # indices; all of them if None

    @property
    def count(self) -> int:
        return len(self.store.offsets) - 1 if self.texts is None else len(self.texts)


class ReadStore(Protocol):
    """Opens and tokenizes what a spec names; see `CorpusReader.store`."""

    def __call__(self, spec: str, split: str = "train", max_rows: int | None = None,
                 part_of: str = "") -> TokenStore: ...


def refuse_shared_files(data: Data) -> None:
    """Raise a `UserError` where a file would be trained on although it must not be, or would have two weights."""
    if data.test and (shared := same_files(data.train, data.test)):
        raise UserError(f"{shared[0]} is given as data.train and as data.test: further pre-training must not see the"
                        " test texts")
    if data.weights:
        for one, other in combinations(items_of(data.train), 2):
            if shared := same_files(one, other):
                raise UserError(f"{shared[0]} belongs to two entries of data.train, {one} and {other}: with"
                                " data.weights, every file must belong to one entry")
    if data.replay:
        for name, spec in (("data.train", data.train), ("data.validation", data.validation), ("data.test", data.test)):
            if spec and (shared := same_files(data.general, spec)):
                raise UserError(f"{shared[0]} is given as data.general and as {name}: with data.replay, general text is"
                                " trained on; give other general text")


def training_text(data: Data, read: ReadStore) -> tuple[list[Source], Source]:
    """Return the texts of `data.train` to train on, and those to validate on.

    There is a source per entry of `data.train` where `data.weights` are given, and one of all entries otherwise.
    Without `data.validation` a built-in corpus brings its own validation split; from anything else a fixed share of the
    texts is held out, and the log says so. Which ones does not depend on `data.weights`.
    """
    entries = items_of(data.train) if data.weights else [data.train]
    part_of = data.train if data.weights else ""
    sources = [Source(entry, read(entry, max_rows=data.max_rows, part_of=part_of)) for entry in entries]
    if data.validation or brings(data.train, "validation"):
        name = data.validation or data.train
        return sources, Source(name, read(name, split="validation"))
    divided = hold_out_of_all([source.store for source in sources], data.held_out)
    texts, held_texts = zip(*divided, strict=True)
    sources = [source._replace(texts=own) for source, own in zip(sources, texts, strict=True)]
    held = sum(map(len, held_texts))
    name = f"{held:,} of the {held + sum(map(len, texts)):,} texts of {data.train}"
    log.info("no data.validation: %s are held out", name)
    if len(sources) == 1:
        return sources, Source(name, sources[0].store, held_texts[0])
    parts = [(source.store, own) for source, own in zip(sources, held_texts, strict=True)]
    return sources, Source(name, joined(parts, data.train))


def general_text(data: Data, read: ReadStore) -> tuple[Source | None, Source]:
    """Return the texts of `data.general` to replay, None if none are, and those to measure.

    Without `data.replay` all are measured. With it, hub names and built-ins have their split "train" replayed and
    "validation" measured, and of anything else a fixed share is measured and the rest replayed. No replayed text is a
    copy of a measured one.

    Raises:
      UserError: there is no text to replay.
    """
    everything = Source(data.general, read(data.general, split="validation"))
    if data.replay is None:
        return None, everything
    none = (f"data.replay={data.replay:g}: data.general={data.general} has no two different texts, one to replay and"
            " one to measure; give more general text")
    if all(map(has_splits, items_of(data.general))):
        measured = everything
        if not data.replay:
            return None, measured
        store = read(data.general)
        replayed = Source(f"{data.general} (replayed)", store, without_copies(store, everything.store))
        if not replayed.count:
            raise UserError(none)
    else:
        texts, held = hold_out(everything.store, data.held_out, none)
        measured = Source(f"{len(held):,} of the {everything.count:,} texts of {data.general}", everything.store, held)
        replayed = Source(f"{data.general} (replayed)", everything.store, texts)
    log.info("data.replay: %s are measured and never replayed", measured.name)
    return (replayed if data.replay else None), measured


def mixed(data: Data, sources: Sequence[Source], plans: Sequence[Plan]) -> Plan:
    """Return the rows of all sources as one plan.

    An epoch has as many rows of `data.train` as there are, divided by `data.weights`, and the replayed rows besides.

    Args:
      sources: those of `data.train`, then the replayed one if there is any.
      plans: the rows of each.

    Raises:
      UserError: a source has no row, or so small a share that it has none in an epoch; or an epoch has too many rows.
    """
    if len(plans) == 1:
        return plans[0]
    for source, plan in zip(sources, plans, strict=True):
        if not plan.rows:
            raise UserError(f"no text of {source.name} is left to train on: all are held out; give more text, or"
                            " data.validation")
    rows = [plan.rows for plan in (plans[:-1] if data.replay else plans)]
    counts = divide_rows(sum(rows), data.weights) if len(rows) > 1 else tuple(rows)
    if data.replay:
        counts += (replayed_rows(sum(rows), data.replay),)
    if 0 in counts:
        name = "data.replay" if data.replay and not counts[-1] else "data.weights"
        value = data.replay if name == "data.replay" else data.weights
        raise UserError(f"{name}={value}: the share of {sources[counts.index(0)].name} is less than one row in an epoch"
                        f" of {sum(counts):,}; give it a larger share, or leave it out")
    if sum(counts) > MOST_ROWS:
        raise UserError(f"an epoch has {sum(counts):,} rows: with data.weights or data.replay it may have {MOST_ROWS:,}"
                        " at most; raise data.seq_len, or divide data.train over several runs")
    return Mixture(tuple(plans), counts)


def source_facts(sources: Sequence[Source], plan: Plan, phases: Sequence[tuple[Plan, int]]) -> dict[str, str]:
    """Return what the report says of each source of a mixture; nothing where the plan is none.

    Args:
      sources: of the mixture.
      plan: the mixture in rows of `data.seq_len`.
      phases: the mixtures that are read one after the other, and the rows that a run draws from each.
    """
    if not isinstance(plan, Mixture):
        return {}
    passes = np.zeros(len(sources))
    for part, samples in phases:
        assert isinstance(part, Mixture)
        passes += [drawn / own.rows for drawn, own in zip(part.order(0).drawn(samples), part.plans, strict=True)]
    found = zip(sources, plan.plans, plan.counts, passes, strict=True)
    return {f"source {i}": f"{source.name}: {source.count:,} texts, {own.tokens:,} tokens, {own.rows:,} rows;"
                           f" {count / plan.rows:.1%} of the rows drawn, {_times(times)} passes"
            for i, (source, own, count, times) in enumerate(found, 1)}


def _times(passes: float) -> str:
    """Return a number of passes in words; small ones to two digits."""
    return f"{passes:,.2f}" if passes >= 1 else f"{passes:.2g}"
