"""Sentences of CoNLL files: a token per line with its columns, a blank line after each sentence."""

import re
from collections.abc import Iterator

# Tells a line about the token `#` from a comment.
_TAG = re.compile(r"O|[BIESLU]-\S+")


def read_conll(lines: Iterator[str]) -> Iterator[list[list[str]]]:
    """Yield each sentence as its tokens' columns, which are separated by tabs, or by spaces in lines without a tab.

    `-DOCSTART-` lines and comments (`# …`, `## …`) are left out. A token may be a space, in data sets of single
    characters. It may be `#`: such a line has as many columns as the line before it, and the last one is a tag.
    """
    sentence: list[list[str]] = []
    width = 0
    for line in lines:
        line = line.rstrip("\n")
        if not line.strip():
            if sentence:
                yield sentence
                sentence = []
            continue
        columns = line.split("\t") if "\t" in line else line.split()
        if line.startswith("-DOCSTART-"):
            continue
        if line.startswith(("# ", "## ")) and not (len(columns) == width > 1 and _TAG.fullmatch(columns[-1])):
            continue
        width = len(columns)
        sentence.append(columns)
    if sentence:
        yield sentence


def join_tokens(tokens: list[str]) -> str:
    """Return the text of a list of tokens: one space between two tokens, none where spaces are tokens themselves."""
    return ("" if any(token.isspace() or not token for token in tokens) else " ").join(tokens)
