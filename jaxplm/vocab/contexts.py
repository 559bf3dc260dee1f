"""The tokens around new ones, in a corpus: what the `domain` start of new rows is made of (`resize`)."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_SMOOTH = 1e-3  # frequencies well above it weigh little (Arora et al. 2017 take 1e-3 to 1e-4)
_TEXTS = 512  # tokenized at a time


def contexts_of(texts: Iterable[str], tokenizer: "PreTrainedTokenizerFast", first: int, count: int, window: int = 5
                ) -> list[dict[int, float]]:
    """How often each old token stands near each new one, frequent tokens discounted.

    A token of relative frequency p weighs a / (a + p), a = 0.001 (SIF, Arora et al. 2017), so that "the" does not make all
    contexts alike. New tokens in a context do not count: their rows are not known yet.

    Args:
      texts: read once. Memory grows with the new tokens and the different tokens around them.
      tokenizer: with the new tokens, whose ids are first ... first + count - 1.
      window: tokens on either side.

    Returns:
      [count] {old id: weight}, empty for a token that the texts do not hold.
    """
    near: list[dict[int, int]] = [defaultdict(int) for _ in range(count)]
    seen = np.zeros(first + count, np.int64)
    remaining = iter(texts)
    while block := list(islice(remaining, _TEXTS)):
        for encoding in tokenizer.backend_tokenizer.encode_batch_fast(block, add_special_tokens=False):
            ids = np.array(encoding.ids, np.int64)
            seen += np.bincount(ids, minlength=first + count)
            for place in np.flatnonzero(ids >= first).tolist():
                around = ids[max(0, place - window) : place + window + 1]
                counts = near[int(ids[place]) - first]
                for token in around[around < first].tolist():
                    counts[token] += 1
    weight = _SMOOTH / (_SMOOTH + seen / max(1, seen.sum()))
    return [{token: n * float(weight[token]) for token, n in sorted(counts.items())} for counts in near]
