"""Compute the vectors of a corpus and write those that are missing."""

import logging
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Any

import jax

from jaxplm import nn
from jaxplm.config import Embed
from jaxplm.data.labelled.row_length import row_length
from jaxplm.data.labelled.text_blocks import BLOCK_CHARS, TextBlock, framing, text_blocks, text_tokens
from jaxplm.data.prefetch import prefetch
from jaxplm.devices.processes import broadcast
from jaxplm.engine.signals import StopRequest
from jaxplm.errors import Interrupted
from jaxplm.recipes.embed.encoder import BlockBatches, TextEncoder
from jaxplm.recipes.embed.files import VectorFiles
from jaxplm.recipes.embed.model import EmbeddingModel
from jaxplm.reporting.numbers import duration

log = logging.getLogger("jaxplm")

# Without pooling there are as many vectors as tokens: about 65,000 per block.
_BLOCK_CHARS_BY_TOKEN = 1 << 18
# Rows and characters at the beginning of the corpus by which the length of rows is chosen.
_SAMPLE_ROWS, _SAMPLE_CHARS = 4096, 1 << 20
_LOG_EVERY = 10.0  # seconds


def fitted_encoder(texts: Iterable[str], model: EmbeddingModel, settings: Embed, mesh: jax.sharding.Mesh, compute: nn.Compute, *,
                   seq_len: int, batch_size: int) -> TextEncoder:
    """Return the encoder for rows that suit the beginning of the corpus.

    A run that resumes from a later row gets the same one.
    """
    sample = next(text_blocks(texts, model.tokenizer, seq_len, max_rows=_SAMPLE_ROWS, max_chars=_SAMPLE_CHARS))
    length = row_length(sample.encoded.lengths, seq_len, model.config.width)
    log.info("rows of %d tokens, each filled with one or more texts; texts are cut at data.seq_len=%d tokens", length, seq_len)
    return TextEncoder(model, settings, mesh, compute, rows=batch_size, length=length)


class VectorWriter:
    """One pass over a corpus, from the first row whose vector is missing to the end.

    Args:
      texts: of the corpus, in the same order each time.
      tokenizer: of the model.
      encoder: of `fitted_encoder`.
      files: where the first process writes; None in the others.
      stop: asked after each batch.
      seq_len: tokens per text, at most.
      shard_rows: vectors per file.
      total: texts of the corpus, where they are known: the log gives the time that is left.

    Attributes:
      rows, tokens, places: since this process started: rows of the input, their tokens, and computed tokens with padding.
      began: by `time.monotonic`.
    """

    def __init__(self, texts: Iterable[str], tokenizer: Any, encoder: TextEncoder, files: VectorFiles | None, stop: StopRequest, *,
                 seq_len: int, shard_rows: int, total: int | None = None) -> None:
        self._texts, self._tokenizer, self._encoder, self._files, self._stop = texts, tokenizer, encoder, files, stop
        self._seq_len, self._shard_rows, self._total = seq_len, shard_rows, total
        self._frame = framing(tokenizer)
        self._start = 0
        self.rows = self.tokens = self.places = 0
        self.began = self._logged = time.monotonic()

    def write(self) -> None:
        """Compute and write what is missing; the files are not finished.

        Raises:
          Interrupted: stopped by a signal.
          UserError: see `TextEncoder`.
        """
        start = self._start = broadcast(self._files.rows if self._files else 0)
        if start:
            log.info("resuming after row %s", f"{start:,}")
        by_token = self._encoder.by_token
        stream = text_blocks(self._texts, self._tokenizer, self._seq_len, start=start, edge=0 if by_token else self._shard_rows,
                             max_chars=_BLOCK_CHARS_BY_TOKEN if by_token else BLOCK_CHARS)
        with closing(_prepared_ahead(stream, self._encoder)) as blocks:
            for block, batches in blocks:
                self._add(block, batches)

    def _after_batch(self, units: int) -> None:
        """Log the progress now and then; raise `Interrupted` after a signal."""
        self.rows += units
        now = time.monotonic()
        if now - self._logged > _LOG_EVERY:
            self._logged = now
            rate = self.rows / (now - self.began)
            if self._total is None:
                log.info("%s rows so far, %.0f rows/s", f"{self.rows:,}", rate)
            else:
                done = self._start + self.rows
                log.info("%s of %s rows, %.0f rows/s, ETA %s", f"{done:,}", f"{self._total:,}", rate, duration((self._total - done) / rate))
        if status := self._stop.agreed():
            saved = self._files.rows if self._files else 0
            raise Interrupted(
                status, f"stopped, the vectors of {saved:,} rows are saved: the same command resumes after them"
            )

    def _add(self, block: TextBlock, batches: BlockBatches) -> None:
        """Compute and write the vectors of a block."""
        vectors = self._encoder(batches, self._after_batch)
        encoded = block.encoded
        self.tokens += batches.real_tokens
        self.places += batches.places
        if self._files is None:
            return
        counts = {"empty": block.empty, "truncated": encoded.truncated}
        shards_before = len(self._files.shards)
        if self._encoder.by_token:
            inside, sizes = text_tokens(encoded, self._frame)
            self._files.add(vectors[inside], len(encoded), counts, encoded.ids[inside], sizes)
        else:
            self._files.add(vectors, len(encoded), counts)
        if len(self._files.shards) > shards_before:
            log.info("%s is complete: %s rows so far", self._files.shards[-1]["file"], f"{self._files.rows:,}")


def _prepared_ahead(
    stream: Iterator[TextBlock], encoder: TextEncoder
) -> Generator[tuple[TextBlock, BlockBatches], None, None]:
    """Yield the blocks with their batches; the next one is read, tokenized and packed while one is computed."""
    def next_block(_: int) -> tuple[TextBlock, BlockBatches] | None:
        block = next(stream, None)
        return None if block is None else (block, encoder.batches(block.encoded))

    with closing(prefetch(next_block, 0, sys.maxsize, depth=1)) as pairs:
        for pair in pairs:
            if pair is None:
                return
            yield pair
