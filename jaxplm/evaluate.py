"""Evaluation alone: the MLM loss of a model on frozen masks, in its domain and on general text."""

import logging
import math
import time
from pathlib import Path

import jax

from jaxplm import evaluate_task, hf, nn, sharding
from jaxplm.config import Config
from jaxplm.data.pipeline import FrozenBatches
from jaxplm.data.words import token_characters
from jaxplm.errors import UserError
from jaxplm.logs import MetricLog, summary_table
from jaxplm.metrics import Sums, add
from jaxplm.runtime import is_first, resolve_compute
from jaxplm.start import Tokenized, start_model
from jaxplm.step import EvalStep, make_eval_step
from jaxplm.sweep import sweep
from jaxplm.tasks.mlm import MaskedLanguageModelling
from jaxplm.tasks.mlm_pairs import MaskedPairs
from jaxplm.workdir import claim

log = logging.getLogger("jaxplm")


def evaluation_sums(eval_step: EvalStep, params: nn.ParamTree, batches: FrozenBatches, batch_size: int,
                    mesh: jax.sharding.Mesh) -> Sums:
    """The task's sums over a whole evaluation set; a few numbers a batch are all that leaves the device."""
    return add(sweep(eval_step, params, batches, batch_size, mesh))


def run(config: Config, workdir: Path, command: str) -> None:
    """Print and write (metrics.jsonl) loss, perplexity and accuracy on `data.validation`, `data.test` and `data.general`;
    of a fine-tuned model its task's scores, see `evaluate_task.run`.

    The masks are those of the training runs' evaluations, so the numbers can be compared with theirs where
    `data.seq_len`, `data.packing`, `data.mask_rate` and `data.whole_word` are the same.

    Raises UserError where model or data cannot be used, or `task.kind` is given and the model has no task's head.
    """
    del command
    claim(workdir, config, write=False)
    if config.model.path and hf.has_task_head(config.model.path):
        return evaluate_task.run(config, workdir)
    if config.task.kind:
        raise UserError(f"task.kind={config.task.kind}: {config.model.path or 'a new model'} has no head of a task: fine-tune it first"
                        " (configs/finetune.py)")
    batch_size = config.train.batch_size
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch(batch_size, 1, mesh)
    model = start_model(config, workdir)
    tokenized = Tokenized(config, model.tokenizer, sharding.my_rows(batch_size, mesh))
    graph, abstract = nn.graph_of(model.config)
    characters = token_characters(model.tokenizer.backend_tokenizer)
    task = (MaskedPairs if config.model.pairs else MaskedLanguageModelling)(characters)
    step = make_eval_step(graph, task.sums, abstract, mesh, compute=resolve_compute(config.compute, mesh))
    params = jax.tree.map(sharding.place, model.params, sharding.param_shardings(abstract, mesh))
    claim(workdir, config, write=is_first())
    table = [("", "loss", "perplexity", "accuracy", "masked tokens", *(["pair accuracy"] if config.model.pairs else []))]
    with MetricLog(workdir, enabled=is_first()) as metrics:
        for split, source in (("validation", config.data.validation), ("test", config.data.test), ("general", config.data.general)):
            if not source:
                continue
            began = time.monotonic()
            store = tokenized.store(source, split="test" if split == "test" else "validation")
            sums = evaluation_sums(step, params, tokenized.frozen(store, tokenized.plan(store, 0), batch_size), batch_size, mesh)
            found = task.metrics(sums)
            metrics.write(0, split, found | {"seconds": round(time.monotonic() - began, 3)})
            if math.isfinite(found["loss"]):
                table.append((f"{split}: {source}", f"{found['loss']:.4f}", f"{found['perplexity']:.2f}",
                              f"{found['accuracy']:.2%}", f"{sums['weight']:,.0f}",
                              *([f"{found['pair_accuracy']:.2%}"] if config.model.pairs else [])))
    for line in summary_table(table, header=True).split("\n"):
        log.info("%s", line)
