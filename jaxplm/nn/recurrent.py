"""A bidirectional LSTM over packed rows."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxplm.nn.layers import Compute, matmul


class BiLSTM(nnx.Module):
    """One layer of long short-term memory in both directions (Hochreiter & Schmidhuber 1997; Graves & Schmidhuber 2005).

    Gates in PyTorch's order: input, forget, cell, output. Kernels start uniform in ±1/√h; biases are zero, the
    forget gate's 1 (Jozefowicz et al. 2015), so that a new cell remembers.
    """

    def __init__(self, inputs: int, width: int, rngs: nnx.Rngs) -> None:
        def uniform(*shape: int) -> nnx.Param[jax.Array]:
            return nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -(width**-0.5), width**-0.5))

        self.kernel = uniform(inputs, 2, 4, width)  # [D, direction, gate, h]
        self.recurrent = uniform(2, width, 4, width)  # [direction, h, gate, h]
        self.bias = nnx.Param(jnp.zeros((2, 4, width), jnp.float32).at[:, 1].set(1.0))

    def __call__(self, x: jax.Array, segment_ids: jax.Array, compute: Compute) -> jax.Array:
        """Return float32 [B, L, 2h] from x [B, L, D] and segment_ids [B, L], forward direction first.

        Where the segment changes, both directions restart from zeros, so that other texts of a row change nothing.
        The recurrence is float32; the products with the inputs, which are most of the work, follow `compute`.
        """
        gates = matmul(x.astype(compute.activations), self.kernel[...], compute).astype(jnp.float32)
        gates = gates + self.bias[...][None, None]  # [B, L, 2, 4, h]
        gates = jnp.stack([gates[:, :, 0], gates[:, ::-1, 1]])  # the backward direction reads from the end
        ids = jnp.stack([segment_ids, segment_ids[:, ::-1]])
        same_segment = jnp.pad(ids[..., 1:] == ids[..., :-1], ((0, 0), (0, 0), (1, 0)))  # [2, B, L]
        recurrent = self.recurrent[...]

        def step(state: tuple[jax.Array, jax.Array], now: tuple[jax.Array, jax.Array]):
            now_gates, same = now
            hidden, cell = (jnp.where(same, part, 0.0) for part in state)  # [2, B, h]
            i, f, g, o = jnp.moveaxis(now_gates + jnp.einsum("xbh,xhgk->xbgk", hidden, recurrent), 2, 0)
            cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
            return (hidden, cell), hidden

        zeros = jnp.zeros((2, x.shape[0], recurrent.shape[1]), jnp.float32)
        _, outputs = jax.lax.scan(step, (zeros, zeros), (jnp.moveaxis(gates, 2, 0), jnp.moveaxis(same_segment, 2, 0)[..., None]))
        both = jnp.concatenate([outputs[:, 0], outputs[::-1, 1]], axis=-1)  # [L, B, 2h]
        return jnp.moveaxis(both, 0, 1)
