"""Add entries to a tokenizer's own model; every old id stays as it is.

transformers' `add_tokens` puts new tokens before the model: a "##" piece never matches there, a plain one matches
inside other words, and thousands take minutes to load. Here they become entries of the vocabulary in which WordPiece
looks up its longest match, or merges of a byte-level BPE (`merges`).
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
_PLACES = 200  # texts to try for a token that begins or ends inside a character; other tokens need one


@dataclass(frozen=True)
class ExtendedTokenizer:
    """A tokenizer with n more entries; `tokens[i]` has the id `old_size + i`.

    Attributes:
      tokenizer: a copy of the one that was given, with the new entries.
      old_size: the largest old id + 1.
      tokens: [n] the new entries, in the order of their ids.
      pieces: [n] the old ids that stood for each; that of [UNK] for a word that was unknown.
      helpers: those of `tokens` that were not asked for; see `append_tokens`.
      refused: {token: why it was not added, in a few words}.
      merges: how many merges were added to a BPE; else 0.
    """

    tokenizer: "PreTrainedTokenizerFast"
    old_size: int
    tokens: list[str]
    pieces: list[list[int]]
    helpers: list[str]
    refused: dict[str, str]
    merges: int


def append_tokens(tokenizer: "PreTrainedTokenizerFast", tokens: Sequence[str]) -> ExtendedTokenizer:
    """Add entries to the model of a fast tokenizer, in their order.

    Every old id keeps its token, special and added tokens included. Every text that gets no new id gets exactly the ids
    it had. Normalizer, pre-tokenizer and post-processor stay. Each new entry is checked to occur in the tokens of some
    text.

    What is added beside `tokens` (`helpers`): BPE: entries between the old pieces and a token of three or more of them,
      as few as possible. WordPiece: if the vocabulary has no "##c" for a character c inside its entries, these.
      Otherwise the longest match could end
        after a new entry, before such a character, and a word that was known would become [UNK]. No published BERT
        vocabulary is of this kind.

    Args:
      tokenizer: a fast transformers tokenizer, WordPiece or byte-level BPE; not changed.
      tokens: entries as the vocabulary has them: "ward", "##ness", "Ġhospital". Duplicates count once.

    Raises:
      UserError: another kind of model, or one whose ids cannot be kept.
    """
    reach = Reach(tokenizer)
    old = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True)
    old_size = max(old.values(), default=-1) + 1
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    _include_added_tokens(state, Reach(tokenizer, added=False))
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
        extended = _rebuild(tokenizer, state, {token: old_size + n for n, token in enumerate(added)}, merges)
        _check_old_ids(old, extended)
        asked = [token for token in wanted if token not in failed]
        new_reach = Reach(extended)
        unseen = [token for token in asked if witness(extended, token, new_reach) is None]
        if not unseen:
            ids = [[old[piece] for piece in pieces] for pieces in added.values()]
            others = added.keys() - set(asked)
            helpers = [token for token in added if token in others]
            return ExtendedTokenizer(extended, old_size, list(added), ids, helpers, refused, len(merges))
        refused |= dict.fromkeys(unseen, "occurs in the tokens of no text, even as an entry of the model")
        wanted = [token for token in asked if token not in refused]


def _wordpiece(model: dict[str, Any], reach: Reach, wanted: list[str]) -> dict[str, list[str]]:
    """Return {new entry: its old pieces}."""
    vocabulary, prefix, unknown = model["vocab"], reach.prefix, model["unk_token"]

    def pieces_of(token: str) -> list[str]:
        """Return the longest matches, from the left (Wu et al. 2016)."""
        rest, pieces = token, []
        while rest not in ("", prefix):
            ends = range(len(rest), len(prefix) if pieces or rest.startswith(prefix) else 0, -1)
            end = next((end for end in ends if rest[:end] in vocabulary), None)
            if end is None:
                return [unknown]
            pieces.append(rest[:end])
            rest = prefix + rest[end:]
        return pieces

    return (
        {token: pieces_of(token) for token in [*_missing_continuations(vocabulary, reach), *wanted]} if wanted else {}
    )


def _missing_continuations(vocabulary: dict[str, int], reach: Reach) -> list[str]:
    """Return the "##c" that a WordPiece vocabulary lacks for characters c inside its entries; see `append_tokens`."""
    def inside(token: str) -> str:
        return token.removeprefix(reach.prefix) if token.startswith(reach.prefix) else token[1:]

    chars = {char for token in vocabulary for char in inside(token)}
    lacking = sorted(
        char for char in chars if reach.prefix + char not in vocabulary and reach.reason(reach.prefix + char) is None
    )
    # Entries that no text reaches, such as [unused1], need no continuation.
    return [reach.prefix + char for char in lacking
            if any(char in inside(token) and reach.reason(token) is None for token in vocabulary)]


def _byte_level(model: Any, reach: Reach, wanted: list[str], old: dict[str, int], old_size: int
                ) -> tuple[dict[str, list[str]], dict[str, str], list[tuple[str, str]]]:
    """Return {new entry: its old pieces}, {refused token: why} and the new merges."""
    merges, failed, targets = Merges(model, old, old_size), {}, frozenset(wanted)
    for token in wanted:
        reason: str | None = None
        for _, place in zip(range(_PLACES), reach.places(token), strict=False):
            reason = merges.form(token, place.pretoken, place.start, targets)
            if reason is None:
                break
        if reason is not None:
            failed[token] = reason
    return {token: merges.pieces[token] for token in merges.ids}, failed, merges.added


def _include_added_tokens(state: dict[str, Any], bare: Reach) -> None:
    """Put added tokens from beyond the model's vocabulary into it, at their ids.

    `tokenizers` renumbers what is not in the model when it reads a file, so their ids would change with every new
    entry.

    Args:
      state: tokenizer.json; its vocabulary is changed.
      bare: the tokenizer as it would be without added tokens.

    Raises:
      UserError: such a token is a word or piece that the model would now find where it did not before.
    """
    vocabulary = state["model"]["vocab"]
    for token in state["added_tokens"]:
        content = token["content"]
        if content in vocabulary:
            continue
        # Is it always found before the model is asked? A byte-level BPE without a merge for it never forms it.
        plain = content == content.removeprefix(bare.prefix or content)
        always_first = plain and not token["single_word"] and (token["normalized"] or state["normalizer"] is None)
        if (
            not always_first
            and (bare.kind == WORDPIECE or state["model"].get("ignore_merges"))
            and bare.reason(content) is None
        ):
            raise UserError(
                f"the tokenizer's added token {content!r} is a word outside of its model's vocabulary and cannot keep its id "
                "while the vocabulary grows: remove it from the tokenizer and give it in vocab.terms"
            )
        vocabulary[content] = token["id"]


def _rebuild(
    tokenizer: "PreTrainedTokenizerFast", state: dict[str, Any], ids: dict[str, int], merges: list[tuple[str, str]]
) -> "PreTrainedTokenizerFast":
    """Return a copy of the tokenizer with more entries and merges."""
    model = {**state["model"], "vocab": state["model"]["vocab"] | ids}
    if merges:
        model["merges"] = [*model["merges"], *map(list, merges)]
    extended = copy.deepcopy(tokenizer)
    # transformers' train_new_from_iterator does the same: constructing the class again could change its other parts.
    extended._tokenizer = Tokenizer.from_str(json.dumps({**state, "model": model}))
    return extended


def _check_old_ids(old: dict[str, int], extended: "PreTrainedTokenizerFast") -> None:
    """Raise `UserError` if a token of the old vocabulary has another id."""
    new = extended.backend_tokenizer.get_vocab(with_added_tokens=True)
    changed = [token for token, index in old.items() if new.get(token) != index]
    if changed:
        raise UserError(
            f"the tokenizer's token {changed[0]!r} would not keep its id {old[changed[0]]} while the vocabulary grows"
        )
