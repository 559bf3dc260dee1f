"""From the config of a comparison to its stages: a directed graph of ordinary runs, each in a workdir of its own."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxplm.config import Config, as_flag, fields_matching, flatten
from jaxplm.data import atomic
from jaxplm.recipes.adapt.overrides import parsed
from jaxplm.recipes.adapt.stage_config import defaults, fields_read

# Ways in the order of the table. Of each: the stages before the task, in order.
WAYS: Mapping[str, tuple[str, ...]] = {
    "random": (),
    "base": (),
    "dapt": ("dapt",),
    "tapt": ("tapt",),
    "dapt+tapt": ("dapt", "dapt+tapt"),
    "knn-tapt": ("knn", "knn-tapt"),
    "dapt+replay": ("dapt+replay",),
    "extend_vocab+dapt": ("extend_vocab", "extend_vocab+dapt"),
    "exbert": ("exbert",),
    "off-domain-dapt": ("off-domain-dapt",),
}
METHODS = ("finetune", "feature_extraction")
REPLAY = 0.1  # share of the rows in `dapt+replay`, where data.replay is None
TASK_TEXTS = "task/texts.jsonl"  # in the workdir: what TAPT reads
PLAN_FILE = "plan.json"

# Fields that stages take over from the comparison where the recipe reads them and has another value in its config file.
_SHARED = ("model.dropout", "model.attention_dropout", "data.lines", "data.seq_len", "mesh.*", "compute.*")
# The same for those that learn the task. What the task is like (`task.*`) is taken over where it has another value than by default:
# the config files of the methods differ in it on purpose.
_SHARED_BY_TASKS = ("data.text", "data.text_pair", "data.label", "data.label_names", "data.tokens", "data.tags", "data.token_unit",
                    "data.tag_scheme", "train.metric", "task.*")


@dataclass(frozen=True)
class Stage:
    """One ordinary run.

    Attributes:
      name: its workdir is stages/<name>: "dapt", "finetune/dapt+tapt/final".
      recipe: that it runs.
      fields: those that it gives, by dotted names; all others are as in the recipe's config file. Places of other stages begin
        with the workdir of the comparison.
      after: stages whose results it reads.
      chooses: stages among which the learning rate is taken: that of the best validation score, of equal ones the smallest. This
        stage gets `train.learning_rate` from them.
    """

    name: str
    recipe: str
    fields: dict[str, Any]
    after: tuple[str, ...] = ()
    chooses: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """All stages that must have ended before."""
        return (*self.after, *self.chooses)

    @property
    def place(self) -> str:
        """Its workdir, below that of the comparison."""
        return f"stages/{self.name}"


@dataclass(frozen=True)
class Row:
    """One row of the table: the stages of a way, learned by a method.

    Attributes:
      way, method: "dapt+tapt", "finetune".
      prepared: the stages before the task, in order.
      trials: stages that try learning rates; empty where one is given.
      final: the stage that trains all seeds and reads the test set.
      few: (rows, stage), in rising order.
    """

    way: str
    method: str
    prepared: tuple[str, ...]
    trials: tuple[str, ...]
    final: str
    few: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Plan:
    """The stages of a comparison, each after those that it needs, and the rows of the table that they give."""

    stages: tuple[Stage, ...]
    rows: tuple[Row, ...] = ()

    def __getitem__(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def dependents(self, name: str) -> Iterator[str]:
        """Yield all stages that need a stage, directly or through others, in the order of the plan."""
        found = {name}
        for stage in self.stages:
            if found.intersection(stage.needs):
                found.add(stage.name)
                yield stage.name


def make_plan(config: Config, workdir: Path) -> Plan:
    """Return the stages of a comparison whose config was checked (`jaxplm.recipes.adapt.checks`); reads no file."""
    return _Maker(config, workdir).plan()


class _Maker:
    def __init__(self, config: Config, workdir: Path) -> None:
        self._config, self._workdir = config, workdir
        self._stages: dict[str, Stage] = {}
        self._seeds = config.train.seeds or (config.seed,)

    def plan(self) -> Plan:
        adapt = self._config.adapt
        rows = [self._row(way, method) for way in adapt.ways for method in adapt.methods]
        return Plan(tuple(self._stages.values()), tuple(rows))

    # ---------------------------------------------------------------- what comes before the task

    def _encoder(self, way: str) -> tuple[str, str]:
        """Return (model.path, the stage that makes it or "") of a way, and add the stages that it needs."""
        prepared = WAYS[way]
        for name in prepared:
            self._add(self._preparation(name))
        if not prepared:
            return self._config.model.path, ""
        return self._export(prepared[-1]), prepared[-1]

    def _preparation(self, name: str) -> Stage:
        config = self._config
        data, adapt, base = config.data, config.adapt, config.model.path
        column = dict(_changed(config, ("data.text",)))  # unlabelled texts have the column that the task's texts have
        domain = {"data.train": data.corpus} | column
        task = {"data.train": self._at(TASK_TEXTS)}
        match name:
            case "dapt":
                return self._mlm(name, "dapt", adapt.dapt, base, domain)
            case "tapt":
                return self._mlm(name, "tapt", adapt.tapt, base, task)
            case "dapt+tapt":
                return self._mlm(name, "tapt", adapt.tapt, self._export("dapt"), task, "dapt")
            case "knn":
                return self._selection(name)
            case "knn-tapt":
                selected = self._at("stages/knn/selected/texts.jsonl")
                return self._mlm(name, "tapt", adapt.tapt, base, {"data.train": f"{self._at(TASK_TEXTS)},{selected}"}, "knn")
            case "dapt+replay":
                share = REPLAY if data.replay is None else data.replay
                return self._mlm(name, "dapt", adapt.dapt, base, domain | {"data.replay": share})
            case "extend_vocab":
                return self._mlm(name, "extend_vocab", (*adapt.extend_vocab, "train.steps=0"), base, domain)
            case "extend_vocab+dapt":
                return self._mlm(name, "dapt", adapt.dapt, self._export("extend_vocab"), domain, "extend_vocab")
            case "exbert":
                return self._mlm(name, "exbert", adapt.exbert, base, domain)
            case "off-domain-dapt":
                return self._mlm(name, "dapt", adapt.dapt, base, {"data.train": adapt.off_domain} | column)
        raise AssertionError(name)

    def _mlm(self, name: str, recipe: str, overrides: tuple[str, ...], model: str, texts: dict[str, Any], *after: str) -> Stage:
        fields = {"model.path": model, **texts}
        if self._config.data.general:
            # Without replay too, forgetting is measured on the part of the general text that replay leaves out.
            fields = {"data.replay": 0.0} | fields | {"data.general": self._config.data.general}
        return self._stage(name, recipe, fields, overrides, after)

    def _selection(self, name: str) -> Stage:
        config = self._config
        fields: dict[str, Any] = {"model.path": config.model.path, "data.corpus": config.data.corpus, "data.train": config.data.train,
                                  "data.validation": config.data.validation, "data.test": config.data.test, "task.kind": config.task.kind}
        fields |= {key: value for key, value in _changed(config, _SHARED_BY_TASKS) if key in fields_read("select")}
        return self._stage(name, "select", {key: value for key, value in fields.items() if value != ""}, config.adapt.select)

    # ---------------------------------------------------------------- the task

    def _row(self, way: str, method: str) -> Row:
        config, adapt = self._config, self._config.adapt
        path, encoder = self._encoder(way)
        after = (encoder,) if encoder else ()
        here = f"{method}/{way}"
        fields: dict[str, Any] = {"model.path": path} | ({"model.random": True} if way == "random" else {})
        fields |= {"data.train": config.data.train}
        if config.data.validation:
            fields["data.validation"] = config.data.validation
        else:
            fields["data.held_out"] = config.data.held_out
        fields |= dict(_changed(config, _SHARED_BY_TASKS)) | {"task.kind": config.task.kind}
        overrides = adapt.finetune if method == "finetune" else adapt.feature_extraction
        tested = fields | ({"data.test": config.data.test} if config.data.test else {}) | {"train.seeds": self._seeds}
        first, *others = adapt.learning_rates if method == "finetune" else adapt.head_learning_rates
        trials = []
        if others:
            for rate in (first, *others):
                trial = fields | {"train.learning_rate": rate, "seed": self._seeds[0]}
                trials.append(self._add(self._stage(f"{here}/lr={rate:g}", method, trial, overrides, after)))
        else:
            tested["train.learning_rate"] = first
        final = self._add(self._stage(f"{here}/final", method, tested, overrides, after, tuple(trials)))
        few = []
        for rows in sorted(adapt.few_rows):
            some = tested | {"data.max_rows": rows, "data.rows_chosen": "spread"}
            stage = self._stage(f"{here}/rows={rows}", method, some, (*overrides, *adapt.few), after, tuple(trials))
            few.append((rows, self._add(stage)))
        return Row(way, method, WAYS[way], tuple(trials), final, tuple(few))

    # ---------------------------------------------------------------- stages

    def _stage(self, name: str, recipe: str, fields: dict[str, Any], overrides: tuple[str, ...], after: tuple[str, ...] = (),
               chooses: tuple[str, ...] = ()) -> Stage:
        mine, theirs = dict(flatten(self._config)), dict(flatten(defaults(recipe)))
        shared = {info.name: mine[info.name] for info in fields_matching(_SHARED)
                  if info.name in fields_read(recipe) and mine[info.name] != theirs[info.name] and mine[info.name] is not None}
        if "seed" not in fields and "train.seeds" not in fields and self._config.seed:
            shared["seed"] = self._config.seed
        return Stage(name, recipe, shared | fields | parsed(overrides), after, chooses)

    def _add(self, stage: Stage) -> str:
        self._stages.setdefault(stage.name, stage)
        return stage.name

    def _at(self, place: str) -> str:
        return str(self._workdir / place)

    def _export(self, stage: str) -> str:
        return self._at(f"stages/{stage}/export")


def _changed(config: Config, patterns: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of the fields that have another value than by default."""
    values = dict(flatten(config))
    for info in fields_matching(patterns):
        if values[info.name] != info.default:
            yield info.name, values[info.name]


# ---------------------------------------------------------------- commands and files


def command_of(stage: Stage, workdir: Path, learning_rate: float | None = None) -> list[str]:
    """Return the arguments of the ordinary command that runs a stage, without the program.

    Args:
      learning_rate: the chosen one, of a stage that has `chooses`.
    """
    fields = stage.fields | ({} if learning_rate is None else {"train.learning_rate": learning_rate})
    return [f"--config={stage.recipe}", f"--workdir={workdir / stage.place}",
            *(as_flag(name, value) for name, value in fields.items())]


def command_text(arguments: list[str]) -> str:
    """Return the command as a user types it."""
    return " ".join(["jaxplm", *map(shlex.quote, arguments)])


def write_plan(plan: Plan, workdir: Path) -> None:
    """Write plan.json, which `jaxplm.recipes.adapt.stage` and workflow engines read."""
    content = {"stages": [vars(stage) for stage in plan.stages], "rows": [vars(row) for row in plan.rows]}
    atomic.write_text(workdir / PLAN_FILE, json.dumps(content, indent=1) + "\n")


def read_plan(workdir: Path) -> Plan:
    """Read plan.json of a comparison.

    Raises:
      OSError: there is none.
    """
    content = json.loads((workdir / PLAN_FILE).read_text("utf-8"))
    stages = tuple(Stage(each["name"], each["recipe"], {name: tuple(value) if isinstance(value, list) else value
                                                        for name, value in each["fields"].items()},
                         tuple(each["after"]), tuple(each["chooses"])) for each in content["stages"])
    rows = tuple(Row(each["way"], each["method"], tuple(each["prepared"]), tuple(each["trials"]), each["final"],
                     tuple((rows, name) for rows, name in each["few"])) for each in content["rows"])
    return Plan(stages, rows)
