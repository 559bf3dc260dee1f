"""Which processes join where: JAX's own detection finds the address, the count and the number in each environment."""

import importlib.machinery
import json
import os
import socket
import subprocess
import sys

import jax
import pytest
from commands import ROOT
from forked import LIMIT
from jax._src import clusters as jax_clusters
from jax._src.clusters import cloud_tpu_cluster
from messages import refuses

from jaxplm.devices import clusters, processes, start

PREFIXES = (
    "JAX_COORDINATOR",
    "JAX_NUM_PROC",
    "JAX_PROCESS",
    "JAXPLM_DISTR",
    "OMPI_",
    "SLURM_",
    "TPU_",
    "MEGASCALE_",
    "KUBERNETES_",
)
SLURM = {
    "SLURM_JOB_ID": "4242",
    "SLURM_STEP_NODELIST": "gpu[003-006],gpu9",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_MCA_orte_hnp_uri": "12288.0;tcp://10.96.0.1,10.148.0.1:34911",
}
GKE = {"TPU_WORKER_HOSTNAMES": "localhost,second.host", "TPU_WORKER_ID": "1"}
SLICES = {
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "MEGASCALE_NUM_SLICES": "3",
    "MEGASCALE_SLICE_ID": "2",
    "MEGASCALE_COORDINATOR_ADDRESS": "localhost:8080",
}
EXPLICIT = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}


@pytest.fixture
def joined(monkeypatch):
    """Return what JAX joins in an environment: address, count, number, device of this process; None for one process."""

    def join(variables: dict[str, str]):
        for name in [name for name in os.environ if name.startswith(PREFIXES)]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        found = []

        def initialize(coordinator_address=None, num_processes=None, process_id=None, cluster_detection_method=None):
            given = (coordinator_address, num_processes, process_id, None)
            if cluster_detection_method != "deactivate":
                given = jax_clusters.ClusterEnv.auto_detect_unset_distributed_params(
                    *given, cluster_detection_method, 5
                )
            found.append(given)

        monkeypatch.setattr(jax.distributed, "initialize", initialize)
        processes.join_processes()
        assert start.several_processes() or not found
        return found[0] if found else None

    return join


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (EXPLICIT, ("10.0.0.1:1234", 4, 2, None)),
        (SLURM, (f"gpu003:{61440 + 4242 % 4096}", 8, 5, [1])),
        (SLURM | {"SLURM_STEP_NODELIST": "node1,node2"}, (f"node1:{61440 + 4242 % 4096}", 8, 5, [1])),
        (SLURM | {"JAX_COORDINATOR_PORT": "999"}, ("gpu003:999", 8, 5, [1])),
        (OPEN_MPI, ("10.96.0.1:61443", 4, 3, [1])),
        (OPEN_MPI | SLURM | {"SLURM_PROCID": "0"}, ("10.96.0.1:61443", 4, 3, [1])),  # mpirun in an allocation
        (SLURM | EXPLICIT, ("10.0.0.1:1234", 4, 2, [1])),  # the device of the SLURM task
    ],
)
def test_gpu_clusters(joined, variables, expected):
    assert joined(variables) == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (GKE, ("localhost:8482", 2, 1, None)),
        ({"TPU_PROCESS_ADDRESSES": "localhost:8476,b:8476", "TPU_WORKER_ID": "1"}, ("localhost:8482", 2, 1, None)),
        (SLICES, ("localhost:8482", 3, 2, None)),
    ],
)
def test_tpu_hosts_of_gke(joined, monkeypatch, variables, expected):
    for module in (cloud_tpu_cluster, jax_clusters.cluster):
        monkeypatch.setattr(module, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr(
        cloud_tpu_cluster, "get_metadata", lambda key: ("Not found", 404)
    )  # of the machine under the pod
    assert joined(variables) == expected


def test_a_tpu_pod_by_its_metadata(joined, monkeypatch):
    """`launch/tpu_pod.sh` sets JAXPLM_DISTRIBUTED=auto: the hosts of a pod have no variables that name the others."""
    metadata = {
        "agent-worker-number": "2",
        "worker-network-endpoints": "a:1:127.0.0.1,b:2:10.0.0.2,c:3:10.0.0.3",
        "tpu-env": "ZONE: 'x'\nACCELERATOR_TYPE: 'v5e'",
    }
    for module in (cloud_tpu_cluster, jax_clusters.cluster):
        monkeypatch.setattr(module, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", lambda key: (metadata[key], 200))
    assert joined({"JAXPLM_DISTRIBUTED": "auto"}) == ("127.0.0.1:8482", 3, 2, None)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        EXPLICIT | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"},
        SLURM | {"SLURM_NTASKS": "1"},
        OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1"},
        {"TPU_WORKER_HOSTNAMES": "localhost"},
        {"TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_NUM_SLICES": "1"},
        {"SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"},  # a shell of salloc is no task
    ],
)
def test_one_process(joined, variables):
    assert joined(variables) is None


def test_open_mpi_5_needs_mpi4py(joined, monkeypatch):
    """It has no OMPI_MCA_orte_hnp_uri, from which JAX reads the address; by mpi4py, JAX asks the first process."""
    variables = {name: value for name, value in OPEN_MPI.items() if name != "OMPI_MCA_orte_hnp_uri"}
    monkeypatch.setattr(clusters.importlib.util, "find_spec", lambda name: None)
    with refuses("OMPI_COMM_WORLD_SIZE=4", "mpi4py", "JAX_COORDINATOR_ADDRESS"):
        joined(variables)
    monkeypatch.setattr(clusters.importlib.util, "find_spec", lambda name: importlib.machinery.ModuleSpec(name, None))
    cluster = clusters.find()
    assert cluster is not None
    assert cluster.arguments == {"cluster_detection_method": "mpi4py"}


@pytest.mark.filterwarnings("error")
def test_explicit_addresses_in_kubernetes_ask_it_nothing(joined):
    """`launch/gke_jobset.yaml` sets them for GPUs. JAX's own detection would warn that it lacks a package."""
    assert joined(EXPLICIT | {"KUBERNETES_SERVICE_HOST": "10.0.0.9"}) == ("10.0.0.1:1234", 4, 2, None)


JOIN = """
import json, jax, numpy as np
from jaxplm.devices import processes
processes.join_processes()
total = processes.highest(10 + jax.process_index())
print(json.dumps([jax.process_count(), jax.process_index(), total]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("environment", ["slurm", "open_mpi"])
def test_two_processes_join_by_the_variables_of_a_cluster(lab, environment):
    """Real processes, as srun and mpirun start them on this machine: both know each other, and communicate."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {
        "slurm": lambda rank: (
            SLURM
            | {"SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2", "SLURM_PROCID": rank, "SLURM_LOCALID": rank}
        ),
        "open_mpi": lambda rank: (
            OPEN_MPI
            | {
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_RANK": rank,
                "OMPI_COMM_WORLD_LOCAL_RANK": rank,
                "OMPI_MCA_orte_hnp_uri": "12288.0;tcp://127.0.0.1:34911",
            }
        ),
    }[environment]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", JOIN],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=lab.environment(**variables(rank), JAX_COORDINATOR_PORT=port),
        )
        for rank in "01"
    ]
    try:
        for rank, process in enumerate(started):
            out, err = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, err
            assert json.loads(out.splitlines()[-1]) == [2, rank, 11]  # Gloo prints too
    finally:
        for process in started:
            process.kill()
            process.communicate()
