"""Strictness for every test: eight CPU devices, no silent dtype or rank promotion."""

import gc
import logging
import os
import shutil
import signal
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

# Compiled fast, not for speed: without LLVM's optimisations, by XLA's simpler code generator (jaxlib 0.11 has no choice of it), each
# program by one thread. Read when JAX opens its first device. `XLA_FLAGS= pytest` compiles as users' runs do, in twice the time.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    + (" --xla_cpu_use_fusion_emitters=false" if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11) else "")
)

# A compiled program serves all tests and commands of a session, and all workers of pytest-xdist, which inherit the variables.
# A limit of the size makes JAX lock the directory: two processes do not read what the other has half written.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": tempfile.mkdtemp(prefix="jaxplm-tests-compiled-"),
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**33),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }

import hidden_torch
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

pytest.register_assert_rewrite("commands")


# A process that is started in the background ignores Ctrl-C, and so do the commands that it starts. Tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Hide PyTorch from the tests that are not slow: they must pass where it is not installed."""
    if config.option.markexpr == "not slow":
        hidden_torch.hide()


def pytest_collection_finish() -> None:
    """Let the garbage collector skip what was imported: a full collection over JAX and transformers takes tenths of a second."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


# Files whose tests share runs of the command.
TOGETHER = {"test_command_tasks": "tasks", "test_command_task_exports": "tasks"} | dict.fromkeys(
    ("test_command", "test_command_stopped", "test_command_environment", "test_file_checksums"), "runs")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file on one worker, so that its fixtures are made once, and the files in the alphabet's order.

    That order begins with the real command and ends with the vocabulary, so no long file is left to the end.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.split("::")[0]).stem
            return TOGETHER.get(file, file)

    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.fixture(autouse=True)
def _fresh_log() -> None:
    """Give each test the package's logger as it is after an import, whatever an earlier test or a shared run set."""
    log = logging.getLogger("jaxplm")
    log.handlers.clear()
    log.setLevel(logging.NOTSET)
    log.propagate = True


def pytest_unconfigure() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


# Fixtures of the whole session, made when a test first asks for them.
from commands import lab, reference  # noqa: E402, F401
