"""New entries in a tokenizer's own model, with every old id as it was.

transformers' `add_tokens` puts new tokens before the model: a "##" piece never matches there, a plain one matches inside
other words, and thousands take minutes to load. Here they go into the vocabulary that WordPiece looks its longest match
up in, or become merges of a byte-level BPE (`merges`).
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from jaxplm.errors import UserError
from jaxplm.vocab.merges import Merges
from jaxplm.vocab.reach import WORDPIECE, Reach, witness

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

KNOWN = "is in the vocabulary already"
_PLACES = 200  # texts tried for a token that begins or ends inside a character; others need one


@dataclass(frozen=True)
class Appended:
    """A tokenizer with more entries; `tokens[i]` has the id `old_size + i`."""

    tokenizer: "PreTrainedTokenizerFast"
    old_size: int  # the largest old id + 1
    tokens: list[str]  # [n] entries added, in the order of their ids
    pieces: list[list[int]]  # [n] the old ids that stood for each; [UNK]'s for a word that was unknown
    helpers: list[str]  # those of `tokens` that nobody asked for: a BPE's entries on the way to longer ones, see `append`
    refused: dict[str, str]  # {token: a few words that say why}
    merges: int  # BPE: merges added; else 0


def append(tokenizer: "PreTrainedTokenizerFast", tokens: Sequence[str]) -> Appended:
    """Add entries to the model of a fast tokenizer, in their order.

    Every old id keeps its token, special and added tokens included, and every text that gets no new id gets exactly the
    ids it had. Normalizer, pre-tokenizer and post-processor stay. Each new entry was seen to come out for some text.

    What is added beside `tokens` (`helpers`):
      BPE: entries between the old pieces and a token of three or more of them, as few as there can be.
      WordPiece: if the vocabulary has no "##c" for a character c inside its entries, these. The longest match could
      otherwise end after a new entry before such a character, and a word that was known would become [UNK]. No published
      BERT vocabulary is of this kind.

    Args:
      tokenizer: transformers' fast tokenizer, WordPiece or byte-level BPE; not changed.
      tokens: entries as the vocabulary has them: "ward", "##ness", "Ġhospital". Doubles count once.

    Raises:
      UserError: another kind of model, or one whose ids cannot be kept.
    """
    reach = Reach(tokenizer)
    old = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True)
    old_size = max(old.values(), default=-1) + 1
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    _seat_added_tokens(state, Reach(tokenizer, added=False))
    refused: dict[str, str] = {}
    wanted: list[str] = []
    for token in dict.fromkeys(tokens):
        if (reason := KNOWN if token in old else reach.reason(token)) is not None:
            refused[token] = reason
        else:
            wanted.append(token)
    while True:
        if reach.kind == WORDPIECE:
            added, failed, merges = _wordpiece(state["model"], reach, wanted), {}, []
        else:
            added, failed, merges = _byte_level(tokenizer.backend_tokenizer.model, reach, wanted, old, old_size)
        refused |= failed
        made = _rebuilt(tokenizer, state, {token: old_size + n for n, token in enumerate(added)}, merges)
        _check_old_ids(old, made)
        asked = [token for token in wanted if token not in failed]
        after = Reach(made)
        unseen = [token for token in asked if witness(made, token, after) is None]
        if not unseen:
            ids = [[old[piece] for piece in pieces] for pieces in added.values()]
            others = added.keys() - set(asked)
            helpers = [token for token in added if token in others]
            return Appended(made, old_size, list(added), ids, helpers, refused, len(merges))
        refused |= dict.fromkeys(unseen, "was in the model and came out for no text")
        wanted = [token for token in asked if token not in refused]


def _wordpiece(model: dict[str, Any], reach: Reach, wanted: list[str]) -> dict[str, list[str]]:
    """{entry: its old pieces}"""
    vocabulary, prefix, unknown = model["vocab"], reach.prefix, model["unk_token"]

    def pieces(token: str) -> list[str]:
        """The longest matches, from the left (Wu et al. 2016)."""
        rest, found = token, []
        while rest not in ("", prefix):
            ends = range(len(rest), len(prefix) if found or rest.startswith(prefix) else 0, -1)
            end = next((end for end in ends if rest[:end] in vocabulary), None)
            if end is None:
                return [unknown]
            found.append(rest[:end])
            rest = prefix + rest[end:]
        return found

    return {token: pieces(token) for token in [*_missing_continuations(vocabulary, reach), *wanted]} if wanted else {}


def _missing_continuations(vocabulary: dict[str, int], reach: Reach) -> list[str]:
    """The "##c" that a WordPiece vocabulary lacks of characters c inside its entries; see `append`."""
    def inside(token: str) -> str:
        return token.removeprefix(reach.prefix) if token.startswith(reach.prefix) else token[1:]

    chars = {char for token in vocabulary for char in inside(token)}
    lacking = sorted(char for char in chars if reach.prefix + char not in vocabulary and reach.reason(reach.prefix + char) is None)
    # Entries that no text reaches, such as [unused1], need no continuation.
    return [reach.prefix + char for char in lacking
            if any(char in inside(token) and reach.reason(token) is None for token in vocabulary)]


def _byte_level(model: Any, reach: Reach, wanted: list[str], old: dict[str, int], old_size: int
                ) -> tuple[dict[str, list[str]], dict[str, str], list[tuple[str, str]]]:
    """{entry: its old pieces}, {refused token: why}, the merges."""
    merges, failed, aims = Merges(model, old, old_size), {}, frozenset(wanted)
    for token in wanted:
        reason: str | None = None
        for _, place in zip(range(_PLACES), reach.places(token), strict=False):
            reason = merges.form(token, place.pretoken, place.start, aims)
            if reason is None:
                break
        if reason is not None:
            failed[token] = reason
    return {token: merges.pieces[token] for token in merges.ids}, failed, merges.added


def _seat_added_tokens(state: dict[str, Any], bare: Reach) -> None:
    """Give added tokens from beyond the model's vocabulary a seat in it, at their ids.

    `tokenizers` numbers what is not in the model anew when it reads a file: they would move up with every entry added.

    Args:
      bare: the tokenizer as it would be without added tokens.

    Raises:
      UserError: such a token is a word or piece that the model would now find where it did not before.
    """
    vocabulary = state["model"]["vocab"]
    for token in state["added_tokens"]:
        content = token["content"]
        if content in vocabulary:
            continue
        # Found everywhere before the model has its turn? A byte-level BPE without a merge for it never forms it.
        plain = content == content.removeprefix(bare.prefix or content)
        first = plain and not token["single_word"] and (token["normalized"] or state["normalizer"] is None)
        if not first and (bare.kind == WORDPIECE or state["model"].get("ignore_merges")) and bare.reason(content) is None:
            raise UserError(f"the tokenizer's added token {content!r} is a word outside of its model's vocabulary and cannot keep its id "
                            "while the vocabulary grows: take it out of the tokenizer and give it as a term")
        vocabulary[content] = token["id"]


def _rebuilt(tokenizer: "PreTrainedTokenizerFast", state: dict[str, Any], ids: dict[str, int], merges: list[tuple[str, str]]
             ) -> "PreTrainedTokenizerFast":
    """A copy of the tokenizer with more entries and merges."""
    model = {**state["model"], "vocab": state["model"]["vocab"] | ids}
    if merges:
        model["merges"] = [*model["merges"], *map(list, merges)]
    made = copy.deepcopy(tokenizer)
    # transformers' own train_new_from_iterator does it this way: constructing the class anew could change its other parts.
    made._tokenizer = Tokenizer.from_str(json.dumps({**state, "model": model}))
    return made


def _check_old_ids(old: dict[str, int], made: "PreTrainedTokenizerFast") -> None:
    new = made.backend_tokenizer.get_vocab(with_added_tokens=True)
    moved = [token for token, index in old.items() if new.get(token) != index]
    if moved:
        raise UserError(f"the tokenizer's token {moved[0]!r} would not keep its id {old[moved[0]]} while the vocabulary grows")
