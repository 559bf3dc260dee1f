"""The real MLM training step of a model of given sizes on rows of given sizes, for the benchmarks of the step."""

import dataclasses
import itertools
import math
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplm import config, nn
from jaxplm.data.batch import Batch
from jaxplm.data.mlm.mask import capacity
from jaxplm.devices import sharding
from jaxplm.devices.compute import resolve_compute, without_attention_dropout
from jaxplm.engine.setup import TrainSetup
from jaxplm.nn import EncoderConfig, flops
from jaxplm.tasks.mlm import MaskedLanguageModelling

PRESETS = {  # layers, width, heads, feed-forward width, vocabulary
    "mini": (6, 384, 12, 1536, 30522),
    "base": (12, 768, 12, 3072, 50265),
    "large": (24, 1024, 16, 4096, 50265),
}


@dataclass(frozen=True)
class Case:
    """One step: a model's sizes, a batch's sizes, and how it is computed.

    Attributes:
      preset: the model's sizes, one of PRESETS.
      rows, length: of the batch.
      texts: per row, of random lengths.
      masked: share of the positions that the head sees.
      layers, vocab: in place of the preset's; 0 keeps it.
      dropout: of hidden states and of attention weights.
      weight_dropout: whether attention weights have it too. Flash attention never has.
      learning_rate: highest one, reached after `warmup` steps, constant from there on.
      The others are fields of `compute`.
    """

    preset: str = "base"
    rows: int = 8
    length: int = 512
    texts: int = 1
    masked: float = 0.15
    layers: int = 0
    vocab: int = 0
    dropout: float = 0.1
    weight_dropout: bool = True
    learning_rate: float = 1e-4
    warmup: float = 0.0
    dtype: config.Precision = "bfloat16"
    unroll: bool = True
    attention: config.Attention = "auto"
    kernels: config.Kernels = "auto"
    remat: config.Remat = "none"
    logit_parts: int = 1

    def varied(self, assignments: str) -> "Case":
        """Return the case with fields changed: 'rows=8,unroll=false'.

        Exit with a message for an unknown field or a wrong value.
        """
        kinds = {entry.name: type(entry.default) for entry in dataclasses.fields(Case)}
        values: dict[str, Any] = {}
        for assignment in filter(None, (part.strip() for part in assignments.split(","))):
            name, _, text = assignment.partition("=")
            if name not in kinds:
                sys.exit(f"{assignment}: unknown field; a case has {', '.join(kinds)}")
            try:
                values[name] = {"true": True, "false": False}[text] if kinds[name] is bool else kinds[name](text)
            except (KeyError, ValueError):
                sys.exit(f"{assignment}: {name} must be {'true or false' if kinds[name] is bool else f'of type {kinds[name].__name__}'}")
        return dataclasses.replace(self, **values)

    def encoder(self) -> EncoderConfig:
        if self.preset not in PRESETS:
            sys.exit(f"preset={self.preset}: must be one of {', '.join(PRESETS)}")
        layers, width, heads, ffn_width, vocab = PRESETS[self.preset]
        return EncoderConfig("roberta", self.vocab or vocab, width, self.layers or layers, heads, ffn_width, max(512, self.length),
                             position_offset=2, token_types=1, norm_eps=1e-5, pad_id=1,
                             dropout=self.dropout, attention_dropout=self.dropout * self.weight_dropout)

    def encoder_sizes(self) -> tuple[Any, ...]:
        """Return what the shapes of the encoder's parameters follow from."""
        return self.preset, self.layers, self.vocab, max(512, self.length)

    @property
    def num_masked(self) -> int:
        """K: masked positions per row, at most."""
        return self.length if self.masked >= 1 else capacity(self.masked, self.length)


def flops_of_step(case: Case) -> float:
    """Return the multiplications and additions of a step's matrix products.

    Counted are one forward and two backward passes of projections, attention over whole rows and the head at the masked
    positions. What is recomputed does not count; padding does.
    """
    c = case.encoder()
    return flops.mlm_training(c, case.rows * case.length, case.rows * case.num_masked, case.length)


def random_batch(case: Case, seed: int = 0) -> Batch:
    """Return full rows [B, L] of `texts` texts each, with random tokens and K masked positions per row, ascending."""
    rng = np.random.default_rng(seed)
    shape = (case.rows, case.length)
    starts = np.zeros(shape, np.int32)
    for row in starts:
        row[rng.choice(np.arange(1, case.length), case.texts - 1, replace=False)] = 1
    segments = 1 + np.cumsum(starts, axis=1, dtype=np.int32)
    columns = np.arange(case.length, dtype=np.int32)
    positions = columns - np.maximum.accumulate(np.where(starts, columns, 0), axis=1)
    masked = np.sort(np.argsort(rng.random(shape), axis=1)[:, : case.num_masked], axis=1).astype(np.int32)
    ids = rng.integers(5, case.encoder().vocab_size, shape, dtype=np.int32)
    return Batch(ids, segments, positions, masked, np.take_along_axis(ids, masked, 1), np.ones(masked.shape, np.float32))


class Work:
    """The step of a case, and its state once it is placed.

    Args:
      case: what is computed.
      batch: the shapes of the batches; None makes one of random tokens.
      ready: compile and place at once; else `compile` and `place` are to be called before `run`.

    Attributes:
      seconds_to_build: of tracing and compilation.
    """

    def __init__(self, case: Case, batch: Batch | None = None, *, ready: bool = True) -> None:
        self.case = case
        self.mesh = sharding.make_mesh(config.Mesh())
        settings = config.Compute(case.dtype, case.unroll, case.attention, case.kernels, case.remat, case.logit_parts)
        compute = resolve_compute(settings, self.mesh)
        self.encoder = without_attention_dropout(case.encoder(), compute)
        graph, abstract = nn.abstract_model(self.encoder)
        train = config.Train(learning_rate=case.learning_rate, warmup=case.warmup, schedule="constant")
        task = MaskedLanguageModelling(max_segments_per_row=case.texts, logit_parts=case.logit_parts)
        self._setup = TrainSetup(graph, abstract, task, train, 1000, self.mesh, compute)
        self._first_batch = random_batch(case) if batch is None else batch
        began = time.perf_counter()
        self._lowered = self._setup.lower(sharding.abstract_batch(self._first_batch, case.rows, self.mesh))
        self.seconds_to_build = time.perf_counter() - began
        if ready:
            self.compile()
            self.place()

    def compile(self) -> None:
        """Compile the step; several may do so at once, each in a thread."""
        began = time.perf_counter()
        self.compiled = self._lowered.compile()
        self.seconds_to_build += time.perf_counter() - began

    def place(self, params: Any = None) -> None:
        """Place the first state, with random parameters where `params` is None, and the batch."""
        self.state = self._setup.first_state(nn.random_params(self.encoder, 0) if params is None else params)
        self.batch = self.put(self._first_batch)

    def put(self, batch: Batch) -> Any:
        """Return a batch on the devices."""
        return sharding.put_batch(batch, self.case.rows, self.mesh)

    def free(self) -> None:
        """Free the state, the batch and the compiled step, as far as they are there."""
        for name in ("state", "batch", "compiled"):
            self.__dict__.pop(name, None)

    def run(self, steps: int) -> list[float]:
        """Make `steps` updates; return the seconds of each.

        On an accelerator, a step is enqueued before the one before it has ended, as in the training loop. Its time is from the end of
        that one to its own end.
        """
        enqueued = 0 if jax.default_backend() == "cpu" else 1
        waiting, ends = [], [time.perf_counter()]
        for _ in range(steps):
            self.state, metrics = self.compiled(self.state, self.batch)
            waiting.append(metrics)
            if len(waiting) > enqueued:
                jax.block_until_ready(waiting.pop(0))
                ends.append(time.perf_counter())
        for metrics in waiting:
            jax.block_until_ready(metrics)
            ends.append(time.perf_counter())
        jax.block_until_ready(self.state)
        return [after - before for before, after in itertools.pairwise(ends)]

    def compiler_flops(self) -> float:
        """Return the FLOPs of a step over all devices.

        The compiler counts those of the program that each device runs.
        """
        cost: Any = self.compiled.cost_analysis()
        return float((cost if isinstance(cost, dict) else cost[0])["flops"]) * jax.device_count()

    def peak_bytes(self, *, planned: bool = False) -> int:
        """Return the peak memory of one device: by its own count (GPU, TPU), or else, or if `planned`, by the compiler's plan.

        A device counts what all steps of a process have used.
        """
        device = jax.local_devices()[0].memory_stats()
        if not planned and device and "peak_bytes_in_use" in device:
            return int(device["peak_bytes_in_use"])
        plan: Any = self.compiled.memory_analysis()
        return int(plan.argument_size_in_bytes + plan.temp_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes)


def product_rate(dtype: config.Precision) -> float:
    """Return the FLOP/s of a large matrix product in the factors' `dtype`, median of 10: the limit for MFU.

    The factors are random. Ones flip fewer bits, so that a GPU needs less power and clocks higher: 4 % on an H200.
    """
    on_cpu = jax.default_backend() == "cpu"
    m, k, n = (2048, 768, 3072) if on_cpu else (8192, 8192, 8192)
    factors = resolve_compute(config.Compute(dtype=dtype, attention="plain"), sharding.make_mesh(config.Mesh())).operands
    a, b = (jax.random.normal(jax.random.key(i), shape, jnp.float32).astype(factors) for i, shape in enumerate(((m, k), (k, n))))
    multiply = jax.jit(lambda a, b: jax.lax.dot(a, b, preferred_element_type=jnp.float32 if on_cpu else factors))
    loop = 1 if on_cpu else 20  # an accelerator's calls are enqueued: many are needed to measure its own time
    seconds = []
    for _ in range(12):
        began = time.perf_counter()
        outputs = [multiply(a, b) for _ in range(loop)]
        jax.block_until_ready(outputs[-1])
        seconds.append((time.perf_counter() - began) / loop)
    return 2 * math.prod((m, k, n)) / statistics.median(seconds[2:])
