"""Start JAX: import it, join the processes of the run, and find the devices. What the environment has wrong is one line."""

import contextlib
import importlib
import os
import re
import select
import signal
import warnings
from collections.abc import Iterator

from jaxplm.devices import clusters
from jaxplm.errors import UserError, shortened

_READ = ("JAX_", "XLA_", "CUDA_VISIBLE_DEVICES", "TPU_", "SLURM_NTASKS", "SLURM_PROCID", "OMPI_COMM_WORLD_", "MEGASCALE_")
_READ_BY_LIBRARIES = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TOKENIZERS_")
_CHECK_SECONDS = 20.0


def several_processes() -> bool:
    """Return whether the environment says that this may be one of several processes of a run; see `join_processes`."""
    return any(name in os.environ for name in clusters.MENTIONED)


def start_jax() -> None:
    """Import JAX, join the run's processes, and ask for the devices.

    Raises:
      UserError: a variable of the environment has an impossible value, or asks for devices that are not there.
    """
    try:
        jax = importlib.import_module("jax")
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"JAX does not start: {_first_line(error)}{_environment()}") from None
    _check_xla_flags()
    from jaxplm.devices.processes import join_processes  # imports JAX

    join_processes()
    try:
        jax.devices()
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        wanted = os.environ.get("JAX_PLATFORMS")
        remedy = "; unset JAX_PLATFORMS, or set it to cpu" if wanted and wanted != "cpu" else ""
        what = f"those of JAX_PLATFORMS={wanted} are not here" if isinstance(error, AssertionError) else _first_line(error)
        raise UserError(f"JAX finds no devices: {what}{_environment()}{remedy}") from None


def _check_xla_flags() -> None:
    """Parse XLA_FLAGS in a process of its own, because XLA ends the process where they are wrong, with pages of help.

    Raises:
      UserError: a flag that XLA does not know, or a value that it does not take.
    """
    flags = os.environ.get("XLA_FLAGS")
    if not flags or not hasattr(os, "fork"):
        return
    xla_client = importlib.import_module("jaxlib.xla_client")
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fork of several threads: the child calls nothing of Python's
        child = os.fork()
    if child == 0:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)  # this process's own answer gives the workdir back
            os.dup2(writer, 2)
            xla_client.CompileOptions().executable_build_options.debug_options  # noqa: B018 reads the flags
        finally:
            os._exit(0)
    os.close(writer)
    said = b""
    while answers := select.select([reader], [], [], _CHECK_SECONDS)[0]:
        if not (more := os.read(reader, 1 << 16)):
            break
        said += more
    os.close(reader)
    if not answers:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if status and said:
        line = re.sub(r"^[A-Z][\d.: ]+\S+\] ", "", said.decode(errors="replace").splitlines()[0])
        raise UserError(f"XLA_FLAGS={flags}: {line}; correct it or unset it")


@contextlib.contextmanager
def libraries_starting() -> Iterator[None]:
    """Raise what a library's import says of a value in the environment as a `UserError`.

    Raises:
      UserError: it is about the value of a variable that they read.
    """
    try:
        yield
    except ValueError as error:
        found = [f"{name}={value}" for name, value in sorted(os.environ.items())
                 if name.startswith(_READ_BY_LIBRARIES) and value and value in str(error)]
        if not found:
            raise
        raise UserError(f"the libraries do not start: {_first_line(error)}; the environment says {', '.join(found)}") from None


def _first_line(error: Exception) -> str:
    return shortened(re.sub(r"\s*\(.*", "", str(error).strip().split("\n")[0])) or type(error).__name__


def _environment() -> str:
    """Return the variables that JAX reads and that are set, for the end of a message."""
    found = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(_READ)]
    return f"; the environment says {', '.join(found)}" if found else ""
