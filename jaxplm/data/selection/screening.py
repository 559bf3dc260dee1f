"""Decide which texts of a corpus may be selected: no leaks, and each text once."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxplm.data.selection.leaks import LeakFinder
from jaxplm.data.selection.passes import CorpusPass

_ROW = np.dtype([("hash", np.uint64), ("leaks", np.uint8)])


@dataclass(frozen=True, eq=False)
class Screened:
    """What the first pass over a corpus finds.

    Attributes:
      kept: [n] bool, the texts that may be selected.
      leaked: {name of a set: texts that share an n-gram with it}; a text may share with several.
      leaks: texts that share one with any set.
      duplicates: texts that stand in the corpus before, leaks left out.
    """

    kept: np.ndarray
    leaked: dict[str, int]
    leaks: int
    duplicates: int


def screen(texts: Iterable[str], leaks: LeakFinder, one_pass: CorpusPass, between: Callable[[int], None]) -> Screened:
    """Read the corpus, unless `one_pass` is complete, and return what was found.

    Texts are compared by a hash of 64 bits; nine bytes per text are kept. `between`: see `CorpusPass.run`.
    """
    def look(_: int, some: Sequence[str]) -> np.ndarray:
        found = np.zeros(len(some), _ROW)
        found["hash"] = np.frombuffer(b"".join(map(_digest, some)), "<u8")
        found["leaks"] = leaks.find(some)
        return found

    one_pass.run(texts, look, between)
    found = np.concatenate([np.zeros(0, _ROW), *one_pass.arrays()])
    clean = np.flatnonzero(found["leaks"] == 0)
    _, first = np.unique(found["hash"][clean], return_index=True)
    kept = np.zeros(len(found), bool)
    kept[clean[first]] = True
    leaked = {name: int(np.count_nonzero(found["leaks"] & (1 << bit))) for bit, name in enumerate(leaks.names)}
    return Screened(kept, leaked, len(found) - len(clean), len(clean) - len(first))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
