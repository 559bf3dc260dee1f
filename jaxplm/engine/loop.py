"""The loop from start to export. It knows the Job protocol, neither pre-training nor any task."""

import logging
import math
from pathlib import Path
from typing import Any

import jax

from jaxplm import nn
from jaxplm.checkpoint.manager import Checkpoints
from jaxplm.config import Config
from jaxplm.data.prefetch import prefetch
from jaxplm.devices import sharding
from jaxplm.devices.processes import gather, is_alone, is_first
from jaxplm.engine.compile_clock import CompileClock
from jaxplm.engine.job import MakeJob
from jaxplm.engine.meter import Meter
from jaxplm.engine.setup import Prepared, prepare
from jaxplm.engine.signals import StopRequest
from jaxplm.engine.step import TrainState
from jaxplm.engine.workdir import claim, is_finished, record_export
from jaxplm.errors import Interrupted, UserError
from jaxplm.reporting import report
from jaxplm.reporting.console import log_table
from jaxplm.reporting.facts import Facts, Section
from jaxplm.reporting.metric_log import MetricLog, read_metrics
from jaxplm.reporting.numbers import count, duration, scores_text
from jaxplm.reporting.progress import Progress
from jaxplm.scores.metric import Metric

log = logging.getLogger("jaxplm")


def run(config: Config, workdir: Path, command: str, make_job: MakeJob) -> None:
    """Train by `config` in `workdir`, or resume from its newest checkpoint; write report.md and export/ at the end.

    Raises:
      UserError: the config, the data or the workdir cannot be used.
      Interrupted: stopped by a signal, after saving.
    """
    claim(workdir, config, write=False)
    if is_finished(workdir):
        log.info("%s is finished: see %s and %s; choose another --workdir for another run",
                 workdir, workdir / "report.md", workdir / "export")
        return
    prepared = prepare(config, workdir, make_job)
    claim(workdir, config, write=is_first(), corpus=prepared.job.fingerprint)
    Run(prepared, workdir, command).go()


class BestSoFar:
    """The best value of a metric, and how many evaluations have not improved on it since: for patience."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._best = math.inf
        self.evaluations_since = 0

    def update(self, value: float | None) -> bool:
        """Take the value of one more evaluation, and return whether it is the best."""
        improved = self._metric.cost(value) < self._best
        self._best = min(self._best, self._metric.cost(value))
        self.evaluations_since = 0 if improved else self.evaluations_since + 1
        return improved


class Run:
    """One run of the loop. What changes with the steps is in the state, on disk, or local to `_loop`."""

    def __init__(self, prepared: Prepared, workdir: Path, command: str) -> None:
        self.prepared = prepared
        self.config = prepared.config
        self.job = prepared.job
        self.setup = prepared.setup
        self.workdir = workdir
        self.command = command

    # ---------------------------------------------------------------- from start to end

    def go(self) -> None:
        """Train what is left of the run, measure what is measured at the end, write the report and the export.

        Raises:
          Interrupted: stopped by a signal, after saving.
          UserError: too many steps in a row were not finite, or the disk is full.
        """
        checkpoint = self.config.checkpoint
        # Signals are recorded and acted upon between steps: an exception in the middle of a compilation or a write
        # could leave either half done.
        with StopRequest() as stop, Checkpoints(self.workdir / "checkpoints", keep=checkpoint.keep,
                                                save_every=checkpoint.every, metric=self.job.metric) as checkpoints:
            state, start = self._first_state(checkpoints)
            if start < self.setup.steps:
                checkpoints.require_space(state)
            resumed = start if start or checkpoints.latest_step is not None else None
            with MetricLog(self.workdir, enabled=is_first(), resume_from=resumed) as metric_log:
                self._summarise()
                if resumed is None:
                    self._evaluate(state.params, 0, metric_log)
                    if status := stop.agreed():
                        raise Interrupted(status, "stopped before the first step: the same command begins again")
                state, stopped = self._loop(state, start, metric_log, checkpoints, stop)
                exported = state, stopped
                if checkpoints.best_step not in (None, stopped):
                    exported = checkpoints.restore_best(self.setup.state) or exported
                self.job.finish(exported[0].params, lambda split, values: metric_log.write(exported[1], split, values))
        self._finish(*exported)

    def _first_state(self, checkpoints: Checkpoints) -> tuple[TrainState, int]:
        """Return the state to begin with and its step: of the newest usable checkpoint, else before the first step."""
        restored = checkpoints.restore_latest(self.setup.state)
        if restored is not None:
            log.info("resuming from step %d of %d (%s)", restored[1], self.setup.steps, self.workdir)
            return restored
        return self.setup.first_state(self.job.params), 0

    # ---------------------------------------------------------------- the loop

    def _loop(self, state: TrainState, start: int, metric_log: MetricLog, checkpoints: Checkpoints,
              stop: StopRequest) -> tuple[TrainState, int]:
        """Train from step `start` on; return the state and the step it ended with, earlier than the last if patience ran out."""
        settings, last = self.job.settings, self.setup.steps
        best = self._best_before(start)
        if self._out_of_patience(best):
            return state, start  # training had ended, and the run was killed before the export
        meter = Meter(self.job.task)
        if sums := checkpoints.note(start):
            meter.resume(sums)
        clock = CompileClock()
        batches = prefetch(self.device_batch, start, last)
        pending: dict[str, jax.Array] | None = None  # metrics of the step before, still on the device
        with Progress(last, start, log_every=settings.log_every, enabled=is_first()) as progress:
            try:
                for step, batch in enumerate(batches, start + 1):
                    mark, traces = meter.mark(), self.setup.train_step.traces
                    with clock.running():
                        state, fresh = self.setup.train_step(state, batch)
                    # The metrics of the step before are read while this one is computed, so the device never waits for the host.
                    self._read(pending, step - 1, meter, checkpoints)
                    pending = fresh
                    if step == start + 1 or self.setup.train_step.traces > traces:  # compiled in this call
                        self._read(pending, step, meter, checkpoints)
                        pending = None
                        meter.compiled(mark, clock.seconds)
                    logs = step % settings.log_every == 0 or step == last
                    if logs:  # a row ends with this step
                        self._read(pending, step, meter, checkpoints)
                        pending = None
                    progress.update(step, loss=meter.loss, tokens_per_second=meter.speed)
                    if logs:
                        metric_log.write(step, "train", meter.report())
                    if step == start + 5 and step + 20 < last and progress.seconds_left is not None:
                        log.info("estimated time for the %s steps left: %s", f"{last - step:,}", duration(progress.seconds_left))
                    value, improved = None, False
                    with progress.paused(), meter.paused():
                        if step % settings.eval_every == 0 or step == last:
                            value = self._evaluate(state.params, step, metric_log)
                            improved = best.update(value)
                        force = step == last or improved
                        if checkpoints.is_due(step, force=force):  # the sums that are saved with it end with this step
                            self._read(pending, step, meter, checkpoints)
                            pending = None
                        checkpoints.save(step, state, metric=value, force=force, note=meter.state())
                    if self._out_of_patience(best):
                        log.info("no improvement in %d evaluations: stopping at step %d", best.evaluations_since, step)
                        checkpoints.save(step, state, metric=value, force=True, note=meter.state())
                        return state, step
                    # Several processes must ask at the same step, and asking has a cost, so they ask where a row ends.
                    if (is_alone() or logs) and (status := stop.agreed()) and step < last:
                        self._read(pending, step, meter, checkpoints)
                        pending = None
                        checkpoints.save(step, state, metric=value, force=True, note=meter.state())
                        checkpoints.wait()
                        raise Interrupted(status, f"stopped at step {step} of {last}, saved: the same command resumes from here")
            finally:
                batches.close()
        return state, last

    def device_batch(self, step: int) -> Any:
        """Return the global batch of `step`, counted from 0, on the mesh."""
        return sharding.put_batch(self.job.train.batch(step), self.job.rows, self.prepared.mesh)

    def _read(self, values: dict[str, jax.Array] | None, step: int, meter: Meter, checkpoints: Checkpoints) -> None:
        """Add the metrics of a step to the meter, if there are any; end the run after too many nonfinite steps in a row."""
        if values is None:
            return
        meter.read(values)
        if not meter.nonfinite_in_a_row:
            return
        log.warning("step %d: the loss or the gradient is not finite; the update is skipped", step)
        if meter.nonfinite_in_a_row >= self.job.settings.max_bad_steps:
            latest = checkpoints.latest_step
            where = f"the last good checkpoint is {self.workdir / 'checkpoints' / str(latest)}" if latest else "no checkpoint yet"
            raise UserError(f"{meter.nonfinite_in_a_row} steps in a row were not finite, up to step {step}: stopped; {where}."
                            " Try a lower train.learning_rate, a longer train.warmup or compute.dtype=float32")

    # ---------------------------------------------------------------- evaluation

    def _best_before(self, start: int) -> BestSoFar:
        """Return the best of the trained states up to step `start`, from metrics.jsonl, as the loop knew it before it ended."""
        best, path = BestSoFar(self.job.metric), self.workdir / "metrics.jsonl"
        if start and path.exists():
            for row in read_metrics(path):
                if row["split"] == "validation" and 0 < row["step"] <= start:
                    best.update(row.get(self.job.metric.name))
        return best

    def _out_of_patience(self, best: BestSoFar) -> bool:
        return 0 < self.job.settings.patience <= best.evaluations_since

    def _evaluate(self, params: nn.ParamTree, step: int, metric_log: MetricLog) -> float | None:
        """Write a row for each evaluation set; return the validation set's value of the job's metric, None where it has none."""
        measured = self.job.evaluate(params)
        for split, values in measured.items():
            metric_log.write(step, split, values)
        log.info("evaluation at step %d: %s", step, "; ".join(f"{split} {scores_text(values)}" for split, values in measured.items()))
        return measured["validation"].get(self.job.metric.name)

    # ---------------------------------------------------------------- what the user sees

    def _settings(self) -> dict[str, str]:
        """Return the settings of the loop, for the report."""
        config, train, compute = self.config, self.job.settings, self.prepared.compute
        return {
            "learning rate": f"{train.learning_rate:g}, warm-up {train.warmup:g}, {train.schedule}",
            "weight decay": f"{train.weight_decay:g}",
            **({"layer decay": f"{train.layer_decay:g}"} if train.layer_decay != 1 else {}),
            **({"frozen": ", ".join(config.train.freeze)} if config.train.freeze else {}),
            "compute": f"activations {compute.activations}, products {compute.products or compute.operands}, attention {compute.attention}"
                       + (f", kernels {compute.kernels}" if compute.kernels != "plain" else ""),
            "seed": str(config.seed),
        }

    def _hardware(self) -> dict[str, str]:
        device = jax.devices()[0]
        return {
            "hardware": f"{jax.device_count()} × {device.device_kind} ({jax.default_backend()}), {jax.process_count()} process(es)",
            "mesh": " × ".join(f"{axis} {size}" for axis, size in self.prepared.mesh.shape.items()),
        }

    def _facts(self, exported_step: int, rows: list[dict[str, Any]]) -> Facts:
        """Return what report and model card say; `rows` as in metrics.jsonl."""
        trained = [row for row in rows if row["split"] == "train"]
        seconds, tokens = (sum(row[name] for row in trained) for name in ("seconds", "tokens"))
        compiled = {"evaluation": self.job.eval_traces, "training": self.setup.train_step.traces}  # by this process
        compilations = ", ".join(f"{name} {times}" for name, times in compiled.items() if times)
        cost = self._hardware() | {
            "training time": duration(seconds) if seconds else "none",
            "real tokens trained on": count(tokens) if tokens else "none",
            **({"compilations": compilations} if compilations else {}),
        }
        job = self.job.facts(self.setup.steps)
        return Facts(
            title=job.title, command=self.command, exported_step=exported_step, metric=job.metric,
            sections=[*job.sections, Section("Model", job.model), Section("Data", job.data),
                      Section("Settings", {**job.settings, **self._settings()}), Section("Cost", cost)])

    def _summarise(self) -> None:
        """Log what the run is about to do."""
        job = self.job.facts(self.setup.steps)
        pairs = {**job.model, **job.data, **job.settings, **self._settings(), **self._hardware(), "workdir": str(self.workdir)}
        log_table(list(pairs.items()))

    def _finish(self, state: TrainState, step: int) -> None:
        """Write the report and the export. The export comes last, because it is what says that the run is done."""
        params = gather(state.params)
        if not is_first():
            return
        rows = read_metrics(self.workdir / "metrics.jsonl")
        facts = self._facts(step, rows)
        found = report.scores(rows, step)
        if any(s.split == "validation" and s.name == "loss" and s.before is not None and s.after >= s.before for s in found):
            log.warning("the validation loss did not improve on the start: a lower train.learning_rate or more text may help")
        report.write_report(self.workdir, facts, rows)
        self.job.export(self.workdir / "export", params, facts, rows)
        record_export(self.workdir)
        log_table(report.score_table(found), header=True)
        log.info("exported: %s (step %d); report: %s", self.workdir / "export", step, self.workdir / "report.md")
