"""The machine: joining the processes of one run, and the arithmetic that this hardware does well."""

import dataclasses
import functools
import hashlib
import logging
import os
import platform
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


def keep_compiled(cache: Path) -> None:
    """Keep compiled steps under `cache`: the second start of the same step takes a fraction of the first one's time.

    One directory for each kind of processor: code compiled for one CPU may not run on another, and home directories
    are shared. JAX_COMPILATION_CACHE_DIR, where it is set, is obeyed instead.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        kind = hashlib.sha256(f"{platform.machine()} {_cpu_flags()}".encode()).hexdigest()[:12]
        jax.config.update("jax_compilation_cache_dir", str(cache / "compiled" / kind))


def resolve_compute(settings: config.Compute, mesh: jax.sharding.Mesh) -> Compute:
    """How the settings are computed here; says so in one line where it is not what was asked for.

    GPU and TPU compute bfloat16 as asked. A CPU has no bfloat16 elementwise code: products alone use it, and only
    where the processor has instructions for them, otherwise everything is float32. Flash attention: cuDNN's on NVIDIA
    GPUs from Hopper on in bfloat16, splash on TPUs, each only if it passes `attention_check` at the start. A CPU has plain
    attention in parts.

    Raises UserError for `compute.attention=flash` where there is none.
    """
    activations, operands = _precision(settings.dtype)
    attention = _attention(settings.attention, activations)
    split = MeshSplit(mesh, tuple(sharding.BATCH[0]), "tensor") if attention != "plain" and mesh.size > 1 else None
    unroll = settings.unroll
    if unroll and settings.remat != "none":
        # Laid out one after the other, blocks save nothing on a CPU: XLA makes all of them again at once. In a loop it cannot.
        # For a TPU only the loop has been looked at.
        log.info("compute: blocks in a loop (compute.unroll=false), for compute.remat=%s to save memory", settings.remat)
        unroll = False
    return Compute(activations, operands, unroll, attention, split, remat=settings.remat)


def without_attention_dropout(shape: EncoderConfig, compute: Compute) -> EncoderConfig:
    """The shape that a run trains: flash attention has no dropout of its weights, and a rate that is given is told to be 0."""
    if compute.attention not in FLASH or not shape.attention_dropout:
        return shape
    log.info("attention dropout is 0 and not %g: flash attention has none (compute.attention=plain has it)", shape.attention_dropout)
    return dataclasses.replace(shape, attention_dropout=0.0)


def _precision(dtype: str) -> tuple[str, str]:
    """Activations, operands; see `nn.Compute`."""
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
    """The kernel for `compute.attention`; every process of a run gets the same."""
    if wanted == "plain":
        return "plain"
    if wanted == "auto" and jax.default_backend() == "cpu":
        return "chunked"
    device = jax.local_devices()[0]
    kernel, lack = flash_kernel(device, dtype)
    if kernel:
        fault = _find_fault(kernel, dtype, device)
        if not all_agree(not fault):
            lack = f"{kernel} attention does not pass its check here: {fault or 'in another process'}"
    if lack and wanted == "flash":
        raise UserError(f"compute.attention=flash: {lack}; use compute.attention=auto or plain")
    if lack:
        # What a platform lacks is no news; a kernel that should work and does not is.
        log.log(logging.WARNING if kernel else logging.DEBUG, "attention: plain; %s", lack)
        return "plain"
    log.info("attention: %s, a flash kernel", kernel)
    return kernel


_find_fault = functools.cache(find_fault)  # compiled and run once a process


def flash_kernel(device: Any, dtype: str) -> tuple[str, str]:
    """The kernel that is there for a `jax.Device`, or "" and why there is none."""
    platform = jax.default_backend()
    if platform == "tpu":
        return "splash", ""
    if platform != "gpu":
        return "", f"there is no flash attention for a {platform.upper()}"
    found = re.fullmatch(r"(\d+)\.(\d+)", str(getattr(device, "compute_capability", "")))
    if not found or int(found[1]) < 9:
        return "", f"cuDNN's for packed rows needs an NVIDIA GPU of Hopper's generation or newer, and this is {device.device_kind}"
    return ("cudnn", "") if dtype == "bfloat16" else ("", f"cuDNN's computes bfloat16 and not {dtype}")


def _cpu_multiplies_bfloat16() -> bool:
    # The flags and not a timing: the choice must be the same when a run is resumed.
    return bool({"avx512_bf16", "amx_bf16"} & set(_cpu_flags().split()))


def _cpu_flags() -> str:
    """The instructions that the processor has, as Linux names them; "" where it does not say."""
    try:
        return Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0]
    except (OSError, IndexError):
        return ""
