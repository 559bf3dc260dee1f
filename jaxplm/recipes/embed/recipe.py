"""The recipe `embed`: write the vectors of a corpus to files, and the encoder for sentence-transformers."""

import logging
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import jax
import numpy as np

from jaxplm.config import Config
from jaxplm.data.checksums import Records
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
from jaxplm.recipes.embed.files import VectorFiles, damaged_files, is_complete, read_index, remove_index
from jaxplm.recipes.embed.model import EmbeddingModel, load_embedding_model
from jaxplm.version import VERSION

log = logging.getLogger("jaxplm")

# Without pooling there are as many vectors as tokens: about 65,000 per block.
_BLOCK_CHARS_BY_TOKEN = 1 << 18
# Rows and characters at the beginning of the corpus by which the length of rows is chosen.
_SAMPLE_ROWS, _SAMPLE_CHARS = 4096, 1 << 20
_LOG_EVERY = 10.0  # seconds


def run(config: Config, workdir: Path, command: str) -> None:
    """Write `workdir/embeddings`, one vector for every row of `data.train` in its order, and `workdir/export`.

    Shards that an interrupted run has completed are kept; the files are the same as without the interruption.

    Raises:
      UserError: the config, the data or the workdir cannot be used.
      Interrupted: stopped by a signal.
    """
    claim(workdir, config, write=False)
    embeddings = workdir / "embeddings"
    if broadcast(int(is_first() and _is_finished(workdir, embeddings))):
        return
    with StopRequest() as stop:
        mesh = sharding.make_mesh(config.mesh)
        sharding.check_batch(config.train.batch_size, 1, mesh)
        data = config.data
        texts = open_corpus(data, data.train, max_rows=data.max_rows, every_row=True)
        model = load_embedding_model(config.model.path, config.embed)
        model.config.check_length(data.seq_len, "data.seq_len", config.model.path)
        claim(workdir, config, write=is_first(), corpus=texts.fingerprint[:16])
        _Run(config, workdir, command, texts, model, mesh, stop).go()


def _is_finished(workdir: Path, embeddings: Path) -> bool:
    """Return whether the vectors and the export are there and are what was written; the log names what is damaged."""
    if not is_complete(embeddings):
        return False
    records, export = Records(workdir), workdir / "export"
    damaged = damaged_files(embeddings, records) + records.damaged(export)
    if damaged and damaged != ["export/README.md is not what was written"]:  # a user may describe the model
        log.warning("%s is damaged: %s: the vectors are computed again", workdir, "; ".join(damaged[:3]))
        remove_index(embeddings)
        return False
    index = read_index(embeddings)
    log.info("%s is finished: %s vectors of %s rows in %s; choose another --workdir for another run", workdir,
             f"{index['vectors']:,}", f"{index['rows']:,}", embeddings)
    return True


class _Run:
    """One pass over the corpus, from the first row whose vector is missing to the end."""

    def __init__(
        self,
        config: Config,
        workdir: Path,
        command: str,
        texts: Texts,
        model: EmbeddingModel,
        mesh: jax.sharding.Mesh,
        stop: StopRequest,
    ) -> None:
        self.config = config
        self.workdir = workdir
        self.command = command
        self.texts = texts
        self.model = model
        self.mesh = mesh
        self.stop = stop
        self.by_token = config.embed.pooling == "none"
        self.frame = framing(model.tokenizer)
        self.files = self._open_files() if is_first() else None  # one process writes
        # Since this process started: rows of the input, their tokens, and computed tokens with padding.
        self.rows = self.tokens = self.places = 0
        self.began = self.logged = time.monotonic()

    def _open_files(self) -> VectorFiles:
        settings = self.config.embed
        return VectorFiles(
            self.workdir / "embeddings",
            self.model.config.width,
            np.dtype(settings.dtype),
            settings.shard_rows,
            self.model.fingerprint(),
            by_token=self.by_token,
        )

    def go(self) -> None:
        """Compute and write what is missing, then the index and the export.

        Raises:
          Interrupted: stopped by a signal.
          UserError: see `TextEncoder`.
        """
        start = broadcast(self.files.rows if self.files else 0)
        if start:
            log.info("resuming after row %s", f"{start:,}")
        encoder = self._encoder()
        stream = text_blocks(self.texts, self.model.tokenizer, self.config.data.seq_len, start=start,
                             edge=0 if self.by_token else self.config.embed.shard_rows,
                             max_chars=_BLOCK_CHARS_BY_TOKEN if self.by_token else BLOCK_CHARS)
        try:
            with closing(_prepared_ahead(stream, encoder)) as blocks:
                for block, batches in blocks:
                    self._add(block, batches, encoder(batches, self._after_batch))
            if self.files:
                self._finish(self.files)
            wait_for_all("embeddings")
        finally:
            if self.files:
                self.files.close()

    def _encoder(self) -> TextEncoder:
        """Return the encoder for rows that suit the beginning of the corpus.

        A run that resumes from a later row gets the same one.
        """
        longest = self.config.data.seq_len
        sample = next(
            text_blocks(self.texts, self.model.tokenizer, longest, max_rows=_SAMPLE_ROWS, max_chars=_SAMPLE_CHARS)
        )
        length = row_length(sample.encoded.lengths, longest, self.model.config.width)
        log.info(
            "rows of %d tokens, each filled with one or more texts; texts are cut at data.seq_len=%d tokens",
            length,
            longest,
        )
        return TextEncoder(self.model, self.config.embed, self.mesh, resolve_compute(self.config.compute, self.mesh),
                           rows=self.config.train.batch_size, length=length)

    def _after_batch(self, units: int) -> None:
        """Log the progress now and then; raise `Interrupted` after a signal."""
        self.rows += units
        now = time.monotonic()
        if now - self.logged > _LOG_EVERY:
            self.logged = now
            log.info("%s rows so far, %.0f rows/s", f"{self.rows:,}", self.rows / (now - self.began))
        if status := self.stop.agreed():
            saved = self.files.rows if self.files else 0
            raise Interrupted(
                status, f"stopped, the vectors of {saved:,} rows are saved: the same command resumes after them"
            )

    def _add(self, block: TextBlock, batches: BlockBatches, vectors: np.ndarray) -> None:
        """Write the vectors of a block."""
        encoded = block.encoded
        self.tokens += batches.real_tokens
        self.places += batches.places
        if self.files is None:
            return
        counts = {"empty": block.empty, "truncated": encoded.truncated}
        shards_before = len(self.files.shards)
        if self.by_token:
            inside, sizes = text_tokens(encoded, self.frame)
            self.files.add(vectors[inside], len(encoded), counts, encoded.ids[inside], sizes)
        else:
            self.files.add(vectors, len(encoded), counts)
        if len(self.files.shards) > shards_before:
            log.info("%s is complete: %s rows so far", self.files.shards[-1]["file"], f"{self.files.rows:,}")

    def _finish(self, files: VectorFiles) -> None:
        """Write the export and the index, and log what was done."""
        config, settings, texts = self.config, self.config.embed, self.texts
        seconds = max(time.monotonic() - self.began, 1e-9)
        files.finish_arrays()
        exported = self._export()
        layers = {"mix": list(settings.mix)} if settings.mix else {"layers": settings.layers}
        index = files.finish({
            "version": VERSION, "model": config.model.path, "data": config.data.train, "fingerprint": texts.fingerprint,
            "pooling": settings.pooling, **layers, "normalize": settings.normalize, "seq_len": config.data.seq_len,
        })
        Records(self.workdir).add(self.workdir / "embeddings", *([exported] if exported else []))
        if index["empty"]:
            log.warning("%s: %s of %s rows are without text and have the vector of an empty text", texts.describe,
                        f"{index['empty']:,}", f"{index['rows']:,}")
        if index["truncated"]:
            log.warning("%s: %s of %s rows are longer than data.seq_len=%d tokens and were cut", texts.describe,
                        f"{index['truncated']:,}", f"{index['rows']:,}", config.data.seq_len)
        if self.rows:
            log.info(
                "%s rows, %s tokens in %.1f s: %.0f rows/s, %.0f tokens/s, %.1f %% of the computed tokens are padding",
                f"{self.rows:,}",
                f"{self.tokens:,}",
                seconds,
                self.rows / seconds,
                self.tokens / seconds,
                100 * (1 - self.tokens / self.places),
            )
        log.info(
            "embeddings: %s vectors of %d numbers in %s",
            f"{index['vectors']:,}",
            index["width"],
            self.workdir / "embeddings",
        )
        log.info("%s", f"export for sentence-transformers: {exported}" if exported else
                 "no export for sentence-transformers, which cannot mix layers or give the vectors of tokens")

    def _export(self) -> Path | None:
        """Write the encoder up to the layer that is used, and return its directory.

        None if layers are mixed or tokens are not pooled.
        """
        settings, model = self.config.embed, self.model
        if self.by_token or not model.is_plain:
            return None
        return save_sentence_encoder(
            self.workdir / "export",
            model.config,
            model.params,
            model.tokenizer,
            model.hf_config,
            pooling=settings.pooling,
            normalize=settings.normalize,
            seq_len=self.config.data.seq_len,
            files={"README.md": embedding_card(self.config, model, self.command)},
        )


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
