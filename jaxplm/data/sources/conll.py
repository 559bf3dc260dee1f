"""Sentences of CoNLL files: a token per line with its columns, a blank line after each sentence."""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

Sentence = list[list[str]]

# Tells a line about the token `#` from a comment.
_TAG = re.compile(r"O|[BIESLU]-\S+")
# The number of a token, in CoNLL-U also of several tokens (3-4) and of one that the text does not have (8.1).
_INDEX = re.compile(r"(\d{1,6})(?:[-.]\d{1,6})?")

# Lines from the beginning of a file by which its columns are told, and how many numbered lines at least say so.
_SAMPLE_LINES = 20_000
_LEAST_NUMBERED = 3
# Tokens are characters where at least so large a share of those that are not white space are one character long, and columns are
# numbers of tokens where they are in at least as many sentences.
_NEARLY_ALL = 0.95


class Layout(NamedTuple):
    """Columns of a token and its tag, from 0.

    `tag` is -1 for the last column. `given` says that a field of the config names one of them.
    """

    token: int = 0
    tag: int = -1
    given: bool = False

    def tokens(self, sentence: Sentence) -> list[str]:
        """Return the tokens of a sentence; '' where a line has no such column."""
        return [columns[self.token] if self.token < len(columns) else "" for columns in sentence]

    def tags(self, sentence: Sentence) -> list[str]:
        """Return the tags of a sentence, of those lines that have one."""
        least = self.token + 1 if self.tag < 0 else self.tag
        return [columns[self.tag] for columns in sentence if len(columns) > least]


def read_conll(lines: Iterator[str]) -> Iterator[Sentence]:
    """Yield each sentence as its tokens' columns, which are separated by tabs, or by spaces in lines without a tab.

    No other white space separates columns: a token may hold a no-break space.

    `-DOCSTART-` lines and comments (`# …`, `## …`) are left out. A token may be a space or empty, in data sets of single
    characters. It may be `#`: such a line has as many columns as the line before it, and the last one is a tag.
    """
    sentence: Sentence = []
    width = 0
    for line in lines:
        line = line.rstrip("\n")
        if not line.strip():
            if sentence:
                yield sentence
                sentence = []
            continue
        columns = _columns(line, width)
        if line.startswith("-DOCSTART-") or _is_comment(line, columns, width):
            continue
        width = len(columns)
        sentence.append(columns)
    if sentence:
        yield sentence


def _columns(line: str, width: int) -> list[str]:
    if "\t" in line:
        return line.split("\t")
    columns = re.split(" +", line.strip(" "))
    # The token is a space: the line has all columns but the first.
    return [" ", *columns] if line.startswith(" ") and len(columns) + 1 == width else columns


def _is_comment(line: str, columns: list[str], width: int) -> bool:
    if line.startswith(("# ", "## ")):
        return not (len(columns) == width > 1 and _TAG.fullmatch(columns[-1]))
    # Comments as `#<tab>where the text is from` have another width than the lines about tokens.
    return line.startswith("#\t") and (len(columns) != width if width else " " in line)


def find_layout(sentences: Iterator[Sentence], known: Layout | None) -> tuple[Layout, Iterator[Sentence]]:
    """Return the columns of token and tag, by the beginning of a file, and all its sentences.

    A first column that numbers the tokens of each sentence is not the token: the second one is.

    Args:
      known: of the training set, which holds unless the file shows otherwise; None: the file is the training set.
    """
    if known is not None and known.given:
        return known, sentences
    sample: list[Sentence] = []
    lines = 0
    for sentence in sentences:
        sample.append(sentence)
        lines += len(sentence)
        if lines >= _SAMPLE_LINES:
            break
    sentences = itertools.chain(sample, sentences)
    numbered = _is_numbered(sample)
    if known is None:
        return (Layout(token=1) if numbered and lines >= _LEAST_NUMBERED else Layout()), sentences
    if known.token == 1 and not numbered and not all(_INDEX.fullmatch(columns[0]) for sentence in sample for columns in sentence):
        return Layout(), sentences
    # A set of other columns than the training set's must say so clearly: a sentence may begin with the token 1.
    if known.token == 0 and numbered and len(sample) >= _LEAST_NUMBERED and lines >= 3 * len(sample):
        return Layout(token=1), sentences
    return known, sentences


def _is_numbered(sentences: list[Sentence]) -> bool:
    """Return whether the first column counts the tokens of each sentence, from 0 or 1, or on from the sentence before."""
    counting = 0
    before = 0
    for sentence in sentences:
        numbers = [_INDEX.fullmatch(columns[0]) for columns in sentence]
        if any(len(columns) < 2 for columns in sentence) or not all(numbers):
            continue
        values = [int(found[1]) for found in numbers if found and found[0] == found[1]]
        first = values[0] if values else 1
        counting += bool(values) and first in (0, 1, before + 1) and values == list(range(first, first + len(values)))
        before = values[-1] if values else before
    return bool(sentences) and counting >= _NEARLY_ALL * len(sentences)


def are_characters(sentences: Iterable[list[str]]) -> bool:
    """Return whether tokens are the characters of texts: nearly all that are not white space are one character long."""
    total = single = 0
    for tokens in sentences:
        for token in tokens:
            if token.strip():
                total += 1
                single += len(token) == 1 or len(unicodedata.normalize("NFC", token)) == 1
    return total > 0 and single >= _NEARLY_ALL * total


def join_tokens(tokens: list[str], *, characters: bool) -> str:
    """Return the text of a list of tokens: one space between two words, nothing between two characters.

    White space among words is no part of the text; among characters it is.
    """
    return "".join(tokens) if characters else " ".join(token for token in tokens if token.strip())
