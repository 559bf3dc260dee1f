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

from jaxplm.checkpoint.checksums import digests


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8, jnp.bool_])
def test_digest_does_not_depend_on_the_mesh(dtype: Any) -> None:
    x = (np.random.default_rng(0).normal(size=(8, 24, 16)) * 50).astype(dtype)
    on = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    specs = [P(), P("data"), P("fsdp", None, "data"), P(None, ("data", "fsdp"))]
    sums = {digests([jax.device_put(x, NamedSharding(on, spec))])[0] for spec in specs}
    assert len(sums | set(digests([jnp.asarray(x)]))) == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 11), st.integers(0, 31))
def test_digest_sees_any_single_bit(value: int, index: int, bit: int) -> None:
    x = np.full(12, value, np.uint32)
    y = x.copy()
    y[index] ^= np.uint32(1 << bit)
    a, b = digests([jnp.asarray(x), jnp.asarray(y)])
    assert a != b


def test_digest_sees_order_and_refuses_what_it_cannot_sum() -> None:
    a, b = digests([jnp.arange(6.0), jnp.arange(6.0)[::-1]])
    assert a != b
    assert digests([]) == []
    with refuses("raw", error=TypeError):
        digests([jax.random.key(0)])
    with pytest.raises(TypeError, match="complex64"):
        digests([jnp.zeros(2, jnp.complex64)])
