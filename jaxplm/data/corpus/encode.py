"""Encode a corpus in one pass: texts → batches → token ids and word starts, appended to flat files."""

import contextlib
import itertools
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tokenizers

from jaxplm.data.corpus.words import WordTables, needs_characters, refine, word_starts, word_tables
from jaxplm.data.progress import ProgressBar
from jaxplm.data.sources.texts import Texts
from jaxplm.errors import UserError

# Characters per batch: enough work for every core, about 30 MB of `Encoding`s.
_BATCH_CHARS = 1 << 18
# Longer texts are encoded in pieces cut before white space, so that the cores share one long text and memory stays
# bounded.
_PIECE_CHARS = 1 << 16


class Piece(NamedTuple):
    """Part of a text, short enough to encode at once."""

    text: str
    opens_text: bool  # False: it continues the text of the piece before it


def split_pieces(texts: Iterable[str], max_chars: int = _PIECE_CHARS) -> Iterator[Piece]:
    """Cut long texts before white space, which no tokenizer's token or word crosses."""
    for text in texts:
        begin = 0
        while len(text) - begin > max_chars:
            end = _cut_before(text, begin, begin + max_chars)
            yield Piece(text[begin:end], begin == 0)
            begin = end
        yield Piece(text[begin:], begin == 0)


def _cut_before(text: str, begin: int, end: int) -> int:
    """Return a place to cut before `end`: before the last line end, else before the last space, else inside a word."""
    middle = begin + (end - begin) // 2
    for space in ("\n", " "):
        place = text.rfind(space, middle, end)
        while place > middle and text[place - 1].isspace():  # a run of white space is one pre-token
            place -= 1
        if place > middle:
            return place
    # Not between a base and its combining marks.
    while end > middle and unicodedata.category(text[end]).startswith("M"):
        end -= 1
    return end


def _batches(texts: Iterable[str]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    size = 0
    for piece in split_pieces(texts):
        batch.append(piece)
        size += len(piece.text) + 16  # 16: bounds the number of empty and tiny texts in a batch
        if size >= _BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encode_corpus(
    texts: Texts, backend: tokenizers.Tokenizer, unk_id: int | None, directory: Path
) -> dict[str, Any]:
    """Write `tokens.bin`, `word_starts.bin` and `offsets.bin` (see `store.TokenStore`), and return the meta data.

    Memory does not grow with the corpus.

    Args:
      texts: of the corpus.
      backend: without truncation and padding.
      unk_id: id of the unknown token, if there is one.
      directory: an existing one, where the files are written.

    Raises:
      UserError: no text gives a token.
      OSError: the disk is full.
    """
    tables = word_tables(backend)
    dtype = np.dtype(np.uint16 if len(tables.punctuation) <= 1 << 16 else np.uint32)
    totals = {"texts": 0, "tokens": 0, "words": 0, "chars": 0, "unk": 0, "no_tokens": 0}
    length = 0  # tokens so far of the text that is open
    with (
        (directory / "tokens.bin").open("wb") as tokens_file,
        (directory / "word_starts.bin").open("wb") as starts_file,
        (directory / "offsets.bin").open("wb") as offsets_file,
        _progress(texts) as advance,
    ):
        _append(offsets_file, np.zeros(1, np.int64))
        for batch, encodings, last in _encode_ahead(_batches(texts), backend):
            ids, starts, lengths = token_arrays(batch, encodings, tables)
            _append(tokens_file, ids.astype(dtype))
            _append(starts_file, starts)
            ends: list[int] = []
            total = totals["tokens"]
            for piece, n in zip(batch, lengths.tolist(), strict=True):
                if piece.opens_text and length:
                    ends.append(total)
                    length = 0
                length += n
                total += n
                totals["no_tokens"] += piece.opens_text and not n  # a first piece is never all white space
            if last and length:
                ends.append(total)
            _append(offsets_file, np.array(ends, np.int64))
            totals["texts"] += len(ends)
            totals["tokens"] = total
            totals["words"] += int(np.count_nonzero(starts))
            totals["chars"] += sum(len(piece.text) for piece in batch)
            totals["unk"] += int(np.count_nonzero(ids == unk_id)) if unk_id is not None else 0
            advance(len(batch))
    if not totals["tokens"]:
        raise UserError(f"{texts.describe}: none of its {totals['no_tokens']} texts gives a token")
    return {**totals, "dtype": dtype.name, "counts": dict(texts.counts), "source": texts.describe}


def _encode_ahead(
    batches: Iterator[list[Piece]], backend: tokenizers.Tokenizer
) -> Iterator[tuple[list[Piece], list[tokenizers.Encoding], bool]]:
    """Yield (batch, its encodings, whether it is the last one); the next batch is encoded while one is used."""

    def encode(batch: list[Piece]) -> list[tokenizers.Encoding]:
        return backend.encode_batch([piece.text for piece in batch], add_special_tokens=False)

    # Rust encodes on all cores without the interpreter's lock, so one thread is enough to overlap.
    with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as pool:
        batch = next(batches, None)
        future = pool.submit(encode, batch) if batch else None
        while batch and future:
            following = next(batches, None)
            encodings = future.result()
            future = pool.submit(encode, following) if following else None
            yield batch, encodings, following is None
            batch = following


def _append(file: BinaryIO, array: np.ndarray) -> None:
    # `tofile` would report a full disk without its errno.
    file.write(array.tobytes())


def token_arrays(
    batch: list[Piece], encodings: list[tokenizers.Encoding], tables: WordTables
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return `ids [T]` int64 and `word_starts [T]` bool of all pieces in order, and `lengths [pieces]` int64."""
    id_lists = [encoding.ids for encoding in encodings]
    lengths = np.fromiter(map(len, id_lists), np.int64, len(id_lists))
    total = int(lengths.sum())
    ids = np.fromiter(itertools.chain.from_iterable(id_lists), np.int64, total)
    word_lists = [encoding.word_ids for encoding in encodings]
    try:
        word_ids = np.fromiter(itertools.chain.from_iterable(word_lists), np.int64, total)
    except TypeError:  # None: a token outside every word
        plain = (-1 if word is None else word for word in itertools.chain.from_iterable(word_lists))
        word_ids = np.fromiter(plain, np.int64, total)
    starts = word_starts(ids, word_ids, tables)
    ends = np.cumsum(lengths)
    begins = ends - lengths
    starts[begins[lengths > 0]] = True
    for piece, encoding, begin, end in zip(batch, encodings, begins.tolist(), ends.tolist(), strict=True):
        if end - begin > 1 and needs_characters(piece.text, tables):
            offsets = np.array(encoding.offsets, np.int64)
            here = slice(begin, end)
            starts[here] = refine(piece.text, ids[here], word_ids[here], offsets, starts[here], tables)
    return ids, starts, lengths


@contextlib.contextmanager
def _progress(texts: Texts) -> Iterator[Callable[[int], None]]:
    """Show a bar over the bytes of the files where these are known, else count the texts."""
    total, done = texts.total_bytes, 0
    with ProgressBar(total) as bar:

        def advance(pieces: int) -> None:
            nonlocal done
            done += pieces
            size = f"{texts.position / 1e6:,.1f} of {total / 1e6:,.1f} MB" if total else f"{done:,} texts"
            bar.update(texts.position if total else done, f"tokenizing: {size}")

        yield advance
