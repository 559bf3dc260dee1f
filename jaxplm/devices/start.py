"""Start JAX: import it, join the processes of the run, and find the devices. What the environment has wrong is one line."""

import importlib
import os
import re

from jaxplm.errors import UserError, shortened

_READ = ("JAX_", "XLA_", "CUDA_VISIBLE_DEVICES", "TPU_", "SLURM_NTASKS", "SLURM_PROCID")


def several_processes() -> bool:
    """Return whether the environment says that this may be one of several processes of a run; see `join_processes`."""
    return any(name in os.environ for name in ("JAX_COORDINATOR_ADDRESS", "JAXPLM_DISTRIBUTED", "SLURM_PROCID", "TPU_WORKER_HOSTNAMES"))


def start_jax() -> None:
    """Import JAX, join the run's processes, and ask for the devices.

    Raises:
      UserError: a variable of the environment has an impossible value, or asks for devices that are not there.
    """
    try:
        jax = importlib.import_module("jax")
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"JAX does not start: {_first_line(error)}{_environment()}") from None
    from jaxplm.devices.processes import join_processes  # imports JAX

    join_processes()
    try:
        jax.devices()
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        wanted = os.environ.get("JAX_PLATFORMS")
        remedy = "; unset JAX_PLATFORMS, or set it to cpu" if wanted and wanted != "cpu" else ""
        what = f"those of JAX_PLATFORMS={wanted} are not here" if isinstance(error, AssertionError) else _first_line(error)
        raise UserError(f"JAX finds no devices: {what}{_environment()}{remedy}") from None


def _first_line(error: Exception) -> str:
    return shortened(re.sub(r"\s*\(.*", "", str(error).strip().split("\n")[0])) or type(error).__name__


def _environment() -> str:
    """Return the variables that JAX reads and that are set, for the end of a message."""
    found = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(_READ)]
    return f"; the environment says {', '.join(found)}" if found else ""
