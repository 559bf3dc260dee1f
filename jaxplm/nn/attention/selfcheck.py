"""Check on this device that a flash kernel computes what plain attention computes, before a run relies on it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplm.nn.attention.dispatch import attend, segments_of
from jaxplm.nn.attention.plain import attend_plain, segment_bias
from jaxplm.nn.layers import Compute
from jaxplm.nn.mesh_split import MeshSplit

TOLERANCE = 0.03  # several roundings to bfloat16; a token of another text in the softmax gives several tenths or more


def packed_ids(rows: int, length: int, seed: int = 0) -> np.ndarray:
    """Return segment ids [rows, length] int32: an empty row, one text that fills its row, then random texts and padding."""
    random = np.random.default_rng(seed)
    ids = np.zeros((rows, length), np.int32)
    ids[1:2] = 1
    for row in ids[2:]:
        cuts = np.sort(random.choice(np.arange(1, length), random.integers(1, min(16, max(2, length // 16))), replace=False))
        for text, (begin, end) in enumerate(zip([0, *cuts[:-1]], cuts, strict=True), 1):
            row[begin:end] = text
    return ids


def differences(kernel: str, *, rows: int = 4, length: int = 256, heads: int = 2, head_width: int = 64, dtype: str = "bfloat16",
                device: Any = None, split: MeshSplit | None = None, options: dict[str, Any] | None = None) -> dict[str, float]:
    """Return the largest error of a kernel's output and of its gradients dq, dk and dv, on random inputs.

    Each is relative to the largest value that plain attention in float32 has on the same inputs. Both are one compiled function, because
    compilation takes nearly all of the time of a check.

    Args:
      kernel: cudnn or splash.
      device: a `jax.Device`; None is the default one.
      split: the mesh, if the kernel runs on several devices.
      options: of XLA's compiler.

    Raises:
      Whatever the kernel raises.
    """
    ids = packed_ids(rows, length)
    bounds = (int(ids.max()), 0) if kernel == "segmented" else (int(ids.max()),)  # texts per row: the kernel has a form for many
    compute = Compute(dtype, dtype, attention=kernel, split=split)
    random = np.random.default_rng(1)
    given = [random.standard_normal((rows, length, heads, head_width)).astype(jnp.dtype(dtype)) for _ in range(4)]
    given[3] = given[3] * (ids > 0).astype(jnp.dtype(dtype))[..., None, None]  # padding is in no loss

    def flash(most, q, k, v, dy, ids):
        segments = segments_of(ids, compute, (head_width,), most)
        y, back = jax.vjp(lambda *qkv: attend(jnp.stack(qkv, 2), segments, 0.0, None, compute), q, k, v)
        return y, *back(dy)

    def plain(q, k, v, dy, ids):
        y, back = jax.vjp(lambda q, k, v: attend_plain(q, k, v, segment_bias(ids), 0.0, None), q, k, v)
        return y, *back(dy)

    def all_forms(ids, q, k, v, dy):
        forms = [flash(most, q, k, v, dy, ids) for most in bounds]
        q, k, v, dy = (x.astype(jnp.float32) for x in (q, k, v, dy))
        return forms, plain(q, k, v, dy, ids)

    forms, wanted = jax.jit(all_forms, compiler_options=options)(*jax.device_put((ids, *given), device))
    errors: dict[str, float] = dict.fromkeys(("output", "dq", "dk", "dv"), 0.0)
    for found in forms:
        for name, a, b in zip(errors, found, wanted, strict=True):
            difference = np.abs(np.asarray(a, np.float32) - np.asarray(b)).max() / np.abs(np.asarray(b)).max()
            errors[name] = max(errors[name], float(difference) if np.isfinite(difference) else float("inf"))
    return errors


def find_fault(kernel: str, dtype: str, device: Any, options: dict[str, Any] | None = None) -> str:
    """Return in one line what is wrong with the kernel on this device, compiled with XLA's `options`; "" if nothing is."""
    try:
        errors = differences(kernel, dtype=dtype, device=device, options=options)
    except Exception as error:  # from a private interface, a driver or a compiler: plain attention needs none of them
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    wrong = {name: error for name, error in errors.items() if not error <= TOLERANCE}
    return ", ".join(f"{name} differs by {error:.0%} from plain attention" for name, error in wrong.items())
