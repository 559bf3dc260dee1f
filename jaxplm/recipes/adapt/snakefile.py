"""A comparison's stages as a Snakemake workflow: a rule per stage."""

import re
import shlex
from pathlib import Path

from jaxplm.recipes.adapt import state
from jaxplm.recipes.adapt.plan import Plan, Stage
from jaxplm.recipes.adapt.stage import MODULE, PARENT

FILE = "Snakefile"
_NAME = re.compile(r"[\w.+=-]+(/[\w.+=-]+)*", re.ASCII)  # nothing that means something to Snakemake, Python or a shell
# What a cluster reserves for a stage; a profile can set other values ("set-resources").
_MINUTES, _MEGABYTES = 240, 16_000


def snakefile(plan: Plan, workdir: Path, python: str, here: Path) -> str:
    """Return the text of a Snakefile whose directory is the workdir.

    All data in it are literals of Python, and words that are quoted for the shell.

    Args:
      python: the interpreter that runs the stages.
      here: the directory in which the comparison was started; relative paths of its fields begin there.
    """
    needed = {need for stage in plan.stages for need in stage.needs}
    last = [stage for stage in plan.stages if stage.name not in needed]
    names = _rule_names([stage.name for stage in plan.stages])
    rules = [_rule(stage, name, plan, _shell(stage, workdir, python, here)) for stage, name in zip(plan.stages, names, strict=True)]
    return "\n".join([
        "# Written by `jaxplm --config=adapt`: the stages of a comparison. Each start of the comparison writes this file again.",
        "# By hand, in its directory: snakemake --cores 2 --keep-going --rerun-triggers mtime",
        "",
        'GPUS = int(config.get("gpus", 0))  # per stage, for a cluster: "config: gpus=1" in a profile',
        "",
        "rule all:",
        f"    input: {_files(last)}",
        "",
        *rules,
    ])


def _rule_names(stages: list[str]) -> list[str]:
    """Return a different identifier for each stage, by which a profile can name it: "stage_dapt_tapt"."""
    found: list[str] = []
    for stage in stages:
        name = f"stage_{re.sub(r'[^a-z0-9]+', '_', stage.lower())}"
        found.append(name if name not in found else f"{name}_{len(found)}")
    return found


def _rule(stage: Stage, name: str, plan: Plan, shell: str) -> str:
    needs = [plan[need] for need in stage.needs]
    return "\n".join([
        f"rule {name}:",
        *([f"    input: {_files(needs)}"] if needs else []),
        f"    output: {_files([stage])}",
        f"    log: {ascii(_checked(stage.place) + '/' + state.LOG)}",
        f"    resources: runtime={_MINUTES}, mem_mb={_MEGABYTES}, gpu=GPUS",
        f"    shell: {ascii(shell)}",
        "",
    ])


def _files(stages: list[Stage]) -> str:
    return ", ".join(ascii(f"{_checked(stage.place)}/{state.ENDED}") for stage in stages)


def _checked(place: str) -> str:
    if not _NAME.fullmatch(place):
        raise ValueError(f"the name of a stage must have letters, digits and . + = - / only: {place}")
    return place


def _shell(stage: Stage, workdir: Path, python: str, here: Path) -> str:
    """Return the command of a stage as Snakemake gives it to bash. Braces are doubled: Snakemake replaces what is in single ones."""
    words = [python, "-m", MODULE, str(workdir), _checked(stage.name)]
    # `exec`: the stage's parent is Snakemake itself, whose number bash knows as PPID. When that is gone, the stage saves and ends.
    return f"cd {shlex.quote(str(here))} && {PARENT}=$PPID exec {shlex.join(words)}".replace("{", "{{").replace("}", "}}")
