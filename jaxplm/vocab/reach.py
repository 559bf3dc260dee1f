"""Decide which entries of a vocabulary some text can reach.

The tokenizer itself is asked. Texts that spell an entry go through its normalizer and its pre-tokenizer, and the entry
is reachable if it then stands where the model looks for it: at the beginning of a pre-token, after another character of
one ("##ness"), or anywhere in one (byte-level BPE). So no rule of BERT's or of GPT-2's splitter is repeated here.
Whether the merges of a BPE model ever form an entry is not decided here; `append.append_tokens` adds the merges.

>>> reach = Reach(bert)
>>> reach.reason("hospital"), reach.reason("95%"), reach.reason("##-2")
(None, "is cut into '95', '%'", "is cut into '-', '2'")
"""

import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from jaxplm.data.corpus.token_text import byte_alphabet
from jaxplm.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WORDPIECE, BYTE_LEVEL = "WordPiece", "BPE"
_BEFORE = ("", "a", "1", "(", " ", "가")  # texts tried before an entry: nothing, letters, a digit, punctuation, a space
_AFTER = ("", "a", "1", "(", " a", "가")
_COMPLETIONS = 4096  # characters looked at to complete a cut one: enough for letters and others after each lead byte
_PER_CLASS = 3
_ENDS = 8
_NOT_UTF8 = frozenset((0xC0, 0xC1, *range(0xF5, 0x100)))  # bytes that no UTF-8 text has


class Place(NamedTuple):
    """A pre-token that holds an entry.

    Attributes:
      text: a text that gives the pre-token.
      pretoken: the pre-token.
      start: how many characters of it stand before the entry.
    """

    text: str
    pretoken: str
    start: int


class Reach:
    """Answers which entries a tokenizer could produce, by its normalizer, pre-tokenizer and kind of model.

    Args:
      tokenizer: a fast transformers tokenizer.
      added: False: answer for the tokenizer without its added tokens, which come before the model.

    Attributes:
      kind: WORDPIECE or BYTE_LEVEL.
      prefix: what marks an entry that continues a word ("##"), or "".
      limit: characters of a pre-token that the model reads at most; None for any number.

    Raises:
      UserError: a model that is neither WordPiece nor byte-level BPE.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", added: bool = True) -> None:
        self._backend = tokenizer.backend_tokenizer
        state = json.loads(self._backend.to_str())
        model = state["model"]
        self.kind: str = kind_of(state)
        self.prefix: str = model.get("continuing_subword_prefix") or ""
        self.limit: int | None = model.get("max_input_chars_per_word")
        tokens = state["added_tokens"] if added else []
        self._added = [token["content"] for token in tokens]
        # These cut a text before the model sees it. The unknown token is no sign of that: it also comes from the model.
        self._cuts = {token["id"] for token in tokens if token["content"] != model.get("unk_token")}
        self._alphabet = byte_alphabet()

    def reason(self, token: str) -> str | None:
        """Return why no text gives `token`, in a few words; None if one does.

        Args:
          token: an entry as the vocabulary has it, or would have it: "ward", "##ness", "Ġhospital".
        """
        if token in self._added:
            return "is a special or added token"
        inner = token.removeprefix(self.prefix)
        if not inner:
            return "is empty"
        if self.limit is not None and len(inner) + (inner != token) > self.limit:
            return f"is longer than the {self.limit} characters that the model reads of a word"
        if next(self.places(token), None) is not None:
            return None
        return self._diagnosis(token)

    def places(self, token: str, befores: Sequence[str] = _BEFORE) -> Iterator[Place]:
        """Yield pre-tokens in which the model could find `token`, the plainest first.

        Args:
          token: an entry as the vocabulary has it: "##ness", "Ġhospital".
          befores: texts to try before it.
        """
        if self.kind == WORDPIECE:
            yield from self._wordpiece_places(token, befores)
        else:
            yield from self._byte_level_places(token, befores)

    def pretokens(self, text: str) -> list[str]:
        """Return the pieces of a text without special tokens as the model gets them."""
        if self._backend.normalizer is not None:
            text = self._backend.normalizer.normalize_str(text)
        if self._backend.pre_tokenizer is None:
            return [text]
        return [piece for piece, _ in self._backend.pre_tokenizer.pre_tokenize_str(text)]

    @functools.cached_property
    def ends(self) -> list[str]:
        """Return long whole words of the vocabulary.

        WordPiece's longest match ends after one, so any continuation can follow it.
        """
        words = (
            word
            for word in self._backend.get_vocab(with_added_tokens=False)
            if not (self.prefix and word.startswith(self.prefix))
        )
        longest = sorted(words, key=lambda word: (-len(word), word))
        return list(itertools.islice((word for word in longest if self.pretokens(word) == [word]), _ENDS))

    def _wordpiece_places(self, token: str, befores: Sequence[str]) -> Iterator[Place]:
        inner = token.removeprefix(self.prefix)
        continues = bool(self.prefix) and token != inner
        # The entry's own first character is one of the contexts, for splitters that separate scripts.
        contexts = (*(before for before in befores if before), inner[0]) if continues else ("",)
        for before, after in itertools.product(contexts, _AFTER):
            text = before + inner + after
            if self._holds_added(text):
                continue
            for pretoken in self.pretokens(text):
                if self.limit is not None and len(pretoken) > self.limit:
                    continue
                start = pretoken.find(inner, 1) if continues else 0 if pretoken.startswith(inner) else -1
                if start >= 0:
                    yield Place(text, pretoken, start)

    def _byte_level_places(self, token: str, befores: Sequence[str]) -> Iterator[Place]:
        for inner in self._spellings(token):
            for before, after in itertools.product((*befores, inner[0]), (*_AFTER, inner[-1])):
                text = before + inner + after
                if self._holds_added(text):
                    continue
                for pretoken in self.pretokens(text):
                    if (start := pretoken.find(token)) >= 0:
                        yield Place(text, pretoken, start)

    def _holds_added(self, text: str) -> bool:
        return any(index in self._cuts for index in self._backend.encode(text, add_special_tokens=False).ids)

    def _spellings(self, token: str) -> list[str]:
        """Return texts with the bytes that `token` stands for.

        Where it begins or ends inside a character, several complete it.
        """
        if any(char not in self._alphabet for char in token):
            return []
        raw = bytes(self._alphabet[char] for char in token)
        cut = next((n for n, byte in enumerate(raw) if not 0x80 <= byte < 0xC0), len(raw))
        tail, rest = raw[:cut], raw[cut:]  # the end of a character; whole characters and the beginning of one
        if len(tail) > 3 or any(byte in _NOT_UTF8 for byte in raw):
            return []
        lead = next((n for n in range(1, min(3, len(rest)) + 1) if rest[-n] >= 0xC0), 0)
        begun = rest[len(rest) - lead :] if lead and lead < _length(rest[-lead]) else b""
        try:
            middle = rest[: len(rest) - len(begun)].decode()
        except UnicodeDecodeError:
            return []
        fronts, backs = _ending_in(tail) if tail else [""], _beginning_with(begun) if begun else [""]
        return [front + middle + back for front, back in itertools.product(fronts, backs)]

    def _diagnosis(self, token: str) -> str:
        """Return why an entry has no place, in a few words."""
        inner = token.removeprefix(self.prefix)
        if self.kind == BYTE_LEVEL:
            if strange := [char for char in token if char not in self._alphabet]:
                return f"has {strange[0]!r}, which is not of the vocabulary's byte alphabet"
            spellings = self._spellings(token)
            if not spellings:
                return "is no part of valid UTF-8"
            inner = spellings[0]
        if held := [part for part in self._added if part in inner]:
            return f"holds the special or added token {held[0]!r}"
        if self._backend.normalizer is not None:
            normal = self._backend.normalizer.normalize_str(inner)
            if normal.strip() != inner.strip():
                return (
                    f"is changed to {normal.strip()!r} by the normalizer"
                    if normal.strip()
                    else "is removed by the normalizer"
                )
        pretokens = self.pretokens(inner)
        if len(pretokens) > 1:
            return "is cut into " + ", ".join(map(repr, pretokens))
        if inner != token and self.kind == WORDPIECE:
            return f"is never inside a word: {inner[:1]!r} begins one of its own"
        return f"is read as {pretokens[0]!r}" if pretokens else "is blank"


def witness(tokenizer: "PreTrainedTokenizerFast", token: str, reach: Reach | None = None) -> str | None:
    """Return a text in which the tokenizer finds an entry of its vocabulary, or None if none was found.

    Args:
      tokenizer: a fast transformers tokenizer.
      token: an entry of its vocabulary.
      reach: that of this tokenizer, if there is one already.
    """
    reach = reach or Reach(tokenizer)
    backend = tokenizer.backend_tokenizer
    index = backend.token_to_id(token)
    for place in itertools.chain(reach.places(token), reach.places(token, reach.ends)):
        if index in backend.encode(place.text, add_special_tokens=False).ids:
            return place.text
    return None


def kind_of(state: dict) -> str:
    """Return WORDPIECE or BYTE_LEVEL for a tokenizer.json as a dict.

    Raises:
      UserError: another kind of model.
    """
    model = state["model"]
    kind = model["type"]
    if kind == WORDPIECE:
        return kind
    byte_level = '"ByteLevel"' in json.dumps(state.get("pre_tokenizer"))
    if (
        kind == BYTE_LEVEL
        and byte_level
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
    ):
        return kind
    what = "a BPE that is not byte-level" if kind == BYTE_LEVEL else kind
    raise UserError(
        f"the tokenizer's model is {what}: tokens can be added to WordPiece and byte-level BPE vocabularies only; train a"
        " new one with configs/scratch.py"
    )


def fixed_because(tokenizer: "PreTrainedTokenizerFast") -> str:
    """Return why no token can be added to a tokenizer's vocabulary, in a few words; "" if tokens can be."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    try:
        kind_of(state)
    except UserError:
        kind = state["model"]["type"]
        return f"no token can be added to a vocabulary of {kind} (only to WordPiece and byte-level BPE)"
    return ""


def _length(lead: int) -> int:
    """Return how many bytes the UTF-8 character has that begins with `lead`."""
    return 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _ending_in(tail: bytes) -> list[str]:
    """Return characters of different classes whose UTF-8 ends in the continuation bytes `tail`, with more before."""
    step = 64 ** len(tail)
    value = sum((byte & 0x3F) << (6 * n) for n, byte in enumerate(reversed(tail)))
    return _of_each_class(
        code for code in range(value, 0x110000, step) if code >= (0x80, 0x800, 0x10000)[len(tail) - 1]
    )


def _beginning_with(begun: bytes) -> list[str]:
    """Return characters of different classes whose UTF-8 begins with `begun`, with more after."""
    length = _length(begun[0])
    rest = 6 * (length - len(begun))
    value = begun[0] & (0x7F >> length)
    for byte in begun[1:]:
        value = value << 6 | byte & 0x3F
    low, high = value << rest, (value + 1) << rest
    smallest = {2: 0x80, 3: 0x800, 4: 0x10000}[length]
    return _of_each_class(range(max(low, smallest), min(high, 0x110000)))


def _of_each_class(codes: Iterator[int] | range) -> list[str]:
    """Return a few letters, digits, spaces and others among the code points.

    Splitters treat the characters of a class alike.
    """
    classes: dict[str, list[str]] = {}
    for code in itertools.islice((code for code in codes if not 0xD800 <= code < 0xE000), _COMPLETIONS):
        char = chr(code)
        name = "letter" if char.isalpha() else "digit" if char.isnumeric() else "space" if char.isspace() else "other"
        if len(members := classes.setdefault(name, [])) < _PER_CLASS:
            members.append(char)
    return [char for members in classes.values() for char in members]
