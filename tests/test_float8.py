"""Products of float8 factors: values and gradients, scales, what is saved, what XLA is given, and where they are refused."""

from functools import partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from helpers import as_jax, random_batch, tiny_config
from messages import refuses

from jaxplm import config, nn
from jaxplm.devices import sharding
from jaxplm.devices.compute import resolve_compute
from jaxplm.nn.float8 import FACTOR, GRADIENT, float8_matmul, quantize
from jaxplm.nn.layers import Linear, dense
from jaxplm.tasks.mlm import MaskedLanguageModelling

# Largest number, relative error of rounding to the nearest, and half the distance of the smallest numbers.
E4M3 = (448.0, 2.0**-4, 2.0**-10)
E5M2 = (57344.0, 2.0**-3, 2.0**-17)


def rounded(x, dtype) -> np.ndarray:
    """Return float64 numbers that float8 holds at the scale 2ⁿ, by ml_dtypes' rounding and NumPy's logarithm."""
    x = np.asarray(x).astype(np.float64)
    low, (largest, *_) = (ml_dtypes.float8_e4m3fn, E4M3) if dtype is FACTOR else (ml_dtypes.float8_e5m2, E5M2)
    scale = 2.0 ** np.ceil(np.log2(np.abs(x).max() / largest)) if x.any() else 1.0
    return (x / scale).astype(low).astype(np.float64) * scale


def error_of(x, kind) -> np.ndarray:
    """Return the largest error that rounding each number of x to float8 can make."""
    largest, relative, smallest = kind
    scale = 2 * np.abs(x).max() / largest  # a power of two below this
    return np.maximum(relative * np.abs(x), smallest * scale)


def matrices(dtype=jnp.float32, sizes=(1.0, 0.02, 1e-4), shape=(48, 96, 80)):
    rows, inputs, outputs = shape
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((rows, inputs), (inputs, outputs), (rows, outputs))
    return [(size * jax.random.normal(key, shape)).astype(dtype) for size, key, shape in zip(sizes, keys, shapes, strict=True)]


@partial(jax.jit, static_argnums=3)
def products(x, kernel, dy, emulated=True):
    """Return y, dx and dw."""
    y, back = jax.vjp(partial(float8_matmul, emulated=emulated), x, kernel)
    return y, *back(dy)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_all_three_products_are_those_of_the_rounded_factors(dtype):
    x, kernel, dy = matrices(dtype)
    found = products(x, kernel, dy)
    low_x, low_kernel, low_dy = rounded(x, FACTOR), rounded(kernel, FACTOR), rounded(dy, GRADIENT)
    expected = (low_x @ low_kernel, low_dy @ low_kernel.T, low_x.T @ low_dy)
    for ours, right in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        rounding = 2.0**-8 * np.abs(right) if dtype == jnp.bfloat16 else 0
        np.testing.assert_array_less(np.abs(np.asarray(ours, np.float64) - right), 1e-5 * np.abs(right).max() + rounding)


@pytest.mark.parametrize("sizes", [(1.0, 0.02, 1e-4), (1e30, 1e-30, 1.0), (1e-18, 1e15, 1e-12), (3e5, 2e4, 1e18)])
def test_error_is_within_that_of_rounding_the_factors(sizes):
    arrays = matrices(sizes=sizes)
    x, kernel, dy = (np.asarray(array, np.float64) for array in arrays)
    off_x, off_kernel, off_dy = error_of(x, E4M3), error_of(kernel, E4M3), error_of(dy, E5M2)

    def bound(a, off_a, b, off_b):
        return np.abs(a) @ off_b + off_a @ np.abs(b) + off_a @ off_b + 1e-5 * np.abs(a) @ np.abs(b)

    y, dx, dw = (np.asarray(array, np.float64) for array in products(*arrays))
    assert (np.abs(y - x @ kernel) <= bound(x, off_x, kernel, off_kernel)).all()
    assert (np.abs(dx - dy @ kernel.T) <= bound(dy, off_dy, kernel.T, off_kernel.T)).all()
    assert (np.abs(dw - x.T @ dy) <= bound(x.T, off_x.T, dy, off_dy)).all()
    for ours, right, most in ((y, x @ kernel, 0.04), (dx, dy @ kernel.T, 0.065), (dw, x.T @ dy, 0.065)):
        assert np.linalg.norm(ours - right) <= most * np.linalg.norm(right)  # rounding errors are independent of each other


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("zero", [(0,), (1,), (2,), (0, 1, 2)])
def test_zeros_give_zeros(zero, dtype):
    arrays = [jnp.zeros_like(array) if i in zero else array for i, array in enumerate(matrices(dtype))]
    for ours, factors in zip(products(*arrays), ((0, 1), (1, 2), (0, 2)), strict=True):
        assert bool(jnp.isfinite(ours).all())
        assert bool(ours.any()) == (not set(factors) & set(zero))


@pytest.mark.parametrize(("dtype", "largest"), [(FACTOR, 448.0), (GRADIENT, 57344.0)])
def test_largest_number_does_not_overflow(dtype, largest):
    for size in np.float32([1, 1.5, 1.75, 1.7500001, 1.8125, 1.9375, 1.9999999, 2, 7 / 3]):
        for power in (-100, -30, 0, 30, 120):
            x = jnp.asarray([size * np.float32(2.0**power), -size * np.float32(2.0 ** (power - 3))])
            low, scale = quantize(x, dtype)
            values = np.asarray(low).astype(np.float64)
            assert np.isfinite(values).all()
            assert largest / 2 * 0.99 <= values[0] <= largest
            assert np.frexp(float(scale))[0] == 0.5  # a power of two
            np.testing.assert_allclose(values * float(scale), np.asarray(x, np.float64), rtol=2.0**-4 if dtype is FACTOR else 2.0**-3)


def test_numbers_that_are_not_finite_reach_the_result():
    for wrong in (np.nan, np.inf):
        for place in range(3):
            arrays = matrices()
            arrays[place] = arrays[place].at[0, 0].set(wrong)
            results = products(*arrays)
            for ours, factors in zip(results, ((0, 1), (1, 2), (0, 2)), strict=True):
                assert bool(jnp.isfinite(ours).all()) == (place not in factors)


def test_a_number_is_rounded_alike_whatever_else_is_in_the_array():
    x = jax.random.normal(jax.random.key(0), (64,))
    x = jnp.sign(x) * jnp.clip(jnp.abs(x), 0.25, 4)
    alone, scale = quantize(x, FACTOR)
    for other in (5.0, 77.0, 1000.0):  # 2⁻¹⁴ of it is less than every number of x
        beside, other_scale = quantize(jnp.append(x, other), FACTOR)
        np.testing.assert_array_equal(np.asarray(alone, np.float32) * scale, np.asarray(beside[:-1], np.float32) * other_scale)


def test_backward_pass_keeps_the_rounded_factors():
    x, kernel, _ = matrices(jnp.bfloat16)
    saved = jax.tree.leaves(jax.eval_shape(lambda x, kernel: jax.vjp(float8_matmul, x, kernel)[1], x, kernel))
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in saved) == x.size + kernel.size + 2 * 2
    assert {leaf.dtype for leaf in saved if leaf.size > 1} == {jnp.dtype(FACTOR)}


def test_program_for_a_gpu_multiplies_float8_operands():
    """XLA makes float8 calls of products whose operands have these types, see the module."""
    text = products.trace(*matrices(jnp.bfloat16), False).lower(lowering_platforms=("cuda",)).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert [sum(name in line for line in lines) for name in ("xf8E4M3FN>", "xf8E5M2>")] == [3, 2]
    assert len(lines) == 3
    assert all(line.rstrip().endswith("xbf16>") for line in lines)
    # A named algorithm keeps XLA from taking a kernel of its own; the gradients are summed in float32.
    assert ["allow_imprecise_accumulation = true" in line for line in lines] == [True, False, False]
    assert all("algorithm = <" in line for line in lines)


@pytest.mark.slow
def test_bias_of_several_axes_is_added_to_a_matrix():
    """cuBLASLt's product adds a bias itself where the program adds one of one axis to a result of two."""
    layer = Linear(jax.random.key(0), (16,), (3, 2, 8), 0.02)
    layer.bias[...] = jax.random.normal(jax.random.key(1), (3, 2, 8))
    x = jax.random.normal(jax.random.key(2), (2, 5, 16), jnp.bfloat16)
    low = nn.Compute("bfloat16", "bfloat16", products="float8")
    text = jax.jit(lambda x: dense(x, layer, low)).trace(x).lower(lowering_platforms=("cuda",)).as_text()
    [added] = [line for line in text.splitlines() if "stablehlo.add" in line and "xbf16>" in line]
    assert added.rstrip().endswith("tensor<10x48xbf16>")
    wide, emulated = (dense(x, layer, nn.Compute("bfloat16", "bfloat16", products=products)) for products in ("", "emulated float8"))
    assert emulated.shape == (2, 5, 3, 2, 8)
    assert jnp.linalg.norm((emulated - wide).astype(jnp.float32)) < 0.05 * jnp.linalg.norm(wide.astype(jnp.float32))


@pytest.mark.slow
@pytest.mark.parametrize("axes", [{"fsdp": 4}, {"tensor": 4}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_scales_are_those_of_whole_arrays_over_a_mesh(axes):
    mesh = sharding.make_mesh(config.Mesh(**({"data": 1} | axes)), jax.devices()[: int(np.prod(list(axes.values())))])
    x, kernel, dy = matrices()
    x, dy = x.at[0].multiply(1000.0), dy.at[-1].multiply(1000.0)  # the largest numbers are on one device each
    kernel = kernel.at[:, 0].multiply(30.0)
    rows, columns = sharding.BATCH[0], "tensor"
    specs = ((rows, None), ("fsdp", columns), (rows, columns))
    placed = [jax.device_put(array, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec)))
              for array, spec in zip((x, kernel, dy), specs, strict=True)]
    for whole, parted in zip(products(x, kernel, dy), products(*placed), strict=True):
        np.testing.assert_allclose(parted, whole, rtol=1e-4, atol=1e-6 * float(jnp.abs(whole).max()))


@pytest.mark.slow
def test_products_of_the_blocks_alone_are_float8():
    graph, _ = nn.abstract_model(tiny_config())
    params = nn.random_params(tiny_config(), 0)
    batch, task = as_jax(random_batch()), MaskedLanguageModelling()

    def lowered(compute):
        def loss(params):
            return task.sums(nn.merge_params(graph, params), batch, key=None, compute=compute)["loss"]

        return jax.jit(jax.value_and_grad(loss)).lower(params)

    wide, low = (lowered(nn.Compute("bfloat16", "bfloat16", products=products)) for products in ("", "emulated float8"))
    dots = [[line for line in one.as_text().splitlines() if "stablehlo.dot_general" in line] for one in (wide, low)]
    assert len(dots[0]) == len(dots[1])
    assert sum("f8E4M3FN" in line for line in dots[1]) == 3 * 4  # four products in the loop's block, forward and backward
    assert not any("f8" in line for line in dots[0])
    (loss, gradient), (low_loss, low_gradient) = (one.compile()(params) for one in (wide, low))
    np.testing.assert_allclose(low_loss, loss, rtol=5e-3)
    assert low_loss != loss
    for a, b in zip(jax.tree.leaves(gradient["encoder"]), jax.tree.leaves(low_gradient["encoder"]), strict=True):
        assert jnp.linalg.norm(a - b) <= 0.2 * jnp.linalg.norm(a) + 1e-6


# ---------------------------------------------------------------- where it is refused


class Device:
    def __init__(self, capability: str) -> None:
        self.compute_capability, self.device_kind = capability, "a card"


def resolved(**settings):
    return resolve_compute(config.Compute(attention="plain", **settings), sharding.make_mesh(config.Mesh(), jax.devices()[:1]))


@pytest.mark.parametrize(("backend", "capability"), [
    ("cpu", ""), ("tpu", ""), ("gpu", "8.0"), ("gpu", "8.6"), ("gpu", "gfx942"), ("gpu", ""),
])
def test_devices_without_float8_units(monkeypatch, backend, capability):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(capability)])
    with refuses("compute.dtype=float8", "compute.dtype=bfloat16", "8.9", "a card" if backend == "gpu" else backend.upper()):
        resolved(dtype="float8")


@pytest.mark.parametrize("capability", ["8.9", "9.0", "10.0", "12.0"])
def test_devices_with_float8_units(monkeypatch, capability):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(capability)])
    compute = resolved(dtype="float8")
    assert (compute.activations, compute.operands, compute.products) == ("bfloat16", "bfloat16", "float8")
    assert resolved(dtype="bfloat16").products == resolved().products == ""
