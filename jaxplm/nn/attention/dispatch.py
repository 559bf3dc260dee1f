"""Choose and call the attention kernel. The choice is made here only."""

import dataclasses
import functools
import logging
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxplm.nn.attention.chunked import attend_chunked, row_numbers
from jaxplm.nn.attention.cudnn import Runs, attend_cudnn, cudnn_lacks, runs_of
from jaxplm.nn.attention.plain import attend_plain, segment_bias, split_qkv
from jaxplm.nn.attention.splash import attend_splash, splash_lacks
from jaxplm.nn.layers import Compute

log = logging.getLogger("jaxplm")

FLASH = ("cudnn", "splash")  # kernels without [B, H, L, L] in memory (Dao et al. 2022); they have no dropout of the weights


class Segments(NamedTuple):
    """`segment_ids` in the form that each kernel reads, computed once per forward pass for all blocks. None if no block needs a form."""

    ids: jax.Array  # [B, L] int32
    bias: jax.Array | None  # [B, 1, L, L] float32
    runs: Runs | None

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
    kernels = {kernel_for(compute.attention, segment_ids.shape[1], width) for width in head_widths}
    return Segments(segment_ids, segment_bias(segment_ids) if "plain" in kernels else None,
                    runs_of(segment_ids, max_segments_per_row) if "cudnn" in kernels else None)


def kernel_for(attention: str, length: int, head_width: int) -> str:
    """Return `attention`, or plain if that kernel does not support such shapes, which is logged once."""
    lacks = {"cudnn": cudnn_lacks, "splash": splash_lacks}.get(attention)
    reason = lacks(length, head_width) if lacks else ""
    if reason:
        _log_once(f"attention: plain, not {attention}, for heads of width {head_width} in rows of {length} tokens: {reason}")
    return "plain" if reason else attention


@functools.cache
def _log_once(line: str) -> None:
    log.info("%s", line)


def without_flash(compute: Compute) -> Compute:
    """Return the same with a kernel that accepts any segment ids, even those of a text whose tokens are not contiguous."""
    return dataclasses.replace(compute, attention="plain") if compute.attention in FLASH else compute


def attend(qkv_BL3Hd: jax.Array, segments: Segments, dropout_rate: float, key: jax.Array | None, compute: Compute) -> jax.Array:
    """Return scaled dot-product attention (Vaswani et al. 2017, eq. 1) within each segment, [B, L, H, Dh].

    qkv: queries, keys and values [B, L, 3, H, Dh]. Softmax is in float32. Flash kernels ignore `dropout_rate`.
    """
    rows, length, _, heads, width = qkv_BL3Hd.shape
    kernel = kernel_for(compute.attention, length, width)
    if kernel == "chunked":
        split = compute.split
        others = split and (P(split.rows), P(split.rows, split.heads), P())
        chunked = _over_mesh(partial(attend_chunked, rate=dropout_rate), compute, others)
        return chunked(qkv_BL3Hd, segments.ids, row_numbers(rows, heads), key)
    if kernel == "cudnn":
        return _over_mesh(lambda qkv, runs: attend_cudnn(*split_qkv(qkv), runs), compute)(qkv_BL3Hd, segments.runs)
    if kernel == "splash":
        return _over_mesh(lambda qkv, ids: attend_splash(*split_qkv(qkv), ids), compute)(qkv_BL3Hd, segments.ids)
    assert segments.bias is not None, "segments_of was called without this head width"
    return attend_plain(*split_qkv(qkv_BL3Hd), segments.bias, dropout_rate, key)


def _over_mesh(kernel: Any, compute: Compute, others: tuple[P, ...] | None = None) -> Any:
    """Return the kernel so that each device runs it on its own rows and heads of qkv.

    `others` says how its other arguments are split; None means one argument, split by rows.
    """
    if compute.split is None:
        return kernel
    mesh, rows, heads = compute.split
    others = (P(rows),) if others is None else others
    # The kernels' outputs do not say over which axes they vary, so that cannot be checked.
    return jax.shard_map(kernel, mesh=mesh, in_specs=(P(rows, None, None, heads, None), *others),
                         out_specs=P(rows, None, heads, None), check_vma=False)
