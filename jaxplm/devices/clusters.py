"""Find out from the environment whether this is one of several processes, and how JAX joins them, without JAX."""

import importlib.util
import os
import re
from dataclasses import dataclass
from typing import Any

from jaxplm.errors import UserError

# Each of these says that there may be several processes.
MENTIONED = (
    "JAX_COORDINATOR_ADDRESS", "JAXPLM_DISTRIBUTED", "OMPI_COMM_WORLD_SIZE", "SLURM_PROCID", "TPU_WORKER_HOSTNAMES",
    "TPU_PROCESS_ADDRESSES", "MEGASCALE_NUM_SLICES",
)
EXPLICIT = "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
_SET_BY_SRUN = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_LOCALID")  # JAX reads them


@dataclass(frozen=True)
class Cluster:
    """What joins the processes of a run.

    Attributes:
      arguments: of `jax.distributed.initialize`. JAX finds out what is not among them.
      others: who is waited for, for a message.
    """

    arguments: dict[str, Any]
    others: str


def find() -> Cluster | None:
    """Return the cluster that the environment names, None for a run of one process.

    Explicit addresses come first (as `launch/local.sh` sets them), then what the user asked JAX to find, then mpirun,
    which can run inside a SLURM allocation, then SLURM and TPU hosts.

    Raises:
      UserError: a variable cannot be used, or what JAX needs is not there.
    """
    environment = os.environ
    if address := environment.get("JAX_COORDINATOR_ADDRESS"):
        return _explicit(address)
    if asked := environment.get("JAXPLM_DISTRIBUTED"):  # launch/tpu_pod.sh: JAX asks the TPU's own metadata
        if asked != "auto":
            raise UserError(f"JAXPLM_DISTRIBUTED={asked}: must be auto; unset it for a run of one process")
        return Cluster({}, "the other hosts of the TPU pod slice: the same command must run on all of them")
    if "OMPI_COMM_WORLD_SIZE" in environment and (count := _number("OMPI_COMM_WORLD_SIZE", least=1)) > 1:
        return _open_mpi(count)
    if "SLURM_PROCID" in environment and (count := _number("SLURM_NTASKS", least=1, default=1)) > 1:
        return _slurm(count)
    # GKE sets these; JAX would ask a TPU VM's metadata first.
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
    slices = _number("MEGASCALE_NUM_SLICES", least=1, default=1)
    if "," in hosts or slices > 1:
        within = f" in {slices} slices" if slices > 1 else ""
        arguments = {"cluster_detection_method": "gketpu"} if hosts else {}
        return Cluster(arguments, f"the other TPU hosts ({hosts}{within}): the same command must run on all of them")
    return None


def _explicit(address: str) -> Cluster | None:
    count, index = _number("JAX_NUM_PROCESSES", least=1), _number("JAX_PROCESS_ID", least=0)
    if index >= count:
        raise UserError(f"JAX_PROCESS_ID={index} must be below JAX_NUM_PROCESSES={count}: processes are counted from 0")
    host, colon, port = address.rpartition(":")
    if not (host and colon and re.fullmatch(r"\d{1,5}", port) and 0 < int(port) < 2**16):
        raise UserError(f"JAX_COORDINATOR_ADDRESS={address}: must be host:port of the first process, such as"
                        " 10.0.0.1:1234")
    if count == 1:
        return None
    arguments = {"coordinator_address": address, "num_processes": count, "process_id": index}
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        arguments["cluster_detection_method"] = "deactivate"  # it would warn of a package that nothing is asked of
    others = [str(other) for other in range(count) if other != index]
    named = ", ".join(others[:8]) + (f", … {others[-1]}" if len(others) > 8 else "")
    first = "" if index == 0 else f"; the first, JAX_PROCESS_ID=0, must run at {address} and be reachable from here"
    return Cluster(arguments, f"the other processes of JAX_NUM_PROCESSES={count}: this is JAX_PROCESS_ID={index}, and"
                              f" not all of {named} have come{first}")


def _open_mpi(count: int) -> Cluster:
    rank = os.environ.get("OMPI_COMM_WORLD_RANK")
    others = f"the other processes of mpirun (OMPI_COMM_WORLD_SIZE={count}; this is rank {rank})"
    if "OMPI_MCA_orte_hnp_uri" in os.environ:
        return Cluster({"cluster_detection_method": "ompi"}, others)
    if importlib.util.find_spec("mpi4py"):  # Open MPI 5 does not say where its first process runs
        return Cluster({"cluster_detection_method": "mpi4py"}, others)
    raise UserError(f"OMPI_COMM_WORLD_SIZE={count}: this mpirun does not say where its first process runs"
                    f" (OMPI_MCA_orte_hnp_uri is not set, as in Open MPI 5): pip install mpi4py, or set {EXPLICIT}")


def _slurm(count: int) -> Cluster:
    if missing := [name for name in _SET_BY_SRUN if name not in os.environ]:
        raise UserError(f"SLURM_NTASKS={count}, but {missing[0]} is not set: start the command with srun"
                        " (see launch/slurm.sbatch), or set SLURM_NTASKS=1 for a run of one process")
    task = os.environ["SLURM_PROCID"]
    others = f"the other tasks of the SLURM step (SLURM_NTASKS={count}; this is task {task}): start all with srun"
    return Cluster({"cluster_detection_method": "slurm"}, others)


def _number(name: str, *, least: int, default: int | None = None) -> int:
    """Return the number in a variable of the environment."""
    given = os.environ.get(name, "" if default is None else str(default))
    if not re.fullmatch(r"\d{1,9}", given) or int(given) < least:
        raise UserError(f"{name}={given or 'nothing'}: must be a number, at least {least}; for a run of one process,"
                        f" unset the variables {EXPLICIT} (or those of the cluster)")
    return int(given)
