"""Tasks over the tokens of sentences: the rows, what the encoder reads of them, and which token each label belongs to."""

import logging
from abc import abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np

from jaxplm.data.labelled.encode import EncodedWords, encode_words
from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.examples import Example, Examples
from jaxplm.data.labelled.label_values import is_empty, read_list, read_text
from jaxplm.data.labelled.reading import Columns, DataFields
from jaxplm.data.labelled.tagged_reading import TaggedReading
from jaxplm.data.labelled.targets import Targets
from jaxplm.data.labelled.word_map import WordMap
from jaxplm.data.sources.columns import Row
from jaxplm.data.sources.conll import Layout, are_characters, join_tokens
from jaxplm.tasks.kinds.kind import TaskKind

log = logging.getLogger("jaxplm")

# Tokens are warned of where so large a share of them is numbers.
_NUMBERS_SHARE = 0.9


class WordKind(TaskKind):
    """A task with one label for each token of a sentence; the head looks at every token.

    Rows have `data.tokens` and `data.tags`, lists (or strings of words with spaces between) of equal length. Files that end
    in .conll, .tsv or .txt are in CoNLL's format: token first, label last. A sentence that is too long is read in windows
    that overlap. The tokens of the data are called words where the tokens of the model are meant by "tokens".
    """

    per_token = True
    options = frozenset(("body", "overlap"))
    reading_fields = "data.token_unit"  # those that overrule what the training set looks like

    def columns(self, data: DataFields) -> Columns:
        return Columns({data.tokens: "data.tokens"}, {data.tags: "data.tags"}, (data.tags,), tagged=(data.tokens, data.tags))

    def read(self, row: Row, data: DataFields, where: str, number: int) -> Example:
        tokens = [read_text(token, where) for token in read_list(row.get(data.tokens), where, data.tokens) or []]
        given, label, fault = row.get(data.tags), None, ""
        if is_empty(given):
            fault = "missing"
        else:
            label = [self.read_label(one, where) for one in read_list(given, where, data.tags) or []]
            if len(label) != len(tokens) or None in label:
                fault, label = "mismatch", None
        text = join_tokens(tokens, characters=False)
        return Example(text, tokens=tokens, label=label, fault=fault if text.strip() else "empty")

    @abstractmethod
    def read_label(self, value: Any, where: str) -> Any:
        """Return the label of one token, None if there is none.

        Raises:
          UserError: a value of the wrong type; `where` is the row's place for the message.
        """

    def settle(self, examples: Examples, reading: TaggedReading) -> Examples:
        """Join tokens that are characters to texts without spaces between, and settle what the labels are.

        The training set decides, and one line says how. Other sets are read as it is.
        """
        assert examples.tokens is not None
        characters = are_characters(examples.tokens) if reading.characters is None else reading.characters
        texts = [join_tokens(tokens, characters=True) for tokens in examples.tokens] if characters else examples.texts
        examples = replace(examples, characters=characters, texts=texts, reading=replace(reading, characters=characters))
        if not reading.decided:
            _warn_of_numbers(examples)
        examples, about_labels = self.settle_labels(examples)
        if not reading.decided:
            layout = examples.reading.layout
            columns = (f"token in column {layout.token + 1}, tag in " + (f"column {layout.tag + 1}" if layout.tag >= 0 else "the last one")
                       if layout and layout != Layout() else "")
            log.info("%s: tokens are %s%s", examples.describe, "characters" if characters else "words",
                     "".join(f"; {part}" for part in (about_labels, columns) if part) + f" (if this is wrong, set {self.reading_fields})")
        return replace(examples, reading=replace(examples.reading, decided=True))

    def settle_labels(self, examples: Examples) -> tuple[Examples, str]:
        """Return the examples with labels as the kind uses them, and what the line about the training set says of them."""
        return examples, ""

    def encode(self, examples: Examples, tokenizer: Any, seq_len: int, overlap: int) -> EncodedWords:
        return encode_words(examples, tokenizer, seq_len, overlap)

    def word_map(self, encoded: Encoded) -> WordMap:
        """Return which token predicts each word."""
        assert isinstance(encoded, EncodedWords)
        return encoded.words

    def word_targets(self, encoded: Encoded, values: np.ndarray, known: np.ndarray) -> Targets:
        """Return the targets of the tokens at which words are learned.

        Args:
          encoded: the windows of sentences with W words.
          values: [W, ...] what is to be learned of each word.
          known: [W] bool, whether there is something to learn.
        """
        assert isinstance(encoded, EncodedWords)
        words = encoded.target_words
        learned = words >= 0
        learned[learned] = known[words[learned]]
        out = np.zeros((len(words), *values.shape[1:]), values.dtype)
        out[learned] = values[words[learned]]
        return Targets(out, learned.astype(np.float32), per_token=True)



def _warn_of_numbers(examples: Examples) -> None:
    """Warn where nearly all tokens are numbers: another column than that of the tokens was read."""
    assert examples.tokens is not None
    tokens = [token for words in examples.tokens for token in words if token.strip()]
    numbers = sum(not any(map(str.isalpha, token)) and any(map(str.isdigit, token)) for token in tokens)
    if numbers >= _NUMBERS_SHARE * len(tokens) > 0:
        log.warning("%s: nearly all tokens are numbers, such as %r: does data.tokens name the column of the tokens? (of CoNLL files by"
                    " its number, as in data.tokens=2)", examples.describe, tokens[0])
