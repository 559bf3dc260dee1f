"""The Triton kernels against their plain forms, interpreted; the products made for GPUs; when they are chosen."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import as_jax, random_batch, tiny_config
from messages import assert_says

from jaxplm import config, nn
from jaxplm.devices import compute as devices_compute
from jaxplm.devices import sharding
from jaxplm.devices.compute import compiler_options, resolve_compute
from jaxplm.nn.attention import dispatch, segmented
from jaxplm.nn.attention.plain import attend_plain, segment_bias
from jaxplm.nn.attention.selfcheck import packed_ids
from jaxplm.nn.cpu_kernels import erf_gelu, layer_norm_rows
from jaxplm.nn.dropout import dropout, key_words
from jaxplm.nn.gpu_products import bfloat16_logits, biased_products
from jaxplm.nn.kernels import selfcheck
from jaxplm.nn.kernels.bias_gelu import bias_gelu, normal_cdf_and_exponential
from jaxplm.nn.kernels.residual_norm import residual_norm
from jaxplm.nn.layers import Compute
from jaxplm.nn.mesh_split import MeshSplit
from jaxplm.tasks.mlm import MaskedLanguageModelling

EXACT = {"float32": 2e-6, "bfloat16": 0.015}  # relative to the largest value; bfloat16 has 8 bits


def arrays(*shapes, dtype="float32"):
    random = np.random.default_rng(0)
    return [jnp.asarray(random.standard_normal(shape), dtype) for shape in shapes]


def with_gradients(function, gradient, *given):
    """The value of a function and its gradients."""
    @jax.jit
    def run(gradient, *given):
        value, back = jax.vjp(function, *given)
        return value, *back(gradient)
    return run(gradient, *given)


def assert_close(found, wanted, tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.shape == b.shape
        b = np.asarray(b, np.float32)
        np.testing.assert_allclose(np.asarray(a, np.float32), b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1e-3))


@pytest.fixture(scope="module")
def split():
    return MeshSplit(sharding.make_mesh(config.Mesh(data=2, fsdp=2, tensor=2)), ("data", "fsdp"), "tensor")


def kernel_norm(x, y, bias, scale, shift, rate, key, split=None):
    return residual_norm(x, y, bias, jnp.stack(key_words(key)), scale, shift, rate, 1e-5, split, True)


def plain_norm(x, y, bias, scale, shift, rate, key):
    return layer_norm_rows(x + dropout(y + bias[None], rate, key), scale, shift, 1e-5)


# ---------------------------------------------------------------- bias, dropout, residual, LayerNorm


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "width", "rate", "dtype"), [
    (5, 128, 0.1, "float32"), (12, 312, 0.3, "float32"), (6, 768, 0.0, "float32"), (8, 768, 0.1, "bfloat16"), (3, 1280, 0.1, "float32"),
    (2, 4096, 0.1, "float32"),
])
def test_residual_norm(rows, width, rate, dtype):
    x, y, gradient, bias = arrays((rows, width), (rows, width), (rows, width), (width,), dtype=dtype)
    scale, shift = arrays((width,), (width,))
    given, key = (x, y, bias, scale, shift), jax.random.key(7)
    found = with_gradients(partial(kernel_norm, rate=rate, key=key), gradient, *given)
    wide = [part.astype(jnp.float32) for part in given]
    wanted = with_gradients(partial(plain_norm, rate=rate, key=key), gradient.astype(jnp.float32), *wide)
    assert_close(found, wanted, EXACT[dtype])
    assert [part.dtype for part in found] == [x.dtype, x.dtype, x.dtype, x.dtype, jnp.float32, jnp.float32]


@pytest.mark.slow
def test_programs_that_add_up_several_rows(monkeypatch):
    """Gradients of the vectors with few programs, of which the last has fewer rows, and tiles that reach beyond the last row."""
    from jaxplm.nn.kernels import residual_norm as module
    from jaxplm.nn.kernels.tiles import Sizes

    monkeypatch.setattr(module, "FORWARD", Sizes(rows=4, warps=4))
    monkeypatch.setattr(module, "BACKWARD", Sizes(rows=4, warps=4, programs=3))
    x, y, gradient, bias, scale, shift = arrays(*[(30, 256)] * 3, *[(256,)] * 3)
    key = jax.random.key(1)
    found = with_gradients(partial(kernel_norm, rate=0.2, key=key), gradient, x, y, bias, scale, shift)
    assert_close(found, with_gradients(partial(plain_norm, rate=0.2, key=key), gradient, x, y, bias, scale, shift), 2e-6)


@pytest.mark.slow
def test_residual_norm_over_a_mesh_has_the_same_mask(split):
    x, y, gradient, bias, scale, shift = arrays(*[(16, 128)] * 3, *[(128,)] * 3)
    given, key = (x, y, bias, scale, shift), jax.random.key(3)
    found = with_gradients(partial(kernel_norm, rate=0.3, key=key, split=split), gradient, *given)
    assert_close(found, with_gradients(partial(plain_norm, rate=0.3, key=key), gradient, *given), 2e-6)


# ---------------------------------------------------------------- bias, GELU


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "width", "dtype"), [(5, 312, "float32"), (18, 512, "float32"), (8, 256, "bfloat16")])
def test_bias_gelu(rows, width, dtype):
    y, gradient, bias = arrays((rows, width), (rows, width), (width,), dtype=dtype)
    found = with_gradients(lambda y, bias: bias_gelu(3 * y, bias, None, True), gradient, y, bias)
    wanted = with_gradients(lambda y, bias: erf_gelu(3 * y + bias[None]), *(part.astype(jnp.float32) for part in (gradient, y, bias)))
    assert_close(found, wanted, EXACT[dtype])


@pytest.mark.slow
def test_bias_gelu_over_a_mesh_keeps_columns_split(split):
    y, gradient, bias = arrays((8, 512), (8, 512), (512,))
    found = with_gradients(lambda y, bias: bias_gelu(y, bias, split, True), gradient, y, bias)
    assert_close(found, with_gradients(lambda y, bias: erf_gelu(y + bias[None]), gradient, y, bias), 2e-6)


def test_normal_distribution_to_the_last_bits():
    x = np.linspace(-12, 12, 100_001, dtype=np.float32)
    cdf, exponential = normal_cdf_and_exponential(jnp.asarray(x))
    exact = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x.tolist()])
    assert np.abs(np.asarray(cdf) - exact).max() < 3e-7
    np.testing.assert_allclose(exponential, np.exp(-0.5 * x.astype(np.float64) ** 2), rtol=2e-5, atol=1e-30)


# ---------------------------------------------------------------- attention


def rows_of_ids() -> np.ndarray:
    """Random texts and padding, and rows in which whole blocks of keys belong to one segment."""
    full = [np.ones(192), np.repeat([1, 2], [130, 62]), np.r_[np.ones(150), np.zeros(42)], np.repeat([1, 2, 3], 64)]
    return np.concatenate([packed_ids(4, 192), np.stack(full).astype(np.int32)])


@pytest.mark.slow
@pytest.mark.parametrize(("length", "width", "dtype"), [(192, 16, "float32"), (150, 32, "float32"), (192, 64, "bfloat16")])
def test_segmented_attention(length, width, dtype):
    ids = jnp.asarray(rows_of_ids()[:, :length])
    qkv, gradient = arrays((8, length, 3, 2, width), (8, length, 2, width), dtype=dtype)
    found = with_gradients(lambda qkv: segmented.attend_segmented(qkv, segmented.bounds_of(ids), True), gradient, qkv)
    wanted = with_gradients(lambda qkv: attend_plain(*(qkv[:, :, i] for i in range(3)), segment_bias(ids), 0.0, None),
                            *(part.astype(jnp.float32) for part in (gradient, qkv)))
    assert_close(found, wanted, {"float32": 2e-6, "bfloat16": 0.02}[dtype])


@pytest.mark.slow
def test_short_texts_take_smaller_blocks_and_have_the_same_result(monkeypatch):
    taken = []
    call = segmented._call
    monkeypatch.setattr(segmented, "_call", lambda kernel, sizes, *rest: taken.append(sizes.there) or call(kernel, sizes, *rest))
    ids = jnp.asarray(rows_of_ids())
    qkv, gradient = arrays((8, 192, 3, 1, 16), (8, 192, 1, 16))
    compute = Compute(attention="segmented", kernels="interpret")
    results = {}
    for most in (0, 1, 2, 64):  # 192 tokens: two texts or more have at most 128 each
        segments = dispatch.segments_of(ids, compute, (16,), most)
        results[most] = with_gradients(lambda qkv, made=segments: dispatch.attend(qkv, made, 0.0, None, compute), gradient, qkv)
        assert taken == [64 if most < 2 else 32] * 2, most
        taken.clear()
    for most in (1, 2, 64):
        assert_close(results[most], results[0], 2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True])
def test_segmented_attention_over_a_mesh(split, apart):
    ids = jnp.asarray(packed_ids(8, 64))
    qkv, gradient = arrays((8, 64, 3, 2, 16), (8, 64, 2, 16))

    def attend(qkv, compute):
        made = dispatch.segments_of(ids, compute, (16,), 4)
        return dispatch.attend(tuple(qkv[:, :, i] for i in range(3)) if apart else qkv, made, 0.0, None, compute)

    compute = Compute(attention="segmented", kernels="interpret", split=split)
    assert_close(with_gradients(partial(attend, compute=compute), gradient, qkv),
                 with_gradients(partial(attend, compute=Compute()), gradient, qkv), 2e-6)


def test_bounds_are_those_of_a_plain_loop():
    ids = packed_ids(6, 40, seed=4)
    bounds = segmented.bounds_of(jnp.asarray(ids))
    for row, begin, end in zip(ids, np.asarray(bounds.begin), np.asarray(bounds.end), strict=True):
        for place in range(40):
            first, last = place, place
            while first > 0 and row[first - 1] == row[place]:
                first -= 1
            while last < 39 and row[last + 1] == row[place]:
                last += 1
            assert (begin[place], end[place]) == (first, last + 1)


@pytest.mark.parametrize(("length", "width", "texts", "kernel"), [
    (512, 64, 1, "segmented"), (512, 64, 16, "segmented"), (512, 64, 0, "segmented"), (2048, 64, 1, "cudnn"), (8192, 64, 4, "cudnn"),
    (2048, 64, 16, "segmented"), (512, 24, 16, "cudnn"), (512, 21, 1, "plain"), (2048, 128, 1, "cudnn"), (512, 256, 3, "cudnn"),
])
def test_which_of_two_kernels_attends(length, width, texts, kernel):
    assert dispatch.kernel_for("nvidia", length, width, texts) == kernel


# ---------------------------------------------------------------- products


def test_biased_products_are_plain_products():
    x, first, second, b, c, carried = arrays((6, 5), (5, 4), (5, 3), (4,), (3,), (6, 5))
    gradients = (tuple(arrays((6, 4), (6, 3))), carried)

    def plain(x, kernels, biases):
        return tuple(x @ kernel + bias[None] for kernel, bias in zip(kernels, biases, strict=True)), x

    given = (x, (first, second), (b, c))
    assert_close(with_gradients(biased_products, gradients, *given), with_gradients(plain, gradients, *given), 1e-6)


def test_gradient_of_logits_is_rounded_once():
    x, table, gradient = arrays((12, 8), (20, 8), (12, 20), dtype="bfloat16")
    bias, = arrays((20,))
    found = with_gradients(bfloat16_logits, gradient.astype(jnp.float32), x, table, bias)
    wanted = with_gradients(lambda x, table, bias: x @ table.T + bias[None],
                            *(part.astype(jnp.float32) for part in (gradient, x, table, bias)))
    assert found[0].dtype == jnp.float32 and found[1].dtype == found[2].dtype == jnp.bfloat16
    assert_close((found[0], found[3]), (wanted[0], wanted[3]), 1e-6)
    assert_close(found[1:3], wanted[1:3], 0.01)


# ---------------------------------------------------------------- in the model


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "settings", "over_mesh"), [
    ({}, {}, False), ({}, {"unroll": True}, False), ({}, {"remat": "dots"}, False),
    ({"extension": nn.ExtensionConfig(40, 80, 5, 64)}, {}, False), ({"layers": 1, "width": 128, "heads": 4}, {}, True),
], ids=["loop", "unrolled", "dots", "exBERT", "mesh"])
def test_model_with_kernels_learns_the_same(split, changes, settings, over_mesh):
    """Loss and every gradient with dropout on: the kernels share its masks with the plain forms."""
    compute = Compute(attention="segmented", kernels="interpret", split=split if over_mesh else None, **settings)
    shape = tiny_config(**({"layers": 2, "width": 80, "ffn_width": 136, "dropout": 0.1} | changes))
    graph, _ = nn.abstract_model(shape)
    params, batch, task = nn.random_params(shape, 0), as_jax(random_batch()), MaskedLanguageModelling(max_segments_per_row=2)

    @partial(jax.jit, static_argnums=1)
    def run(params, compute):
        return jax.value_and_grad(lambda params: task.sums(nn.merge_params(graph, params), batch, key=jax.random.key(1),
                                                           compute=compute)["loss"])(params)

    found, wanted = run(params, compute), run(params, Compute(unroll=compute.unroll))
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found[1]), jax.tree.leaves(wanted[1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * max(0.1, float(jnp.abs(b).max())), err_msg=str(path))


# ---------------------------------------------------------------- when they are chosen


class Device:
    def __init__(self, capability: str) -> None:
        self.compute_capability, self.device_kind = capability, "a card"


@pytest.fixture
def machine(monkeypatch):
    """machine(backend, capability, fault): a machine that is not here, and what the kernels' check says."""
    def pretend(backend: str, capability: str = "", fault: str = "") -> None:
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        monkeypatch.setattr(jax, "local_devices", lambda: [Device(capability)])
        monkeypatch.setattr(devices_compute, "_find_kernel_fault", lambda dtype, device: fault)
        monkeypatch.setattr(devices_compute, "_find_attention_fault", lambda kernel, dtype, device: "")

    return pretend


def resolved(**settings) -> Compute:
    return resolve_compute(config.Compute(**settings), sharding.make_mesh(config.Mesh(), jax.devices()[:1]))


@pytest.mark.parametrize(("backend", "capability", "kernels"), [
    ("gpu", "8.0", "triton"), ("gpu", "9.0", "triton"), ("gpu", "12.0", "triton"), ("gpu", "7.5", "plain"), ("gpu", "gfx942", "plain"),
    ("tpu", "", "plain"), ("cpu", "", "plain"),
])
def test_kernels_run_where_there_are_units_for_them(machine, backend, capability, kernels):
    machine(backend, capability)
    assert resolved().kernels == kernels
    assert resolved(kernels="plain").kernels == "plain"


def test_compiler_options_give_way_to_those_of_the_environment(machine, monkeypatch):
    machine("cpu")
    assert compiler_options() == {}
    machine("gpu", "9.0")
    monkeypatch.delenv("XLA_FLAGS")
    assert compiler_options()["xla_gpu_enable_triton_gemm"] is False
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_use_x=1 --xla_gpu_enable_triton_gemm=true")
    assert "xla_gpu_enable_triton_gemm" not in compiler_options() and "xla_gpu_enable_command_buffer" in compiler_options()


def test_kernels_that_do_not_pass_their_check_are_not_used(machine, caplog):
    machine("gpu", "9.0", fault="norm differs by 40% from the plain form")
    with caplog.at_level("WARNING", "jaxplm"):
        assert resolved().kernels == "plain"
    assert_says(caplog.messages[0], "kernels", "plain", "norm differs by 40%")


@pytest.mark.slow
def test_wrong_kernels_are_found(monkeypatch):
    kwargs = {"rows": 4, "width": 128, "interpret": True}
    assert max(selfcheck.differences(**kwargs).values()) < selfcheck.TOLERANCE
    monkeypatch.setattr(selfcheck, "differences", partial(selfcheck.differences, **kwargs))
    assert selfcheck.find_fault("bfloat16", None) == ""
    monkeypatch.setattr(selfcheck, "bias_gelu", lambda y, bias, split, interpret: y + bias[None])
    assert_says(selfcheck.find_fault("bfloat16", None), "gelu", "%")
    monkeypatch.setattr(selfcheck, "bias_gelu", lambda *given: 1 / 0)
    assert selfcheck.find_fault("bfloat16", None) == "ZeroDivisionError: division by zero"
