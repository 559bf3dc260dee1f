"""The recipe `embed`: the vectors of a corpus to files, and the encoder for sentence-transformers."""

import logging
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import jax
import numpy as np

from jaxplm.config import Config
from jaxplm.data.labelled.row_length import row_length
from jaxplm.data.labelled.text_blocks import BLOCK_CHARS, TextBlock, framing, text_blocks, text_tokens
from jaxplm.data.prefetch import prefetch
from jaxplm.data.sources.texts import Texts, open_corpus
from jaxplm.devices import sharding
from jaxplm.devices.compute import resolve_compute
from jaxplm.devices.processes import broadcast, is_first, wait_for_all
from jaxplm.engine.signals import StopRequest
from jaxplm.engine.workdir import claim
from jaxplm.errors import Interrupted
from jaxplm.hf.sentence_export import save_sentence_encoder
from jaxplm.recipes.embed.card import embedding_card
from jaxplm.recipes.embed.encoder import BlockBatches, TextEncoder
from jaxplm.recipes.embed.files import VectorFiles, is_complete, read_index
from jaxplm.recipes.embed.layers import Source, open_source
from jaxplm.version import VERSION

log = logging.getLogger("jaxplm")

# Without pooling there are as many vectors as tokens: some 65,000 a block.
_BLOCK_CHARS_BY_TOKEN = 1 << 18
_SAY_EVERY = 10.0  # seconds


def run(config: Config, workdir: Path, command: str) -> None:
    """Write `workdir/embeddings`, one vector for every row of `data.train` in its order, and `workdir/export`.

    Shards that an interrupted run has completed are kept; the files are the same as without the interruption.

    Raises:
      UserError: the config, the data or the workdir cannot be used.
      Interrupted: stopped by a signal.
    """
    claim(workdir, config, write=False)
    if is_complete(workdir / "embeddings"):
        found = read_index(workdir / "embeddings")
        log.info("%s is finished: %s vectors of %s rows in %s; choose another --workdir for another run", workdir,
                 f"{found['vectors']:,}", f"{found['rows']:,}", workdir / "embeddings")
        return
    with StopRequest() as stop:
        mesh = sharding.make_mesh(config.mesh)
        sharding.check_batch(config.train.batch_size, 1, mesh)
        data = config.data
        texts = open_corpus(data, data.train, max_rows=data.max_rows, every_row=True)
        source = open_source(config.model.path, config.embed)
        source.config.check_length(data.seq_len, "data.seq_len", config.model.path)
        claim(workdir, config, write=is_first(), corpus=texts.fingerprint[:16])
        _Run(config, workdir, command, texts, source, mesh, stop).go()


class _Run:
    """One run over the corpus."""

    def __init__(self, config: Config, workdir: Path, command: str, texts: Texts, source: Source, mesh: jax.sharding.Mesh,
                 stop: StopRequest) -> None:
        self.config, self.workdir, self.command, self.texts, self.source, self.mesh = config, workdir, command, texts, source, mesh
        self.stop = stop
        self.by_token = config.embed.pooling == "none"
        self.frame = framing(source.tokenizer)
        self.files = VectorFiles(workdir / "embeddings", source.config.width, np.dtype(config.embed.dtype), config.embed.shard_rows,
                                 source.digest(), by_token=self.by_token) if is_first() else None  # one process writes
        self.rows = self.tokens = self.places = 0  # of this process's time: rows of the input; tokens; tokens with padding
        self.began = self.said = time.monotonic()

    def go(self) -> None:
        start = broadcast(self.files.rows if self.files else 0)
        if start:
            log.info("going on after row %s", f"{start:,}")
        encoder = self._encoder()
        settings = self.config.embed
        stream = text_blocks(self.texts, self.source.tokenizer, self.config.data.seq_len, start=start,
                             edge=0 if self.by_token else settings.shard_rows,
                             max_chars=_BLOCK_CHARS_BY_TOKEN if self.by_token else BLOCK_CHARS)
        try:
            with closing(_ahead(stream, encoder)) as blocks:
                for block, batches in blocks:
                    self._add(block, batches, encoder(batches, self._between))
            if self.files:
                self._finish(self.files)
            wait_for_all("embeddings")
        finally:
            if self.files:
                self.files.close()

    def _encoder(self) -> TextEncoder:
        """Return the encoder, compiled for rows that suit the beginning of the corpus, from whichever row the run resumes."""
        longest = self.config.data.seq_len
        beginning = next(text_blocks(self.texts, self.source.tokenizer, longest, max_rows=4096, max_chars=1 << 20))
        length = row_length(beginning.encoded.lengths, longest, self.source.config.width)
        log.info("rows of %d tokens, shared by texts of up to %d", length, longest)
        return TextEncoder(self.source, self.config.embed, self.mesh, resolve_compute(self.config.compute, self.mesh),
                           rows=self.config.train.batch_size, length=length)

    def _between(self, units: int) -> None:
        self.rows += units
        now = time.monotonic()
        if now - self.said > _SAY_EVERY:
            self.said = now
            log.info("%s rows so far, %.0f a second", f"{self.rows:,}", self.rows / (now - self.began))
        if status := self.stop.agreed():
            saved = self.files.rows if self.files else 0
            raise Interrupted(status, f"stopped, the vectors of {saved:,} rows are saved: the same command resumes from there")

    def _add(self, block: TextBlock, batches: BlockBatches, vectors: np.ndarray) -> None:
        encoded = block.encoded
        self.tokens += batches.real_tokens
        self.places += batches.places
        if self.files is None:
            return
        counts, complete = {"empty": block.empty, "truncated": encoded.truncated}, len(self.files.shards)
        if self.by_token:
            inside, sizes = text_tokens(encoded, self.frame)
            self.files.add(vectors[inside], len(encoded), counts, encoded.ids[inside], sizes)
        else:
            self.files.add(vectors, len(encoded), counts)
        if len(self.files.shards) > complete:
            log.info("%s: rows up to %s", self.files.shards[-1]["file"], f"{self.files.rows:,}")

    def _finish(self, files: VectorFiles) -> None:
        config, settings, texts = self.config, self.config.embed, self.texts
        seconds = max(time.monotonic() - self.began, 1e-9)
        files.finish_arrays()
        exported = self._export()
        layers = {"mix": list(settings.mix)} if settings.mix else {"layers": settings.layers}
        index = files.finish({
            "version": VERSION, "model": config.model.path, "data": config.data.train, "fingerprint": texts.fingerprint,
            "pooling": settings.pooling, **layers, "normalize": settings.normalize, "seq_len": config.data.seq_len,
        })
        if index["empty"]:
            log.warning("%s: %s of %s rows have no text; they have the vector of an empty text", texts.describe,
                        f"{index['empty']:,}", f"{index['rows']:,}")
        if index["truncated"]:
            log.warning("%s: %s of %s rows are longer than data.seq_len=%d tokens and are cut there", texts.describe,
                        f"{index['truncated']:,}", f"{index['rows']:,}", config.data.seq_len)
        if self.rows:
            log.info("%s rows, %s tokens in %.1f s: %.0f rows/s, %.0f tokens/s, %.1f %% of the computed tokens are padding",
                     f"{self.rows:,}", f"{self.tokens:,}", seconds, self.rows / seconds, self.tokens / seconds,
                     100 * (1 - self.tokens / self.places))
        log.info("embeddings: %s vectors of %d numbers in %s", f"{index['vectors']:,}", index["width"], self.workdir / "embeddings")
        log.info("%s", f"export for sentence-transformers: {exported}" if exported else
                 "no export for sentence-transformers, which has no several layers and no vectors of tokens alone")

    def _export(self) -> Path | None:
        """The encoder, cut down to the layer that is used, where one layer is used and tokens are pooled."""
        settings, source = self.config.embed, self.source
        if self.by_token or not source.plain:
            return None
        return save_sentence_encoder(
            self.workdir / "export", source.config, source.params, source.tokenizer, source.hf_config, pooling=settings.pooling,
            normalize=settings.normalize, seq_len=self.config.data.seq_len,
            files={"README.md": embedding_card(self.config, source, self.command)})


def _ahead(stream: Iterator[TextBlock], encoder: TextEncoder) -> Generator[tuple[TextBlock, BlockBatches], None, None]:
    """The blocks with their rows; the next one is read, tokenized and packed while one is computed."""
    def following(_: int) -> tuple[TextBlock, BlockBatches] | None:
        block = next(stream, None)
        return None if block is None else (block, encoder.batches(block.encoded))

    with closing(prefetch(following, 0, sys.maxsize, depth=1)) as made:
        for pair in made:
            if pair is None:
                return
            yield pair
