"""Choose precision and attention kernel for the hardware that a run is on."""

import functools
import logging
import re
from pathlib import Path
from typing import Any

import jax

from jaxplm import config
from jaxplm.devices import sharding
from jaxplm.devices.processes import all_agree
from jaxplm.errors import UserError
from jaxplm.nn import Compute, EncoderConfig
from jaxplm.nn.attention.dispatch import FLASH
from jaxplm.nn.attention.selfcheck import find_fault
from jaxplm.nn.layers import MeshSplit

log = logging.getLogger("jaxplm")


def resolve_compute(settings: config.Compute, mesh: jax.sharding.Mesh) -> Compute:
    """Return how the settings are carried out on this hardware; log one line for each difference from what was asked for.

    - Precision: GPU and TPU compute in bfloat16 as asked. A CPU has no elementwise instructions for bfloat16. Products use it
      if the processor has instructions for them; everything else is float32. float8 is bfloat16 with the factors of the blocks'
      products in float8, on NVIDIA GPUs with units for it.
    - Attention: cuDNN's flash attention in bfloat16 on NVIDIA GPUs from Hopper on, splash on TPUs, each only if it passes
      `nn.attention.selfcheck` at the start; chunked attention on a CPU; else plain attention.

    Raises:
      UserError: `compute.attention=flash`, and there is no flash attention here; `compute.dtype=float8`, and this device has
        no units for float8.
    """
    activations, operands = _precision(settings.dtype)
    products = "float8" if settings.dtype == "float8" else ""
    if products and (lack := float8_lack(jax.local_devices()[0])):
        raise UserError(f"compute.dtype=float8: {lack}; use compute.dtype=bfloat16")
    attention = _attention(settings.attention, activations)
    split = MeshSplit(mesh, tuple(sharding.BATCH[0]), "tensor") if attention != "plain" and mesh.size > 1 else None
    unroll = settings.unroll
    if unroll and settings.remat != "none":
        # Unrolled blocks save no memory on a CPU, because XLA recomputes all of them at once. In a loop it cannot do that. For a
        # TPU, only the loop has been measured.
        log.info("compute: blocks in a loop (compute.unroll=false), for compute.remat=%s to save memory", settings.remat)
        unroll = False
    return Compute(activations, operands, unroll, attention, split, remat=settings.remat, products=products)


def without_attention_dropout(encoder_config: EncoderConfig, compute: Compute) -> EncoderConfig:
    """Return the config that a run trains: with flash attention, which has no dropout of its weights, that rate is 0, which is logged."""
    rate = encoder_config.attention_dropout
    if compute.attention not in FLASH or not rate:
        return encoder_config
    log.info("attention dropout is 0, not %g: flash attention has none (compute.attention=plain has it)", rate)
    return encoder_config.with_dropout(None, 0.0)


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
    kernel, lack = flash_kernel(device, dtype)
    if kernel:
        fault = _find_fault(kernel, dtype, device)
        if not all_agree(not fault):
            lack = f"{kernel} attention does not pass its check here: {fault or 'it fails in another process'}"
    if lack and wanted == "flash":
        raise UserError(f"compute.attention=flash: {lack}; use compute.attention=auto or plain")
    if lack:
        # A warning only if a kernel should work and does not; what a platform lacks is expected.
        log.log(logging.WARNING if kernel else logging.DEBUG, "attention: plain; %s", lack)
        return "plain"
    log.info("attention: %s, a flash kernel", kernel)
    return kernel


_find_fault = functools.cache(find_fault)  # compiled and run once per process


def flash_kernel(device: Any, dtype: str) -> tuple[str, str]:
    """Return the flash kernel for a `jax.Device` and "", or "" and the reason why there is none."""
    platform = jax.default_backend()
    if platform == "tpu":
        return "splash", ""
    if platform != "gpu":
        return "", f"there is no flash attention for a {platform.upper()}"
    if _capability(device) < (9, 0):
        return "", f"cuDNN's for packed rows needs an NVIDIA GPU of the Hopper generation or newer; this is {device.device_kind}"
    return ("cudnn", "") if dtype == "bfloat16" else ("", f"cuDNN's computes in bfloat16, not {dtype}")


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
