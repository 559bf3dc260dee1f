"""Chunked attention and the flash kernels against plain attention, what they are given, and when they are chosen."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import as_jax, random_batch, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import assert_says, refuses

from jaxplm import config, nn
from jaxplm.devices import compute as devices_compute
from jaxplm.devices import sharding
from jaxplm.devices.compute import resolve_compute, without_attention_dropout
from jaxplm.nn.attention import chunked, cudnn, dispatch, plain, selfcheck, splash
from jaxplm.nn.layers import Compute
from jaxplm.nn.mesh_split import MeshSplit

# ---------------------------------------------------------------- cuDNN: what it is given


def runs_by_loop(ids: list[int], most: int) -> tuple[list[int], list[int], bool]:
    """Starts, lengths and whether there are more than `most`, by the definition in `fused_attention_stablehlo`."""
    starts = [i for i in range(len(ids)) if i == 0 or ids[i] != ids[i - 1]]
    lengths = [b - a for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]
    padding = [-1] * max(0, most - len(starts))
    return [*starts[:most], *padding, -1], [*lengths[:most], *padding], len(starts) > most


compiled_runs = jax.jit(cudnn.runs_of, static_argnums=1)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=12, max_size=12), min_size=1, max_size=4), st.integers(0, 13))
def test_runs_are_those_of_a_plain_loop(rows, texts):
    rows += [[0] * 12] * (4 - len(rows))  # one program for each number of texts
    runs = jax.device_get(compiled_runs(np.asarray(rows, np.int32), texts))
    most = min(texts + 1, 12) if texts else 12
    assert runs.starts.shape == (4, most + 1) and runs.lengths.shape == (4, most)
    assert runs.starts.dtype == runs.lengths.dtype == np.int32
    for row, ids in enumerate(rows):
        assert (runs.starts[row].tolist(), runs.lengths[row].tolist(), bool(runs.too_many[row])) == runs_by_loop(ids, most)


@pytest.mark.slow
def test_the_runs_of_packed_rows_cover_them():
    ids = selfcheck.packed_ids(6, 64)
    runs = jax.device_get(cudnn.runs_of(jnp.asarray(ids), int(ids.max())))
    assert not runs.too_many.any()
    assert (np.maximum(runs.lengths, 0).sum(1) == 64).all()


@pytest.mark.slow
def test_more_texts_than_the_bound_are_not_computed_silently():
    @jax.jit
    def checked(ids, vectors):
        return dispatch.segments_of(ids, Compute("bfloat16", "bfloat16", attention="cudnn"), (24,), 2).checked(vectors)

    found = np.asarray(checked(np.asarray([[1, 1, 2, 2, 3, 0], [1, 1, 1, 2, 2, 0]], np.int32), np.ones((2, 6, 4), jnp.bfloat16)))
    assert np.isnan(found[0]).all() and (found[1] == 1).all()


@pytest.fixture
def a_hopper(monkeypatch):
    """JAX's own checks before it lowers for CUDA: there is no GPU here to ask."""
    from jax._src.cudnn import fused_attention_stablehlo as fused

    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused, "check_compute_capability", lambda wanted: True)
    monkeypatch.setattr(fused, "is_cuda_compute_capability_equal", lambda wanted: False)


def lowered_for_cuda(split: MeshSplit | None = None) -> str:
    compute = Compute("bfloat16", "bfloat16", attention="cudnn", split=split)
    ids = jnp.asarray(selfcheck.packed_ids(4, 64))
    qkv = jnp.ones((4, 64, 3, 2, 24), jnp.bfloat16)

    def loss(qkv, ids):
        made = dispatch.segments_of(ids, compute, (24,), 3)
        return dispatch.attend(qkv, made, 0.5, jax.random.key(0), compute).astype(jnp.float32).sum()

    return jax.jit(jax.grad(loss)).trace(qkv, ids).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("split", [False, True])
def test_cudnn_is_called_with_offsets_and_no_bias(a_hopper, split):
    mesh = sharding.make_mesh(config.Mesh(data=2, fsdp=2, tensor=2))
    text = lowered_for_cuda(MeshSplit(mesh, ("data", "fsdp"), "tensor") if split else None)
    rows, heads = (1, 1) if split else (4, 2)  # of one device
    block = f"tensor<{rows}x64x{heads}x24xbf16>"
    runs = f"tensor<{rows}x4xi32>, tensor<{rows}x4xi32>, tensor<{rows}x5xi32>, tensor<{rows}x5xi32>"
    assert set(re.findall(r"@__cudnn\$\w+", text)) == {"@__cudnn$fmhaSoftmax", "@__cudnn$fmhaSoftmaxBackward"}
    forward, backward = (next(line for line in text.split("\n") if f"@__cudnn${name}(" in line) for name in
                         ("fmhaSoftmax", "fmhaSoftmaxBackward"))
    assert f": ({', '.join([block] * 3)}, {runs}) ->" in forward
    statistics = f"tensor<{4 * rows}x{heads}x64xf32>"
    assert f": ({', '.join([block] * 3)}, {statistics}, {block}, {block}, {runs}) ->" in backward
    assert r"max_seg_per_batch\22: 4" in forward and r"mask_type\22: \22NO_MASK" in forward
    assert "64x64x" not in text  # neither scores nor a bias


# ---------------------------------------------------------------- chunked, on a CPU


@pytest.mark.parametrize(("rows", "length", "heads", "chunk"), [
    (32, 128, 12, (4, 12)), (3, 128, 12, (3, 12)), (7, 128, 12, (1, 12)), (64, 32, 12, (64, 12)), (4, 512, 12, (1, 3)),
    (4, 512, 7, (1, 1)), (1, 4096, 12, (1, 1)), (2, 256, 1, (2, 1)),
])
def test_chunks_divide_rows_and_heads(rows, length, heads, chunk):
    found = chunked.chunk_size(rows, length, heads, 3 * 2**18)
    assert found == chunk and rows % found.rows == 0 and heads % found.heads == 0


@pytest.mark.slow
@pytest.mark.parametrize("scores", [2 * 4 * 48**2, 4 * 48**2, 2 * 48**2, 1, 2**20], ids=["two rows", "a row", "heads", "a head", "all"])
@pytest.mark.parametrize("split", [False, True])
def test_chunks_are_plain_attention(monkeypatch, scores, split):
    """Output, gradients and dropout's mask, for any size of a chunk and any split of rows and heads."""
    for limit in ("_WHOLE", "_FORWARD", "_BACKWARD"):
        monkeypatch.setattr(chunked, limit, scores)
    mesh = sharding.make_mesh(config.Mesh(data=2, fsdp=2, tensor=2))
    compute = Compute(attention="chunked", split=MeshSplit(mesh, ("data", "fsdp"), "tensor") if split else None)
    ids, key = jnp.asarray(selfcheck.packed_ids(8, 48)), jax.random.key(3)
    qkv, dy = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(8, 48, 3, 4, 8), (8, 48, 4, 8)]))

    @partial(jax.jit, static_argnums=0)
    def run(compute):
        made = dispatch.segments_of(ids, compute, (8,))
        y, back = jax.vjp(lambda qkv: dispatch.attend(qkv, made, 0.3, key, compute), qkv)
        return y, *back(dy)

    for found, wanted in zip(run(compute), run(Compute()), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-6)


# ---------------------------------------------------------------- splash, interpreted


@pytest.fixture
def interpreted(monkeypatch):
    """Splash without a TPU; its own code mixes types and ranks."""
    monkeypatch.setattr(dispatch, "attend_splash", lambda *given: splash.attend_splash(*given, interpret=True))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.slow
@pytest.mark.parametrize(("length", "width"), [(128, 64), (200, 24), (640, 32)])
def test_splash_is_plain_attention(interpreted, length, width):
    errors = selfcheck.differences("splash", rows=3, length=length, heads=2, head_width=width, dtype="float32")
    assert max(errors.values()) <= 1e-5, errors


@pytest.mark.slow
def test_splash_over_a_mesh(interpreted):
    split = MeshSplit(sharding.make_mesh(config.Mesh(data=2, fsdp=2, tensor=2)), ("data", "fsdp"), "tensor")
    errors = selfcheck.differences("splash", length=128, head_width=8, dtype="float32", split=split)
    assert max(errors.values()) <= 1e-5, errors


@pytest.mark.slow
def test_an_encoder_with_an_extension_mixes_kernels(interpreted):
    """Heads of 24 by splash, those of the extension, 21 wide, by plain attention; padding stays finite and without effect."""
    shape = tiny_config(layers=1, max_positions=128, extension=nn.ExtensionConfig(40, 5 * 21, 5, 64))
    graph, _ = nn.abstract_model(shape)
    params = nn.random_params(shape, 0)
    batch = as_jax(random_batch(2, 128))

    def loss(params, compute):
        hidden = nn.merge_params(graph, params).encoder(*batch[:3], compute=compute)
        return jnp.where((batch.segment_ids > 0)[..., None], jnp.sin(hidden), 0.0).sum(), jnp.isfinite(hidden).all()

    run = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    (wanted, _), wanted_grad = run(params, Compute())
    (found, finite), grad = run(params, Compute(attention="splash"))
    assert finite
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(grad), jax.tree.leaves(wanted_grad), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * max(1.0, np.abs(b).max()))


@pytest.mark.slow
def test_a_kernel_that_is_wrong_or_fails_is_found(monkeypatch):
    device = jax.devices()[0]
    monkeypatch.setattr(dispatch, "attend_splash", lambda q, k, v, ids: plain.attend_plain(
        q, k, v, jnp.zeros((1, 1, 1, 1)) + plain.segment_bias(jnp.ones_like(ids)), 0.0, None))
    assert re.search(r"\d+%", selfcheck.find_fault("splash", "bfloat16", device))
    monkeypatch.setattr(dispatch, "attend_splash", lambda q, k, v, ids: plain.attend_plain(
        q, k, v, plain.segment_bias(jnp.roll(ids, 1, 1)), 0.0, None))
    assert selfcheck.find_fault("splash", "bfloat16", device), "off by one token"
    monkeypatch.setattr(dispatch, "attend_splash", lambda q, k, v, ids: plain.attend_plain(
        q, k, v, plain.segment_bias(ids), 0.0, None))
    assert selfcheck.find_fault("splash", "bfloat16", device) == ""
    monkeypatch.setattr(dispatch, "attend_splash", lambda *given: 1 / 0)
    assert selfcheck.find_fault("splash", "bfloat16", device) == "ZeroDivisionError: division by zero"


# ---------------------------------------------------------------- which one is chosen


@pytest.mark.parametrize(("kernel", "length", "width", "chosen"), [
    ("plain", 512, 64, "plain"), ("cudnn", 512, 64, "cudnn"), ("cudnn", 100, 24, "cudnn"), ("cudnn", 512, 21, "plain"),
    ("cudnn", 512, 264, "plain"), ("splash", 512, 64, "splash"), ("splash", 200, 64, "splash"), ("splash", 112, 64, "plain"),
    ("splash", 512, 21, "plain"),
])
def test_shapes_that_a_kernel_does_not_take(kernel, length, width, chosen, caplog):
    dispatch._log_once.cache_clear()
    with caplog.at_level("INFO", "jaxplm"):
        for _ in range(3):
            assert dispatch.kernel_for(kernel, length, width) == chosen
    assert len(caplog.messages) == (kernel != chosen)


class Device:
    """As much of a device as is looked at."""

    def __init__(self, capability: str = "") -> None:
        self.compute_capability, self.device_kind = capability, "a card"


@pytest.fixture
def machine(monkeypatch):
    """machine(backend, capability, kernel=fault): a machine that is not here, and what its kernels' checks say."""
    def pretend(backend: str, capability: str = "", **fault: str) -> None:
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        monkeypatch.setattr(jax, "local_devices", lambda: [Device(capability)])
        monkeypatch.setattr(devices_compute, "_find_attention_fault", lambda kernel, dtype, device: fault.get(kernel, ""))
        monkeypatch.setattr(devices_compute, "_find_kernel_fault", lambda dtype, device: "")

    return pretend


def resolved(attention: str, dtype: str = "bfloat16", devices: int = 1) -> Compute:
    mesh = sharding.make_mesh(config.Mesh(), jax.devices()[:devices])
    return resolve_compute(config.Compute(dtype=dtype, attention=attention), mesh)


@pytest.mark.parametrize(("backend", "capability", "dtype", "kernel"), [
    ("tpu", "", "bfloat16", "splash"), ("tpu", "", "float32", "splash"), ("gpu", "9.0", "bfloat16", "nvidia"),
    ("gpu", "10.0", "bfloat16", "nvidia"), ("gpu", "8.9", "bfloat16", "segmented"), ("gpu", "8.0", "bfloat16", "segmented"),
    ("gpu", "7.5", "bfloat16", "plain"), ("gpu", "9.0", "float32", "plain"), ("gpu", "gfx942", "bfloat16", "plain"),
    ("cpu", "", "bfloat16", "chunked"),
])
def test_auto_takes_what_the_machine_has(machine, caplog, backend, capability, dtype, kernel):
    machine(backend, capability)
    with caplog.at_level("WARNING", "jaxplm"):
        assert resolved("auto", dtype).attention == kernel
        assert resolved("plain", dtype).attention == "plain"
    assert not caplog.messages
    if kernel in ("plain", "chunked"):
        with refuses("compute.attention=flash", "auto", "plain"):
            resolved("flash", dtype)
    else:
        assert resolved("flash", dtype).attention == kernel


@pytest.mark.parametrize(("backend", "kernels"), [("gpu", ["cudnn", "segmented"]), ("tpu", ["splash"])])
def test_a_kernel_that_does_not_pass_its_check_is_not_used(machine, caplog, backend, kernels):
    machine(backend, "9.0", **dict.fromkeys(kernels, "ImportError: no such thing"))
    with caplog.at_level("WARNING", "jaxplm"):
        assert resolved("auto").attention == "plain"
    for message, kernel in zip(caplog.messages, kernels, strict=True):
        assert_says(message, "plain", kernel, "ImportError: no such thing")
    with refuses("compute.attention=flash", *kernels):
        resolved("flash")


@pytest.mark.parametrize(("wrong", "other"), [("cudnn", "segmented"), ("segmented", "cudnn")])
def test_of_two_kernels_the_one_that_passes_its_check_is_used(machine, caplog, wrong, other):
    machine("gpu", "9.0", **{wrong: "dq differs by 60% from plain attention"})
    with caplog.at_level("WARNING", "jaxplm"):
        assert resolved("auto").attention == resolved("flash").attention == other
    assert_says(caplog.messages[0], other, wrong, "dq differs by 60%")


def test_several_devices_need_to_know_how_rows_and_heads_are_split(machine):
    machine("tpu")
    assert resolved("auto").split is None
    split = resolved("auto", devices=8).split
    assert split is not None and (split.mesh.size, split.rows, split.heads) == (8, ("data", "fsdp"), "tensor")
    assert resolved("plain", devices=8).split is None


def test_attention_dropout_is_told_to_be_zero(caplog):
    shape = tiny_config(attention_dropout=0.1)
    with caplog.at_level("INFO", "jaxplm"):
        assert without_attention_dropout(shape, Compute()) is shape
        assert not caplog.messages
        assert without_attention_dropout(shape, Compute(attention="cudnn")).attention_dropout == 0
    assert_says(caplog.messages[0], "attention dropout is 0", "0.1", "compute.attention=plain")
