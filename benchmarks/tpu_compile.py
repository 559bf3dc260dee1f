"""Compile the training step for a TPU that this machine does not have, and print its peak memory and its FLOPs.

No TPU is needed, but its compiler is. It needs an environment of its own, where it takes the place of the CPU's JAX:
  python -m venv tpu && tpu/bin/pip install 'jax[tpu]' -e .
  TPU_SKIP_MDS_QUERY=1 tpu/bin/python benchmarks/tpu_compile.py [--topology v5e:4x4] [--rows-per-device 16]

It prints one line per case: rows and row length L per device, attention, remat; GiB per device of arguments
(parameters, AdamW's moments, batch) and of temporaries at their peak; TFLOP per device and step as the compiler counts
them; seconds of compiling. The compiler counts the loop over the blocks once, so use --unroll for TFLOP, and nothing
inside of splash. Rows are split over all devices; every device has all parameters.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from jaxplm import nn
from jaxplm.config import Mesh, Train
from jaxplm.data.batch import Batch
from jaxplm.data.mlm.mask import capacity
from jaxplm.devices import sharding
from jaxplm.engine.setup import TrainSetup
from jaxplm.nn.mesh_split import MeshSplit
from jaxplm.tasks.mlm import MaskedLanguageModelling

GIB = 2**30


def base(positions: int, attention_dropout: float) -> nn.EncoderConfig:
    """Return the config of RoBERTa-base."""
    return nn.EncoderConfig("roberta", 50265, 768, 12, 12, 3072, positions, position_offset=2, token_types=1,
                            attention_dropout=attention_dropout)


def batch_of(rows: int, length: int, placed: Any) -> Batch:
    """Return the shapes of a batch, without data."""
    def of(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=placed)

    num_masked = capacity(0.15, length)
    tokens, masked = of(jnp.int32, rows, length), of(jnp.int32, rows, num_masked)
    return Batch(tokens, tokens, tokens, masked, masked, of(jnp.float32, rows, num_masked))


def compiled(mesh: jax.sharding.Mesh, rows: int, length: int, compute: nn.Compute) -> tuple[Any, float]:
    """Return the compiled training step, and the seconds that compiling took."""
    graph, abstract = nn.abstract_model(base(length, 0.1 if compute.attention == "plain" else 0.0))
    setup = TrainSetup(graph, abstract, MaskedLanguageModelling(), Train(), 1000, mesh, compute)
    began = time.perf_counter()
    step = setup.lower(batch_of(rows, length, sharding.batch_sharding(mesh))).compile()
    return step, time.perf_counter() - began


def cases(options: argparse.Namespace) -> Iterator[tuple[int, int, str, str]]:
    """Yield (rows per device, L, attention, remat), with the same tokens per device at every length."""
    for length, attention, remat in product(options.lengths, options.attention, options.remat):
        yield max(1, options.rows_per_device * 512 // length), length, attention, remat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="v5e:4x4")
    parser.add_argument("--rows-per-device", type=int, default=16, help="rows of 512 tokens; fewer of longer ones")
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--attention", nargs="+", default=["plain", "splash"])
    parser.add_argument("--remat", nargs="+", default=["none", "blocks"])
    parser.add_argument("--unroll", action="store_true", help="as compute.unroll; compiles longer")
    options = parser.parse_args()
    devices = topologies.get_topology_desc(platform="tpu", topology_name=options.topology).devices
    mesh = sharding.make_mesh(Mesh(), list(np.asarray(devices).ravel()))
    print(f"RoBERTa-base, {options.topology} ({mesh.size} × {devices[0].device_kind}), jax {jax.__version__}")
    print(f"{'rows × L/device':>18} {'attention':>9} {'remat':>6} {'arguments':>9} {'temporary':>9} {'TFLOP':>6} {'compiling':>9}")
    for rows, length, attention, remat in cases(options):
        split = MeshSplit(mesh, ("data", "fsdp"), "tensor")
        compute = nn.Compute("bfloat16", "bfloat16", options.unroll, attention, split=split, remat=remat)
        name = f"{f'{rows} × {length:,}':>18} {attention:>9} {remat:>6}"
        try:
            step, seconds = compiled(mesh, rows * mesh.size, length, compute)
        except jax.errors.JaxRuntimeError as error:  # the compiler says that it does not fit, which is a result
            print(f"{name}   {str(error).splitlines()[0][:110]}", flush=True)
            continue
        memory, cost = step.memory_analysis(), step.cost_analysis()
        print(f"{name} {memory.argument_size_in_bytes / GIB:>7.2f} G {memory.temp_size_in_bytes / GIB:>7.2f} G"
              f" {cost.get('flops', float('nan')) / 1e12:>6.2f} {seconds:>7.0f} s", flush=True)


if __name__ == "__main__":
    main()
