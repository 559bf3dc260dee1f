"""The processes of one run: joined, waited for, asked, and which of them writes."""

import os
import re
import sys
import threading
import time
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxplm.errors import UserError

_PATIENCE = 60.0  # seconds until a wait says what for
# JAX gives up after five minutes and aborts with C++ frames on stderr: ours ends before that, with a line.
_LONGEST_WAIT = 290.0


def join_processes() -> None:
    """Call `jax.distributed.initialize` where the environment says that this is one of several processes.

    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID (as `launch/local.sh` sets them) come first;
    else SLURM and TPU pods are recognised by the variables that they set, and JAX finds the rest by itself.

    Raises:
      UserError: JAX_COORDINATOR_ADDRESS is set, and it or one of the other two cannot be used; or the others do not come.
    """
    if jax.distributed.is_initialized():  # by an earlier run of this process
        return
    environment = os.environ
    if address := environment.get("JAX_COORDINATOR_ADDRESS"):
        count, index = _number("JAX_NUM_PROCESSES", least=1), _number("JAX_PROCESS_ID", least=0)
        if index >= count:
            raise UserError(f"JAX_PROCESS_ID={index} must be below JAX_NUM_PROCESSES={count}: processes are counted from 0")
        _check_address(address)
        if count == 1:
            return
        _join(_missing(address, count, index), address, count, index)
    elif environment.get("JAXPLM_DISTRIBUTED") == "auto":  # launch/tpu_pod.sh: JAX asks the TPU's own metadata
        _join("the other hosts of the TPU pod slice: the same command must run on all of them")
    elif "SLURM_PROCID" in environment and (count := _number("SLURM_NTASKS", least=1, default=1)) > 1:
        _join(f"the other tasks of the SLURM step (SLURM_NTASKS={count}; this is task {environment['SLURM_PROCID']}): start all with srun")
    elif "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        _join(f"the other TPU hosts ({environment['TPU_WORKER_HOSTNAMES']}): the same command must run on all of them")


def _number(name: str, *, least: int, default: int | None = None) -> int:
    """Return the number in a variable of the environment."""
    given = os.environ.get(name, "" if default is None else str(default))
    if not re.fullmatch(r"\d{1,9}", given) or int(given) < least:
        raise UserError(f"{name}={given or 'nothing'}: must be a number, at least {least}; unset the variables JAX_COORDINATOR_ADDRESS,"
                        " JAX_NUM_PROCESSES and JAX_PROCESS_ID (or those of SLURM) for a run of one process")
    return int(given)


def _check_address(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not (host and colon and re.fullmatch(r"\d{1,5}", port) and 0 < int(port) < 2**16):
        raise UserError(f"JAX_COORDINATOR_ADDRESS={address}: must be host:port of the first process, such as 10.0.0.1:1234")


def _missing(address: str, count: int, index: int) -> str:
    others = [str(other) for other in range(count) if other != index]
    named = ", ".join(others[:8]) + (f", … {others[-1]}" if len(others) > 8 else "")
    first = "" if index == 0 else f"; the first, JAX_PROCESS_ID=0, must run at {address} and be reachable from here"
    return (f"the other processes of JAX_NUM_PROCESSES={count}: this is JAX_PROCESS_ID={index}, and not all of {named} have come{first}")


def _join(waiting_for: str, *arguments: Any) -> None:
    """Initialize JAX's processes, in a thread: this one answers signals, and says for what it waits.

    Raises:
      UserError: the others have not come after some minutes, or JAX says what is wrong.
    """
    failures: list[Exception] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(*arguments)
        except Exception as error:  # noqa: BLE001 raised below, in the thread that is waited for
            failures.append(error)

    thread = threading.Thread(target=initialize, name="join processes", daemon=True)
    began = time.monotonic()
    thread.start()
    told = False
    while thread.is_alive():
        thread.join(0.2)
        waited = time.monotonic() - began
        if thread.is_alive() and waited > _PATIENCE and not told:
            told = True
            print(f"jaxplm: waiting for {waiting_for}", file=sys.stderr, flush=True)
        if thread.is_alive() and waited > _LONGEST_WAIT:
            print(f"jaxplm: waited {waited:.0f} s for {waiting_for}; ended", file=sys.stderr, flush=True)
            os._exit(2)  # JAX's own end would be an abort
    for error in failures:
        raise UserError(f"the processes cannot be joined: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error


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


def broadcast_array(array: np.ndarray) -> np.ndarray:
    """Return the first process's array; the others give one of the same shape and dtype, whose content is not used."""
    return array if is_alone() else np.asarray(multihost_utils.broadcast_one_to_all(array))


def gather(tree: Any) -> Any:
    """Return the whole arrays of a tree of `jax.Array`s, as NumPy, in every process."""
    return jax.device_get(tree) if is_alone() else multihost_utils.process_allgather(tree, tiled=True)
