"""The processes of one run: joined, waited for, asked, and which of them writes."""

import os
import sys
import threading
import time
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxplm.devices import clusters
from jaxplm.errors import UserError

_PATIENCE = 60.0  # seconds until a wait says what for
# JAX gives up after five minutes and aborts with C++ frames on stderr: ours ends before that, with a line.
_LONGEST_WAIT = 290.0


def join_processes() -> None:
    """Call `jax.distributed.initialize` where the environment says that this is one of several processes; see `clusters.find`.

    Raises:
      UserError: a variable of the environment cannot be used, or the others do not come.
    """
    if jax.distributed.is_initialized():  # by an earlier run of this process
        return
    if cluster := clusters.find():
        _join(cluster)


def _join(cluster: clusters.Cluster) -> None:
    """Initialize JAX's processes, in a thread: this one answers signals, and says for what it waits.

    Raises:
      UserError: the others have not come after some minutes, or JAX says what is wrong.
    """
    failures: list[Exception] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(**cluster.arguments)
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
            print(f"jaxplm: waiting for {cluster.others}", file=sys.stderr, flush=True)
        if thread.is_alive() and waited > _LONGEST_WAIT:
            print(f"jaxplm: waited {waited:.0f} s for {cluster.others}; ended", file=sys.stderr, flush=True)
            os._exit(2)  # JAX's own end would be an abort
    for error in failures:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = "" if "coordinator_address" in cluster.arguments else f"; set {clusters.EXPLICIT} to name them"
        raise UserError(f"the processes cannot be joined: {said}{remedy}") from error


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
