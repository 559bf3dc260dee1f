"""The loop from start to export. It knows the Job protocol, neither pre-training nor any task."""

import logging
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxplm import nn
from jaxplm.checkpoint.manager import Checkpoints
from jaxplm.config import Config
from jaxplm.data.mlm.schedule import steps_in
from jaxplm.data.prefetch import prefetch
from jaxplm.devices import sharding
from jaxplm.devices.compute import resolve_compute
from jaxplm.devices.processes import is_first
from jaxplm.engine import optim
from jaxplm.engine.job import Job, MakeJob
from jaxplm.engine.meter import Meter
from jaxplm.engine.signals import StopRequest
from jaxplm.engine.step import TRACES, TrainState, make_train_step, new_state
from jaxplm.engine.workdir import claim, is_finished
from jaxplm.errors import Interrupted, UserError
from jaxplm.reporting import report
from jaxplm.reporting.console import Progress, count, duration, in_words, summary_table
from jaxplm.reporting.facts import Facts, Section
from jaxplm.reporting.metric_log import MetricLog, read_metrics

log = logging.getLogger("jaxplm")


def run(config: Config, workdir: Path, command: str, make_job: MakeJob) -> None:
    """Train by `config` in `workdir`, or go on from its newest checkpoint; ends with report.md and export/.

    Raises:
      UserError: the config, the data or the workdir cannot be used.
      Interrupted: stopped by a signal, after saving.
    """
    claim(workdir, config, write=False)
    if is_finished(workdir):
        log.info("%s is finished: see %s and %s; choose another --workdir for another run",
                 workdir, workdir / "report.md", workdir / "export")
        return
    mesh = sharding.make_mesh(config.mesh)
    compute = resolve_compute(config.compute, mesh)
    job = make_job(config, workdir, mesh, compute)
    claim(workdir, config, write=is_first(), corpus=job.fingerprint)
    Run(config, workdir, command, mesh, compute, job).go()


class Run:
    """One run of the loop: what is fixed for its whole length, and the few numbers that are not in the state."""

    def __init__(self, config: Config, workdir: Path, command: str, mesh: jax.sharding.Mesh, compute: nn.Compute, job: Job) -> None:
        self.config, self.workdir, self.command, self.mesh = config, workdir, command, mesh
        self.compute, self.job = compute, job
        self.traced = TRACES.copy()
        train = job.settings
        self.steps = steps_in(train.steps, train.epochs, job.train.steps_per_epoch)
        abstract = jax.eval_shape(lambda: job.params)
        tx = optim.optimizer(train, self.steps, abstract, job.train_first)
        self.abstract = jax.eval_shape(lambda params: new_state(params, tx, config.seed), abstract)
        self.placed = sharding.state_shardings(self.abstract, abstract, mesh)
        frozen = optim.frozen_layers(abstract, train.freeze) if train.freeze else None
        self.new_state = jax.jit(lambda params: new_state(params, tx, config.seed), out_shardings=self.placed)
        self.train_step = make_train_step(job.graph, job.task, tx, optim.schedule(train, self.steps), self.abstract, mesh,
                                          compute=compute, accumulate=train.accumulate, frozen=frozen)

    # ---------------------------------------------------------------- from start to end

    def go(self) -> None:
        checkpoint = self.config.checkpoint
        # From here on a signal is noted, not obeyed: an exception in the middle of a compilation or a write is no way out.
        with StopRequest() as stop, Checkpoints(self.workdir / "checkpoints", keep=checkpoint.keep,
                                                save_every=checkpoint.every,
                                                metric=self.job.metric) as checkpoints:
            state, start = self._first_state(checkpoints)
            if start < self.steps:
                checkpoints.require_space(state)
            resumed = start if start or checkpoints.latest_step is not None else None
            with MetricLog(self.workdir, enabled=is_first(), resume_from=resumed) as metrics:
                self._summarise()
                if resumed is None:
                    self._evaluate(state.params, 0, metrics)
                    if status := stop.agreed():
                        raise Interrupted(status, "stopped before the first step: the same command begins anew")
                state, stopped = self._loop(state, start, metrics, checkpoints, stop)
                exported = state, stopped
                if checkpoints.best_step not in (None, stopped):
                    exported = checkpoints.restore_best(self._targets()) or exported
                self.job.finish(exported[0].params, lambda split, found: metrics.write(exported[1], split, found))
        self._finish(*exported)

    def _targets(self) -> TrainState:
        return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
                            self.abstract, self.placed)

    def _first_state(self, checkpoints: Checkpoints) -> tuple[TrainState, int]:
        restored = checkpoints.restore_latest(self._targets())
        if restored is not None:
            log.info("going on from step %d of %d (%s)", restored[1], self.steps, self.workdir)
            return restored
        params = jax.tree.map(sharding.place, self.job.params, self.placed.params)
        return self.new_state(params), 0

    # ---------------------------------------------------------------- the loop

    def _loop(self, state: TrainState, start: int, metrics: MetricLog, checkpoints: Checkpoints,
              stop: StopRequest) -> tuple[TrainState, int]:
        """Steps `start` … `self.steps`; returns the state and the step it ended with (earlier if patience ran out)."""
        train = self.job.settings
        costs = self._validation_costs(start)
        best, since_best = min(costs, default=math.inf), len(costs) - 1 - int(np.argmin(costs)) if costs else 0
        if train.patience and since_best >= train.patience:
            return state, start  # it had ended, and was killed before the export
        meter = Meter(self.job.task)
        batches = prefetch(self._device_batch, start, self.steps)
        pending: dict[str, jax.Array] | None = None
        bad_in_a_row = 0
        with Progress(self.steps, start, log_every=train.log_every, enabled=is_first()) as progress:
            try:
                for step, batch in enumerate(batches, start + 1):
                    state, fresh = self.train_step(state, batch)
                    # Reading the step before while this one runs: the host never waits for an idle device.
                    boundary = step % train.log_every == 0 or step == self.steps
                    for of_step, values in ((step - 1, pending), (step, fresh if boundary else None)):
                        if values is not None:
                            bad_in_a_row = self._check(meter.read(values), bad_in_a_row, of_step, checkpoints)
                    pending = None if boundary else fresh
                    progress.update(step, loss=meter.loss, tokens_per_second=meter.speed)
                    if boundary:
                        metrics.write(step, "train", meter.report())
                    if step == start + 5 and (left := progress.seconds_left) is not None and self.steps > step + 20:
                        log.info("estimated time for the %s steps left: %s", f"{self.steps - step:,}", duration(left))
                    evaluate = step % train.eval_every == 0 or step == self.steps
                    cost = value = None
                    with progress.paused(), meter.paused():
                        if evaluate:
                            value = self._evaluate(state.params, step, metrics)
                            cost = self.job.metric.cost(value)
                            since_best = 0 if cost < best else since_best + 1
                        better = cost is not None and cost < best
                        checkpoints.save(step, state, metric=value, force=step == self.steps or better)
                        best = min(best, math.inf if cost is None else cost)
                    if train.patience and since_best >= train.patience:
                        log.info("no gain in %d evaluations: stopping at step %d", since_best, step)
                        checkpoints.save(step, state, metric=value, force=True)
                        return state, step
                    # One process looks at every step; several must look at the same one, so they agree now and then.
                    if (jax.process_count() == 1 or boundary) and (status := stop.agreed()) and step < self.steps:
                        checkpoints.save(step, state, metric=value, force=True)
                        checkpoints.wait()
                        raise Interrupted(status, f"stopped at step {step} of {self.steps}, saved: the same command goes on from here")
            finally:
                batches.close()
        return state, self.steps

    def _device_batch(self, step: int) -> Any:
        return sharding.put_batch(self.job.train.batch(step), self.job.rows, self.mesh)

    def _check(self, bad: bool, before: int, step: int, checkpoints: Checkpoints) -> int:
        if not bad:
            return 0
        log.warning("step %d: the loss or the gradient is not finite; the update is skipped", step)
        if before + 1 >= self.job.settings.max_bad_steps:
            last = checkpoints.latest_step
            where = f"the last good checkpoint is {self.workdir / 'checkpoints' / str(last)}" if last else "no checkpoint yet"
            raise UserError(f"{before + 1} steps in a row were not finite, up to step {step}: stopped; {where}."
                            " Try a lower train.learning_rate, a longer train.warmup or compute.dtype=float32")
        return before + 1

    # ---------------------------------------------------------------- evaluation

    def _validation_costs(self, upto: int) -> list[float]:
        """Of the trained states so far, in order: for patience and for knowing the best after a resume."""
        path = self.workdir / "metrics.jsonl"
        if not upto or not path.exists():
            return []
        metric = self.job.metric
        return [metric.cost(row.get(metric.name)) for row in read_metrics(path)
                if row["split"] == "validation" and 0 < row["step"] <= upto]

    def _evaluate(self, params: nn.ParamTree, step: int, metrics: MetricLog) -> float | None:
        """Write a row for each evaluation set; return the validation set's value of the job's metric, None where it has none."""
        found = self.job.evaluate(params)
        for split, values in found.items():
            metrics.write(step, split, values)
        log.info("%s", f"evaluation at step {step}: " + "; ".join(f"{split} {in_words(values)}" for split, values in found.items()))
        return found["validation"].get(self.job.metric.name)

    # ---------------------------------------------------------------- what the user sees

    def _settings(self) -> dict[str, str]:
        """Return the settings of the loop, for the report."""
        config, train, compute = self.config, self.job.settings, self.compute
        return {
            "learning rate": f"{train.learning_rate:g}, warm-up {train.warmup:g}, {train.schedule}",
            "weight decay": f"{train.weight_decay:g}",
            **({"layer decay": f"{train.layer_decay:g}"} if train.layer_decay != 1 else {}),
            **({"frozen": ", ".join(config.train.freeze)} if config.train.freeze else {}),
            "compute": f"activations {compute.activations}, products {compute.operands}, attention {compute.attention}",
            "seed": str(config.seed),
        }

    def _hardware(self) -> dict[str, str]:
        device = jax.devices()[0]
        return {
            "hardware": f"{jax.device_count()} × {device.device_kind} ({jax.default_backend()}), {jax.process_count()} process(es)",
            "mesh": " × ".join(f"{axis} {size}" for axis, size in self.mesh.shape.items()),
        }

    def _facts(self, exported_step: int, rows: list[dict[str, Any]]) -> Facts:
        """Return what report and model card say; `rows` as in metrics.jsonl."""
        trained = [row for row in rows if row["split"] == "train"]
        seconds, tokens = (sum(row[name] for row in trained) for name in ("seconds", "tokens"))
        compiled = TRACES - self.traced  # by this process, since the run began
        cost = self._hardware() | {
            "training time": duration(seconds) if seconds else "none",
            "real tokens trained on": count(tokens) if tokens else "none",
            **({"compilations": ", ".join(f"{name} {times}" for name, times in sorted(compiled.items()))} if compiled else {}),
        }
        job = self.job.facts(self.steps)
        return Facts(
            title=job.title, recipe=self.config.recipe, command=self.command, base_model=self.config.model.path,
            exported_step=exported_step, metric=job.metric,
            sections=[*job.sections, Section("Model", job.model), Section("Data", job.data),
                      Section("Settings", {**job.settings, **self._settings()}), Section("Cost", cost)])

    def _summarise(self) -> None:
        """Log what the run is about to do."""
        job = self.job.facts(self.steps)
        pairs = {**job.model, **job.data, **job.settings, **self._settings(), **self._hardware(), "workdir": str(self.workdir)}
        for line in summary_table(list(pairs.items())).split("\n"):
            log.info("%s", line)

    def _finish(self, state: TrainState, step: int) -> None:
        """Report and export; the export comes last, because it is what says that the run is done."""
        params = sharding.gather(state.params)
        if not is_first():
            return
        rows = read_metrics(self.workdir / "metrics.jsonl")
        facts = self._facts(step, rows)
        found = report.scores(rows, step)
        if any(s.split == "validation" and s.name == "loss" and s.before is not None and s.after >= s.before for s in found):
            log.warning("the validation loss did not improve on the start: a lower train.learning_rate or more text may help")
        report.write_report(self.workdir, facts, rows)
        self.job.export(self.workdir / "export", params, facts, rows)
        for line in summary_table(report.score_table(found), header=True).split("\n"):
            log.info("%s", line)
        log.info("exported: %s (step %d); report: %s", self.workdir / "export", step, self.workdir / "report.md")
