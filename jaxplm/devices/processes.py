"""The processes of one run: joined, waited for, asked, and which of them writes."""

import os

import jax
import numpy as np

from jaxplm.errors import UserError


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


def wait_for_all(name: str) -> None:
    """A barrier: returns when every process of the run is here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def is_first() -> bool:
    """Whether this process writes the logs and the export."""
    return jax.process_index() == 0


def all_agree(here: bool) -> bool:
    """Whether all processes say True."""
    if jax.process_count() == 1:
        return here
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(here)).all())
