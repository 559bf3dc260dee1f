"""Evaluation of a masked language model: its loss on fixed masks, in its domain and on general text."""

import logging
import math
import time
from pathlib import Path

import jax

from jaxplm import nn
from jaxplm.config import Config
from jaxplm.data.corpus.token_text import token_characters
from jaxplm.devices import sharding
from jaxplm.devices.compute import resolve_compute
from jaxplm.devices.processes import is_first
from jaxplm.engine.step import make_eval_step
from jaxplm.engine.sweep import evaluation_sums
from jaxplm.engine.workdir import claim
from jaxplm.recipes.pretrain.corpus import CorpusReader
from jaxplm.recipes.pretrain.model import start_model
from jaxplm.reporting.console import log_table
from jaxplm.reporting.metric_log import MetricLog
from jaxplm.tasks.objectives import selected_objective

log = logging.getLogger("jaxplm")


def run(config: Config, workdir: Path) -> None:
    """Print and write (metrics.jsonl) loss, perplexity and accuracy on `data.validation`, `data.test` and `data.general`.

    The masks are those of the training runs' evaluations, so the numbers can be compared with theirs where
    `data.seq_len`, `data.packing`, `data.mask_rate` and `data.whole_word` are the same.

    Raises:
      UserError: model or data cannot be used.
    """
    batch_size = config.train.batch_size
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch(batch_size, 1, mesh)
    model = start_model(config, workdir)
    reader = CorpusReader(config, model.tokenizer, sharding.local_rows(batch_size, mesh))
    graph, abstract = nn.abstract_model(model.config)
    characters = token_characters(model.tokenizer.backend_tokenizer)
    objective = selected_objective(config.model.pairs)
    task = objective.task(characters, 0, config.compute.logit_parts)
    step = make_eval_step(graph, task.sums, abstract, mesh, compute=resolve_compute(config.compute, mesh))
    params = jax.tree.map(sharding.place, model.params, sharding.param_shardings(abstract, mesh))
    claim(workdir, config, write=is_first())
    table = [("", "loss", "perplexity", "accuracy", "masked tokens", *objective.columns)]
    with MetricLog(workdir, enabled=is_first()) as metrics:
        for split, source in (("validation", config.data.validation), ("test", config.data.test), ("general", config.data.general)):
            if not source:
                continue
            began = time.monotonic()
            store = reader.store(source, split="test" if split == "test" else "validation")
            sums = evaluation_sums(step, params, reader.evaluation(reader.plan(store)), batch_size, mesh)
            found = task.metrics(sums)
            metrics.write(0, split, found | {"seconds": round(time.monotonic() - began, 3)})
            if math.isfinite(found["loss"]):
                table.append((f"{split}: {source}", f"{found['loss']:.4f}", f"{found['perplexity']:.2f}",
                              f"{found['accuracy']:.2%}", f"{sums['weight']:,.0f}",
                              *(f"{found[metric]:.2%}" for metric in objective.columns.values())))
    log_table(table, header=True)
