"""Strictness for every test: eight CPU devices, no silent dtype or rank promotion."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

# Without LLVM's optimisations, which take longer than what the tests compute. Read when JAX opens its first device.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

pytest.register_assert_rewrite("commands")

# Fixtures of the whole session, made when a test first asks for them.
from commands import lab, reference  # noqa: E402, F401
