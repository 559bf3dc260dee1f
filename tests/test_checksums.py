"""Checksums of arrays: the same on every mesh, different after any damage."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from messages import refuses

from jaxplm.checkpoint.checksums import checksums


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8, jnp.bool_])
def test_a_checksum_does_not_depend_on_the_mesh(dtype: Any) -> None:
    x = (np.random.default_rng(0).normal(size=(8, 24, 16)) * 50).astype(dtype)
    on = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    specs = [P(), P("data"), P("fsdp", None, "data"), P(None, ("data", "fsdp"))]
    sums = {checksums([jax.device_put(x, NamedSharding(on, spec))])[0] for spec in specs}
    assert len(sums | set(checksums([jnp.asarray(x)]))) == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 11), st.integers(0, 31))
def test_a_checksum_sees_any_single_bit(value: int, index: int, bit: int) -> None:
    x = np.full(12, value, np.uint32)
    y = x.copy()
    y[index] ^= np.uint32(1 << bit)
    a, b = checksums([jnp.asarray(x), jnp.asarray(y)])
    assert a != b


def test_a_checksum_sees_order_and_refuses_what_it_cannot_sum() -> None:
    a, b = checksums([jnp.arange(6.0), jnp.arange(6.0)[::-1]])
    assert a != b
    assert checksums([]) == []
    with refuses("raw", error=TypeError):
        checksums([jax.random.key(0)])
    with pytest.raises(TypeError, match="complex64"):
        checksums([jnp.zeros(2, jnp.complex64)])
