"""The text that each token of a vocabulary stands for."""

import json
import re
from typing import Any

import numpy as np


def byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for.

    Printable Latin-1 characters stand for themselves; the other bytes, in order, for U+0100, U+0101, ...
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def is_byte_level(state: dict[str, Any]) -> bool:
    """Return whether a tokenizer.json, as a dict, has a byte-level vocabulary."""
    return '"ByteLevel"' in json.dumps([state.get("pre_tokenizer"), state.get("decoder")])


def token_bytes(backend: Any) -> list[bytes | None]:
    """Return the UTF-8 bytes that each token of a `tokenizers.Tokenizer` stands for, by its id.

    The mark of a space is a space.

    None for special and added tokens and for ids without a token. A byte-level token may be part of a character.
    """
    state = json.loads(backend.to_str())
    byte_level = is_byte_level(state)
    prefix = state["model"].get("continuing_subword_prefix") or ""
    suffix = state["model"].get("end_of_word_suffix") or ""
    added = {token["id"] for token in state.get("added_tokens", [])}
    alphabet = byte_alphabet()
    vocabulary = backend.get_vocab(with_added_tokens=True)
    result: list[bytes | None] = [None] * (max(vocabulary.values(), default=-1) + 1)
    for token, index in vocabulary.items():
        if index in added:
            continue
        if byte_level and all(char in alphabet for char in token):
            result[index] = bytes(alphabet[char] for char in token)
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            result[index] = bytes([int(token[3:5], 16)])
        else:
            if prefix and token.startswith(prefix) and token != prefix:
                token = token[len(prefix) :]
            if suffix:
                token = token.removesuffix(suffix)
            result[index] = token.replace("▁", " ").encode("utf-8", "surrogatepass")
    return result


def token_characters(backend: Any) -> np.ndarray:
    """Return how many characters each token stands for without white space, `[V]` float32.

    Special and added tokens have 0.

    A character that lies in several byte-level tokens counts in the first of them, even if it is a wide space. So the
    tokens of a text add up to its characters.
    """
    return np.array(
        [0 if raw is None else sum(byte & 0xC0 != 0x80 for byte in raw) - _spaces(raw) for raw in token_bytes(backend)],
        np.float32,
    )


def _spaces(raw: bytes) -> int:
    return sum(char.isspace() for char in raw.decode("utf-8", "ignore"))
