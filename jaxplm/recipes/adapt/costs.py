"""What stages cost: tokens, operations, time and energy, by their files."""

import functools
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxplm.config import Config
from jaxplm.data.checksums import read_json
from jaxplm.hf.config import config_from_hf
from jaxplm.nn import flops
from jaxplm.nn.config import EncoderConfig
from jaxplm.recipes.adapt import state
from jaxplm.recipes.adapt.plan import Stage
from jaxplm.recipes.adapt.stage_config import stage_config
from jaxplm.reporting.comparison.comparison import Cost
from jaxplm.reporting.metric_log import read_metrics

_TRAINED = re.compile(r"([\d,]+), of which ([\d,]+) are trained")


def total(costs: Iterable[Cost]) -> Cost:
    """Return the sum of costs; the energy is None where that of one is not known."""
    costs = list(costs)
    joules = [cost.joules for cost in costs]
    return Cost(sum(cost.tokens for cost in costs), math.fsum(cost.flops for cost in costs), math.fsum(cost.seconds for cost in costs),
                None if None in joules or not costs else math.fsum(joule for joule in joules if joule is not None))


def cost_of(workdir: Path, stage: Stage) -> Cost:
    """Return what a stage that has ended cost, all its seeds together."""
    place = workdir / stage.place
    note: dict[str, Any] = state.read_ended(workdir, stage) or {}
    tokens = sum(int(row.get("tokens", 0)) for run in runs_of(place) for row in metrics(run) if row["split"] == "train")
    return Cost(tokens, flops_of(stage, place, tokens), note.get("seconds", 0.0), note.get("joules"))


def flops_of(stage: Stage, place: Path, tokens: float) -> float:
    """Return the operations of training on so many tokens; 0 of a stage without an export, such as a selection."""
    path = place / "export" / "config.json"
    if not path.exists():
        return 0.0
    return flops_by(config_from_hf(read_json(path), str(path)), stage_config(stage.recipe, stage.fields), tokens)


def flops_by(encoder: EncoderConfig, settings: Config, tokens: float) -> float:
    """Return the operations of an ordinary run with these settings on so many tokens, all seeds together."""
    length = settings.data.seq_len
    match settings.recipe:
        case "finetune":
            return tokens * flops.trained(encoder, length)
        case "feature_extraction":
            # The vectors are computed once: for one seed, or for all of them where they start from the same encoder.
            passes = max(1.0, settings.train.epochs or 1.0) * (1 if settings.model.random else len(settings.train.seeds) or 1)
            return tokens / passes * flops.trained(encoder, length, "nothing")
    trained = "extension" if settings.recipe == "exbert" and settings.train.freeze else "all"
    return flops.mlm_training(encoder, tokens, settings.data.mask_rate * tokens, length, trained)


def runs_of(place: Path) -> list[Path]:
    """Return the directories of a stage's runs: one per seed, or its own."""
    seeds = sorted((path for path in place.glob("seed-*") if path.is_dir()), key=lambda path: int(path.name[5:]))
    return seeds or ([place] if (place / "metrics.jsonl").exists() else [])


@functools.lru_cache(maxsize=256)
def _rows(path: Path, changed: int) -> list[dict[str, Any]]:
    del changed  # part of the key
    return read_metrics(path)


def metrics(run: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's metrics.jsonl; none where there is no such file."""
    path = run / "metrics.jsonl"
    return _rows(path, path.stat().st_mtime_ns) if path.exists() else []


def trained_parameters(run: Path) -> int:
    """Return how many parameters a run of a task trains, by its report; 0 where it has none."""
    try:
        found = _TRAINED.search((run / "report.md").read_text("utf-8"))
    except OSError:
        return 0
    return int(found[2].replace(",", "")) if found else 0

