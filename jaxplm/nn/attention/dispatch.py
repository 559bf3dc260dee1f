"""Choose and call the attention kernel. The choice is made here only."""

import dataclasses
import functools
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxplm.nn.attention.chunked import attend_chunked, row_numbers
from jaxplm.nn.attention.cudnn import Runs, attend_cudnn, cudnn_lacks, runs_of
from jaxplm.nn.attention.plain import attend_plain, segment_bias, split_qkv
from jaxplm.nn.attention.segmented import Bounds, attend_segmented, bounds_of, segmented_lacks
from jaxplm.nn.attention.splash import attend_splash, splash_lacks
from jaxplm.nn.layers import QKV, Compute
from jaxplm.nn.mesh_split import MeshSplit

log = logging.getLogger("jaxplm")

# Kernels without [B, H, L, L] in memory (Dao et al. 2022); they have no dropout of the weights. "nvidia" is cudnn or segmented by row.
FLASH = ("cudnn", "segmented", "nvidia", "splash")

# From so many tokens per text on, cuDNN is the faster of the two on an NVIDIA GPU. Its time grows with the number of texts per row;
# that of the segmented kernel falls, because it skips the keys of other texts.
LONG_TEXTS = 1024
# Up to so many tokens per text, the segmented kernel takes smaller blocks: 12 % faster at 32 tokens per text, 3 % at 128, slower at 512.
SHORT_TEXTS = 128


@partial(jax.tree_util.register_dataclass, data_fields=["ids", "bias", "runs", "bounds"], meta_fields=["max_per_row"])
@dataclasses.dataclass(frozen=True)
class Segments:
    """`segment_ids` in the form that each kernel reads, computed once per forward pass for all blocks. None if no block needs a form.

    Attributes:
      ids: [B, L] int32.
      bias: [B, 1, L, L] float32, of plain attention.
      runs: of cuDNN.
      bounds: of the segmented kernel.
      max_per_row: upper bound of the texts per row; 0 if none is known.
    """

    ids: jax.Array
    bias: jax.Array | None
    runs: Runs | None
    bounds: Bounds | None
    max_per_row: int

    def checked(self, x: jax.Array) -> jax.Array:
        """Return x [B, L, D] with NaN in every row that has more texts than `max_segments_per_row`.

        The loss of such a step is not finite, so the step is skipped. Otherwise it would be computed from a part of the row.
        """
        if self.runs is None:
            return x
        return jnp.where(self.runs.too_many[:, None, None], jnp.asarray(jnp.nan, x.dtype), x)


def segments_of(segment_ids: jax.Array, compute: Compute, head_widths: tuple[int, ...], max_segments_per_row: int = 0) -> Segments:
    """Return what blocks with such heads need to know about the segments.

    Args:
      segment_ids: [B, L] int32. 0 is padding; each text of a row has its own id, and its tokens are contiguous. Padding
        attends to padding only: its outputs are finite and not used.
      compute: with the kernel that is wanted.
      head_widths: Dh of every kind of block that will attend.
      max_segments_per_row: upper bound of the texts per row that the data guarantee; 0 if none is known.
    """
    kernels = {kernel_for(compute.attention, segment_ids.shape[1], width, max_segments_per_row) for width in head_widths}
    return Segments(segment_ids, segment_bias(segment_ids) if "plain" in kernels else None,
                    runs_of(segment_ids, max_segments_per_row) if "cudnn" in kernels else None,
                    bounds_of(segment_ids) if "segmented" in kernels else None, max_segments_per_row)


def kernel_for(attention: str, length: int, head_width: int, max_segments_per_row: int = 0) -> str:
    """Return the kernel for such rows: `attention`, one of nvidia's two, or plain if none supports them, which is logged once."""
    if attention == "nvidia":
        long = 0 < max_segments_per_row * LONG_TEXTS <= length
        wanted = ("cudnn", "segmented") if long else ("segmented", "cudnn")
    else:
        wanted = (attention,)
    reasons = [_lack(kernel, length, head_width) for kernel in wanted]
    for kernel, reason in zip(wanted, reasons, strict=True):
        if not reason:
            return kernel
    _log_once(f"attention: plain, not {attention}, for heads of width {head_width} in rows of {length} tokens: {'; '.join(reasons)}")
    return "plain"


def _lack(kernel: str, length: int, head_width: int) -> str:
    """Return why a kernel does not support such rows and heads; "" if it does."""
    if kernel == "cudnn":
        return cudnn_lacks(length, head_width)
    if kernel == "splash":
        return splash_lacks(length, head_width)
    return segmented_lacks(head_width) if kernel == "segmented" else ""


@functools.cache
def _log_once(line: str) -> None:
    log.info("%s", line)


def without_flash(compute: Compute) -> Compute:
    """Return the same with a kernel that accepts any segment ids, even those of a text whose tokens are not contiguous."""
    return dataclasses.replace(compute, attention="plain") if compute.attention in FLASH else compute


def attend(qkv: QKV, segments: Segments, dropout_rate: float, key: jax.Array | None, compute: Compute) -> jax.Array:
    """Return scaled dot-product attention (Vaswani et al. 2017, eq. 1) within each segment, [B, L, H, Dh].

    qkv: queries, keys and values, [B, L, 3, H, Dh] or three of [B, L, H, Dh]. Softmax is in float32. Flash kernels ignore
    `dropout_rate`.
    """
    rows, length, heads, width = qkv[0].shape if isinstance(qkv, tuple) else (*qkv.shape[:2], *qkv.shape[3:])
    kernel = kernel_for(compute.attention, length, width, segments.max_per_row)
    if kernel == "chunked":
        chunked = _over_mesh(lambda qkv, ids, numbers, key: attend_chunked(qkv, ids, numbers, key, dropout_rate), compute,
                             lambda split: (P(split.rows), P(split.rows, split.heads), P()))
        return chunked(_stacked(qkv), segments.ids, row_numbers(rows, heads), key)
    if kernel == "cudnn":
        return _over_mesh(lambda qkv, runs: attend_cudnn(*split_qkv(qkv), runs), compute)(qkv, segments.runs)
    if kernel == "segmented":
        interpret, short = compute.kernels == "interpret", segments.max_per_row * SHORT_TEXTS >= length
        return _over_mesh(lambda qkv, bounds: attend_segmented(qkv, bounds, interpret, short), compute)(_stacked(qkv), segments.bounds)
    if kernel == "splash":
        return _over_mesh(lambda qkv, ids: attend_splash(*split_qkv(qkv), ids), compute)(qkv, segments.ids)
    assert segments.bias is not None, "segments_of was called without this head width"
    return attend_plain(*split_qkv(qkv), segments.bias, dropout_rate, key)


def takes_apart(segments: Segments, head_width: int, compute: Compute) -> bool:
    """Return whether the kernel for such heads wants queries, keys and values apart, if that costs nothing.

    With tensor parallelism they are apart in any case: heads are split over devices, and a product's one axis of queries, keys and
    values could not be split between heads.
    """
    tensor = compute.split.mesh.shape[compute.split.heads] if compute.split else 1
    return tensor > 1 or kernel_for(compute.attention, segments.ids.shape[1], head_width, segments.max_per_row) in ("cudnn", "plain")


def _stacked(qkv: QKV) -> jax.Array:
    """Return queries, keys and values as [B, L, 3, H, Dh]."""
    return jnp.stack(qkv, 2) if isinstance(qkv, tuple) else qkv


def _over_mesh(kernel: Any, compute: Compute, others: Callable[[MeshSplit], tuple[P, ...]] = lambda split: (P(split.rows),)) -> Any:
    """Return the kernel so that each device runs it on its own rows and heads of qkv.

    `others` says how its other arguments are split.
    """
    split = compute.split
    if split is None:
        return kernel
    per_part = P(split.rows, None, split.heads, None)

    def mapped(qkv: QKV, *rest: Any) -> jax.Array:
        of_qkv = (per_part,) * 3 if isinstance(qkv, tuple) else P(split.rows, None, None, split.heads, None)
        # The kernels' outputs do not say over which axes they vary, so that cannot be checked.
        return jax.shard_map(kernel, mesh=split.mesh, in_specs=(of_qkv, *others(split)), out_specs=per_part, check_vma=False)(qkv, *rest)

    return mapped
