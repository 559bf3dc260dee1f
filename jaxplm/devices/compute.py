"""Choose precision and attention kernel for the hardware that a run is on."""

import functools
import logging
import os
import re
from pathlib import Path
from typing import Any

import jax

from jaxplm import config
from jaxplm.devices import sharding
from jaxplm.devices.processes import all_agree
from jaxplm.errors import UserError
from jaxplm.nn import Compute, EncoderConfig
from jaxplm.nn.attention import selfcheck as attention_check
from jaxplm.nn.attention.dispatch import FLASH
from jaxplm.nn.kernels import selfcheck as kernel_check
from jaxplm.nn.mesh_split import MeshSplit

log = logging.getLogger("jaxplm")


def resolve_compute(settings: config.Compute, mesh: jax.sharding.Mesh) -> Compute:
    """Return how the settings are carried out on this hardware; log one line for each difference from what was asked for.

    - Precision: GPU and TPU compute in bfloat16 as asked. A CPU has no elementwise instructions for bfloat16. Products use it
      if the processor has instructions for them; everything else is float32. float8 is bfloat16 with the factors of the blocks'
      products in float8, on NVIDIA GPUs with units for it.
    - Attention: in bfloat16 on NVIDIA GPUs, cuDNN's flash attention from Hopper on and the segmented kernel from Ampere on; splash on
      TPUs; each only if it passes `nn.attention.selfcheck` at the start; chunked attention on a CPU; else plain attention.
    - Kernels between the products: on NVIDIA GPUs from Ampere on, if they pass `nn.kernels.selfcheck` at the start; else XLA's passes.

    Raises:
      UserError: `compute.attention=flash`, and there is no flash attention here; `compute.dtype=float8`, and this device has
        no units for float8.
    """
    activations, operands = _precision(settings.dtype)
    products = "float8" if settings.dtype == "float8" else ""
    if products and (lack := float8_lack(jax.local_devices()[0])):
        raise UserError(f"compute.dtype=float8: {lack}; use compute.dtype=bfloat16")
    attention = _attention(settings.attention, activations)
    kernels = _kernels(settings.kernels, activations)
    has_kernel = attention != "plain" or kernels != "plain"
    split = MeshSplit(mesh, tuple(sharding.BATCH[0]), "tensor") if has_kernel and mesh.size > 1 else None
    unroll = settings.unroll
    if unroll and settings.remat != "none":
        # Unrolled blocks save no memory on a CPU, because XLA recomputes all of them at once. In a loop it cannot do that. For a
        # TPU, only the loop has been measured.
        log.info("compute: blocks in a loop (compute.unroll=false), for compute.remat=%s to save memory", settings.remat)
        unroll = False
    return Compute(activations, operands, unroll, attention, kernels, split, settings.remat, products)


def without_attention_dropout(encoder_config: EncoderConfig, compute: Compute) -> EncoderConfig:
    """Return the config that a run trains: with flash attention, which has no dropout of its weights, that rate is 0, which is logged."""
    rate = encoder_config.attention_dropout
    if compute.attention not in FLASH or not rate:
        return encoder_config
    log.info("attention dropout is 0, not %g: flash attention has none (compute.attention=plain has it)", rate)
    return encoder_config.with_dropout(None, 0.0)


_GPU_OPTIONS = {
    "xla_gpu_enable_triton_gemm": False,
    "xla_gpu_graph_min_graph_size": 1,
    "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,WHILE,DYNAMIC_SLICE_FUSION",
}


def compiler_options() -> dict[str, Any]:
    """Return options of XLA's compiler for the steps of a run on this platform and its checks, each chosen by measurement.

    GPU:

    - Without XLA's own Triton products, cuBLASLt computes all of them, and adds biases and sums of gradients itself. Where XLA tries
      its own first and finds cuBLASLt's faster, the addition stays a pass of its own. It compiles in a fraction of the time, too.
    - With kernels of all kinds in CUDA graphs, also where only one can be in a graph, there are fewer pauses between kernels.

    An option that is in the environment's XLA_FLAGS stays as it is there.
    """
    given = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in (_GPU_OPTIONS if jax.default_backend() == "gpu" else {}).items() if f"--{name}=" not in given}


def _precision(dtype: str) -> tuple[str, str]:
    """Return the types of activations and operands, see `nn.Compute`."""
    if dtype == "float32":
        return "float32", "float32"
    if jax.default_backend() != "cpu":
        return "bfloat16", "bfloat16"
    if _cpu_multiplies_bfloat16():
        log.info("compute: bfloat16 products, float32 elsewhere (CPU)")
        return "float32", "bfloat16"
    log.info("compute: float32 (this CPU has no bfloat16 instructions)")
    return "float32", "float32"


def _attention(wanted: str, dtype: str) -> str:
    """Return the kernel for a value of `compute.attention`; it is the same in every process of a run."""
    if wanted == "plain":
        return "plain"
    if wanted == "auto" and jax.default_backend() == "cpu":
        return "chunked"
    device = jax.local_devices()[0]
    kernels, lack = flash_kernels(device, dtype)
    faults = {}
    for kernel in kernels:
        fault = _find_attention_fault(kernel, dtype, device)
        if not all_agree(not fault):
            faults[kernel] = f"{kernel} attention does not pass its check here: {fault or 'it fails in another process'}"
    passed = [kernel for kernel in kernels if kernel not in faults]
    if not passed and wanted == "flash":
        raise UserError(f"compute.attention=flash: {lack or '; '.join(faults.values())}; use compute.attention=auto or plain")
    chosen = "plain" if not passed else passed[0] if len(passed) == 1 else "nvidia"
    for fault in faults.values():
        log.warning("attention: %s; %s", chosen, fault)
    if passed:
        log.info("attention: %s", "a flash kernel, " + (" or ".join(passed) + " by the texts per row" if len(passed) > 1 else passed[0]))
    else:
        log.debug("attention: plain; %s", lack)
    return chosen


def flash_kernels(device: Any, dtype: str) -> tuple[tuple[str, ...], str]:
    """Return the flash kernels for a `jax.Device` and "", or () and the reason why there is none."""
    platform = jax.default_backend()
    if platform == "tpu":
        return ("splash",), ""
    if platform != "gpu":
        return (), f"there is no flash attention for a {platform.upper()}"
    if _capability(device) < (8, 0):
        return (), f"flash attention needs an NVIDIA GPU of the Ampere generation or newer; this is {device.device_kind}"
    if dtype != "bfloat16":
        return (), f"flash attention computes in bfloat16 on a GPU, not {dtype}"
    return ("cudnn", "segmented") if _capability(device) >= (9, 0) else ("segmented",), ""


def _kernels(wanted: str, dtype: str) -> str:
    """Return `nn.Compute.kernels` for a value of `compute.kernels`; it is the same in every process of a run."""
    if wanted == "plain" or jax.default_backend() != "gpu":
        return "plain"
    device = jax.local_devices()[0]
    if _capability(device) < (8, 0):
        return "plain"
    fault = _find_kernel_fault(dtype, device)
    if all_agree(not fault):
        return "triton"
    log.warning("kernels: plain; Triton's do not pass their check here: %s", fault or "they fail in another process")
    return "plain"


@functools.cache  # compiled and run once per process
def _find_attention_fault(kernel: str, dtype: str, device: Any) -> str:
    return attention_check.find_fault(kernel, dtype, device, compiler_options())


@functools.cache
def _find_kernel_fault(dtype: str, device: Any) -> str:
    return kernel_check.find_fault(dtype, device, compiler_options())


def float8_lack(device: Any) -> str:
    """Return why a `jax.Device` cannot multiply float8 numbers; "" if it can."""
    platform = jax.default_backend()
    if platform != "gpu":
        return f"a {platform.upper()} does not multiply float8 numbers here, only NVIDIA GPUs from compute capability 8.9 on do"
    if _capability(device) < (8, 9):
        return f"{device.device_kind} has no float8 units, which NVIDIA GPUs have from compute capability 8.9 (Ada, Hopper) on"
    return ""


def _capability(device: Any) -> tuple[int, int]:
    """Return the compute capability of an NVIDIA GPU, (9, 0) for Hopper; (0, 0) for a device of another kind."""
    found = re.fullmatch(r"(\d+)\.(\d+)", str(getattr(device, "compute_capability", "")))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _cpu_multiplies_bfloat16() -> bool:
    # Decided by the flags, not by a timing, so that the choice is the same when a run is resumed.
    return bool({"avx512_bf16", "amx_bf16"} & set(cpu_flags().split()))


def cpu_flags() -> str:
    """Return the instructions that the processor has, as Linux names them; "" if the system does not say."""
    try:
        return Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0]
    except (OSError, IndexError):
        return ""
