"""The processes of one run: joined, waited for, asked, and which of them writes."""

import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxplm.errors import UserError


def join_processes() -> None:
    """Call `jax.distributed.initialize` where the environment says that this is one of several processes.

    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID (as `launch/local.sh` sets them) come first;
    else SLURM and TPU pods are recognised by the variables that they set, and JAX finds the rest by itself.

    Raises:
      UserError: JAX_COORDINATOR_ADDRESS is set, and one of the other two is not or is no number.
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


def is_first() -> bool:
    """Return whether this process is the one that writes the logs and the export."""
    return jax.process_index() == 0


def is_alone() -> bool:
    """Return whether the run has a single process."""
    return jax.process_count() == 1


# What follows is called by all processes of a run in the same order. A run of one process communicates nothing.

def wait_for_all(name: str) -> None:
    """Return when every process has called this with the same `name`."""
    if not is_alone():
        multihost_utils.sync_global_devices(name)


def all_agree(here: bool) -> bool:
    """Return whether all processes say True."""
    return here if is_alone() else bool(multihost_utils.process_allgather(np.array(here)).all())


def highest(number: int) -> int:
    """Return the highest of the processes' numbers, each below 2³¹."""
    return number if is_alone() else int(multihost_utils.process_allgather(np.int32(number)).max())


def broadcast(number: int) -> int:
    """Return the first process's number."""
    return number if is_alone() else int(multihost_utils.broadcast_one_to_all(np.int64(number)))


def gather(tree: Any) -> Any:
    """Return the whole arrays of a tree of `jax.Array`s, as NumPy, in every process."""
    return jax.device_get(tree) if is_alone() else multihost_utils.process_allgather(tree, tiled=True)
