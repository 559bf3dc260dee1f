"""Run `configs/evaluate.py`: the MLM loss of a model, or the scores of a fine-tuned one."""

from pathlib import Path

from jaxplm import hf
from jaxplm.config import Config
from jaxplm.engine.workdir import claim
from jaxplm.errors import UserError
from jaxplm.recipes.evaluate import mlm, task


def run(config: Config, workdir: Path, command: str) -> None:
    """Evaluate `model.path` on the sets that the config names, as a masked language model or as a task's model, by its head.

    Raises:
      UserError: model or data cannot be used, or `task.kind` is given and the model has no head of a task.
    """
    del command
    claim(workdir, config, write=False)
    if config.model.path and hf.has_task_head(config.model.path):
        task.run(config, workdir)
    elif config.task.kind:
        raise UserError(f"task.kind={config.task.kind}: {config.model.path or 'a new model'} has no head of a task: fine-tune it first"
                        " (configs/finetune.py)")
    else:
        mlm.run(config, workdir)
