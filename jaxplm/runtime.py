"""The machine: joining the processes of one run, and the arithmetic that this hardware does well."""

import hashlib
import logging
import os
import platform
from pathlib import Path

import jax

from jaxplm.errors import UserError
from jaxplm.nn import Compute

log = logging.getLogger("jaxplm")


def join_processes() -> None:
    """Call `jax.distributed.initialize` where the environment says that this is one of several processes.

    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID (as `launch/local.sh` sets them) come first;
    else SLURM and TPU pods are recognised by the variables that they set, and JAX finds the rest by itself.
    """
    environment = os.environ
    if "JAX_COORDINATOR_ADDRESS" in environment:
        try:
            count, index = int(environment["JAX_NUM_PROCESSES"]), int(environment["JAX_PROCESS_ID"])
        except (KeyError, ValueError):
            raise UserError("JAX_COORDINATOR_ADDRESS is set: JAX_NUM_PROCESSES and JAX_PROCESS_ID must be numbers too") from None
        jax.distributed.initialize(environment["JAX_COORDINATOR_ADDRESS"], count, index)
    elif environment.get("JAXPLM_DISTRIBUTED") == "auto":  # launch/tpu_pod.sh: JAX asks the TPU's own metadata
        jax.distributed.initialize()
    elif int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        jax.distributed.initialize()
    elif "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        jax.distributed.initialize()


def keep_compiled(cache: Path) -> None:
    """Keep compiled steps under `cache`: the second start of the same step takes a fraction of the first one's time.

    One directory for each kind of processor: code compiled for one CPU may not run on another, and home directories
    are shared. JAX_COMPILATION_CACHE_DIR, where it is set, is obeyed instead.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        kind = hashlib.sha256(f"{platform.machine()} {_cpu_flags()}".encode()).hexdigest()[:12]
        jax.config.update("jax_compilation_cache_dir", str(cache / "compiled" / kind))


def wait_for_all(name: str) -> None:
    """A barrier: returns when every process of the run is here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def is_first() -> bool:
    """Whether this process writes the logs and the export."""
    return jax.process_index() == 0


def resolve_compute(dtype: str, unroll: bool) -> Compute:
    """How 'bfloat16' or 'float32' is computed here; says so in one line where it is not what was asked for.

    GPU and TPU compute bfloat16 as asked. A CPU has no bfloat16 elementwise code: products alone use it, and only
    where the processor has instructions for them, otherwise everything is float32.
    """
    if dtype == "float32":
        return Compute("float32", "float32", unroll)
    if jax.default_backend() != "cpu":
        return Compute("bfloat16", "bfloat16", unroll)
    if _cpu_multiplies_bfloat16():
        log.info("compute: bfloat16 products, float32 elsewhere (CPU)")
        return Compute("float32", "bfloat16", unroll)
    log.info("compute: float32 (this CPU has no bfloat16 instructions)")
    return Compute("float32", "float32", unroll)


def _cpu_multiplies_bfloat16() -> bool:
    # The flags and not a timing: the choice must be the same when a run is resumed.
    return bool({"avx512_bf16", "amx_bf16"} & set(_cpu_flags().split()))


def _cpu_flags() -> str:
    """The instructions that the processor has, as Linux names them; "" where it does not say."""
    try:
        return Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0]
    except (OSError, IndexError):
        return ""
