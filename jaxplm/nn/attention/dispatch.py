"""Attention within the texts of a row: the one place that decides how it is computed."""

import dataclasses
import functools
import logging
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxplm.nn.attention.chunked import attend_chunked, numbers_of
from jaxplm.nn.attention.cudnn import Runs, attend_cudnn, cudnn_lacks, runs_of
from jaxplm.nn.attention.plain import apart, attend_plain, segment_bias
from jaxplm.nn.attention.splash import attend_splash, splash_lacks
from jaxplm.nn.layers import Compute

log = logging.getLogger("jaxplm")

FLASH = ("cudnn", "splash")  # kernels that never hold [B, H, L, L] (Dao et al. 2022) and have no dropout of the weights


class Segments(NamedTuple):
    """`segment_ids` in the form that each kernel reads; made once a forward pass, for all blocks. None where no block asks."""

    ids: jax.Array  # [B, L] int32
    bias: jax.Array | None  # [B, 1, L, L] float32
    runs: Runs | None

    def checked(self, x: jax.Array) -> jax.Array:
        """x [B, L, D], with NaN in every row that has more texts than `max_segments_per_row`: the step is then counted
        as bad, instead of computed from a part of the row."""
        if self.runs is None:
            return x
        return jnp.where(self.runs.too_many[:, None, None], jnp.asarray(jnp.nan, x.dtype), x)


def segments_of(segment_ids: jax.Array, compute: Compute, head_widths: tuple[int, ...], max_segments_per_row: int = 0) -> Segments:
    """What blocks of such heads need.

    Args:
      segment_ids: [B, L] int32; 0 is padding, each text of a row has an id of its own and lies in one piece. Padding attends to
        padding alone: its outputs are finite and of no use.
      head_widths: Dh of every kind of block that will attend.
      max_segments_per_row: upper bound of the texts per row that the data guarantee; 0 if none is known.
    """
    kernels = {kernel_for(compute.attention, segment_ids.shape[1], width) for width in head_widths}
    return Segments(segment_ids, segment_bias(segment_ids) if "plain" in kernels else None,
                    runs_of(segment_ids, max_segments_per_row) if "cudnn" in kernels else None)


def kernel_for(attention: str, length: int, head_width: int) -> str:
    """`attention`, or plain where that kernel does not take such shapes: said once."""
    lacks = {"cudnn": cudnn_lacks, "splash": splash_lacks}.get(attention)
    reason = lacks(length, head_width) if lacks else ""
    if reason:
        _say(f"attention: plain and not {attention} for heads of {head_width} in rows of {length}: {reason}")
    return "plain" if reason else attention


@functools.cache
def _say(line: str) -> None:
    log.info("%s", line)


def without_flash(compute: Compute) -> Compute:
    """The same with attention that asks nothing of the segments, not even that a text lies in one piece."""
    return dataclasses.replace(compute, attention="plain") if compute.attention in FLASH else compute


def attend(qkv: jax.Array, segments: Segments, dropout_rate: float, key: jax.Array | None, compute: Compute) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1) within each segment.

    qkv: queries, keys and values [B, L, 3, H, Dh]; returns [B, L, H, Dh]. Softmax in float32. Flash kernels leave
    `dropout_rate` out.
    """
    rows, length, _, heads, width = qkv.shape
    kernel = kernel_for(compute.attention, length, width)
    if kernel == "chunked":
        split = compute.split
        over = _over_mesh(partial(attend_chunked, rate=dropout_rate), compute, split and (P(split.rows), P(split.rows, split.heads), P()))
        return over(qkv, segments.ids, numbers_of(rows, heads), key)
    if kernel == "cudnn":
        return _over_mesh(lambda qkv, runs: attend_cudnn(*apart(qkv), runs), compute)(qkv, segments.runs)
    if kernel == "splash":
        return _over_mesh(lambda qkv, ids: attend_splash(*apart(qkv), ids), compute)(qkv, segments.ids)
    assert segments.bias is not None, "segments_of was not told of this head width"
    return attend_plain(*apart(qkv), segments.bias, dropout_rate, key)


def _over_mesh(kernel: Any, compute: Compute, others: tuple[P, ...] | None = None) -> Any:
    """The kernel on each device's own rows and heads of qkv; `others`: how its other arguments are split, one by rows if None."""
    if compute.split is None:
        return kernel
    mesh, rows, heads = compute.split
    others = (P(rows),) if others is None else others
    # The kernels' outputs do not say over which axes they vary, so that cannot be checked.
    return jax.shard_map(kernel, mesh=mesh, in_specs=(P(rows, None, None, heads, None), *others),
                         out_specs=P(rows, None, heads, None), check_vma=False)
