"""Keep compiled steps on disk, so that the second start of the same step takes a fraction of the time of the first."""

import hashlib
import os
import platform
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxplm.devices.compute import cpu_flags


def keep_compiled(cache: Path) -> None:
    """Keep compiled functions under `cache`, unless JAX_COMPILATION_CACHE_DIR names another directory.

    Each kind of processor gets its own directory: code that was compiled for one CPU may not run on another, and home
    directories are shared between machines.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        kind = hashlib.sha256(f"{platform.machine()} {cpu_flags()}".encode()).hexdigest()[:12]
        directory = str(cache / "compiled" / kind)
        if jax.config.jax_compilation_cache_dir != directory:  # pyright: ignore[reportAttributeAccessIssue]  # JAX adds it at run time
            jax.config.update("jax_compilation_cache_dir", directory)
            # Where JAX has compiled something before, it has found that there is no directory, and does not look again.
            compilation_cache.reset_cache()
