"""The recipe `embed`: write the vectors of a corpus to files, and the encoder for sentence-transformers."""

import logging
import time
from pathlib import Path

import jax
import numpy as np

from jaxplm.config import Config
from jaxplm.data.checksums import Records
from jaxplm.data.sources.texts import Texts, open_corpus
from jaxplm.devices import sharding
from jaxplm.devices.compute import resolve_compute
from jaxplm.devices.processes import broadcast, is_first, wait_for_all
from jaxplm.engine.signals import StopRequest
from jaxplm.engine.workdir import claim
from jaxplm.hf.sentence_export import save_sentence_encoder
from jaxplm.recipes.embed.card import embedding_card
from jaxplm.recipes.embed.files import VectorFiles, damaged_files, is_complete, read_index, remove_index
from jaxplm.recipes.embed.model import EmbeddingModel, load_embedding_model
from jaxplm.recipes.embed.writer import VectorWriter, fitted_encoder
from jaxplm.version import VERSION

log = logging.getLogger("jaxplm")


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
        self.files = self._open_files() if is_first() else None  # one process writes

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
        data, settings = self.config.data, self.config.embed
        encoder = fitted_encoder(self.texts, self.model, settings, self.mesh, resolve_compute(self.config.compute, self.mesh),
                                 seq_len=data.seq_len, batch_size=self.config.train.batch_size)
        writer = VectorWriter(self.texts, self.model.tokenizer, encoder, self.files, self.stop, seq_len=data.seq_len,
                              shard_rows=settings.shard_rows)
        try:
            writer.write()
            if self.files:
                self._finish(self.files, writer)
            wait_for_all("embeddings")
        finally:
            if self.files:
                self.files.close()

    def _finish(self, files: VectorFiles, writer: VectorWriter) -> None:
        """Write the export and the index, and log what was done."""
        config, settings, texts = self.config, self.config.embed, self.texts
        seconds = max(time.monotonic() - writer.began, 1e-9)
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
        if writer.rows:
            log.info(
                "%s rows, %s tokens in %.1f s: %.0f rows/s, %.0f tokens/s, %.1f %% of the computed tokens are padding",
                f"{writer.rows:,}",
                f"{writer.tokens:,}",
                seconds,
                writer.rows / seconds,
                writer.tokens / seconds,
                100 * (1 - writer.tokens / writer.places),
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
