"""AdamW with freezing, layer-wise learning rates and weight decay by parameter path, as optax transformations."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxplm.config import Train
from jaxplm.errors import UserError
from jaxplm.nn.paths import Tree, blocks_above, by_path, named, path_name, stack_of, stack_sizes


def decays(name: str) -> bool:
    """Return whether a parameter has weight decay: kernels and tables do, biases, LayerNorm and a mix of layers do not.

    See Devlin et al. 2019. The pooler has none either: without an objective on pairs it has no gradient, and decay alone would
    shrink it.
    """
    return not (name.endswith("bias") or "/norm/" in name or "/mix/" in name or name.startswith("pooler/"))


def frozen_layers(params: Tree, patterns: tuple[str, ...]) -> Tree:
    """Return which parameters are frozen: a NumPy bool for every leaf, or [N] bools for a stacked leaf of the blocks.

    A pattern freezes what it matches at the start of a path. It is also matched with `encoder/blocks/<i>/...` for each layer
    of a stacked leaf `encoder/blocks/...`, so 'encoder/blocks/[0-5]/' freezes the lower six; the same holds for
    `encoder/extension/blocks/...`.

    Raises:
      UserError: a pattern matches nothing, or nothing is left to train.
    """
    unused = set(patterns)

    def is_frozen(name: str) -> bool:
        matching = [pattern for pattern in patterns if re.match(pattern, name)]
        unused.difference_update(matching)
        return bool(matching)

    def look(name: str, leaf: Any) -> np.ndarray:
        whole = is_frozen(name)
        stack = stack_of(name)
        if stack is None:
            return np.asarray(whole)
        layers = [is_frozen(f"{stack}{i}/{name.removeprefix(stack)}") for i in range(leaf.shape[0])]
        return np.asarray(True) if whole or all(layers) else np.asarray(layers) if any(layers) else np.asarray(False)

    frozen = by_path(look, params)
    if unused:
        names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        begin = sorted({"/".join(name.split("/")[:2]) for name in names})
        raise UserError(f"train.freeze={min(unused, key=patterns.index)!r} matches no parameter; their paths begin with {', '.join(begin)}")
    if all(mask.all() for mask in jax.tree.leaves(frozen)):
        raise UserError(f"train.freeze={patterns} freezes every parameter: nothing is left to train")
    return frozen


def stop_frozen(params: Tree, frozen: Tree) -> Tree:
    """Return the parameters with `stop_gradient` on the frozen ones, so that XLA drops their backward pass."""
    def stop(leaf: jax.Array, mask: np.ndarray) -> jax.Array:
        if not mask.any():
            return leaf
        if mask.all():
            return jax.lax.stop_gradient(leaf)
        # Layer by layer, not by a mask over the stack: then unrolled blocks that are frozen have no backward pass.
        return jnp.stack([jax.lax.stop_gradient(part) if off else part for part, off in zip(leaf, mask, strict=True)])

    return jax.tree.map(stop, params, frozen)


def schedule(train: Train, steps: int) -> optax.Schedule:
    """Return the learning rate by step: linear warm-up from 0, then linear or cosine decay to 0, or constant.

    Step t (from 0) gets the value at t + 1 of the warm-up, so that the first update already has a rate above 0. The values are
    those of optax's schedules to within 2e-7 of the highest rate (a test compares them), but not their bits: inside the compiled
    step a third of the rates of `optax.linear_schedule` round differently, and a resumed run must not change.

    Raises:
      UserError: the warm-up is longer than the run.
    """
    warmup = round(train.warmup * steps) if train.warmup < 1 else int(train.warmup)
    if warmup >= steps > 0:
        raise UserError(f"train.warmup={train.warmup:g} is {warmup} steps, but there are only {steps}")
    peak, rest = train.learning_rate, max(steps - warmup, 1)

    def rate(step: Any) -> Any:
        now = jnp.asarray(step, jnp.float32)
        rising = (now + 1) / max(warmup, 1)
        progress = jnp.clip((now - warmup) / rest, 0, 1)
        falling = {"linear": 1 - progress, "cosine": 0.5 * (1 + jnp.cos(jnp.pi * progress)),
                   "constant": jnp.ones_like(progress)}[train.schedule]
        return peak * jnp.where(now < warmup, rising, falling)

    return rate


def layer_scale(params: Tree, decay: float) -> Tree:
    """Return learning-rate multipliers: 1 for what is above the encoder, decay^(N-i) for block i, decay^(N+1) for embeddings.

    For stacked leaves [N, ...] the multiplier is [N, 1, ...] (Howard & Ruder 2018, discriminative fine-tuning).
    """
    return _by_depth(params, lambda above: decay**above)


def _by_depth(params: Tree, value: Callable[[Any], Any]) -> Tree:
    """Return value(d) for every leaf of depth d below the head: 0 the head, 1 the top block, N the lowest, N + 1 the embeddings.

    For stacked leaves [N, ...] it is called with all depths at once, as [N, 1, ...] float32.
    """
    def depth(name: str, leaf: jax.Array) -> Any:
        if stack_of(name):
            n = leaf.shape[0]
            return value(jnp.arange(n, 0, -1, dtype=jnp.float32).reshape((n,) + (1,) * (leaf.ndim - 1)))
        above = blocks_above(name, sizes)
        return value(jnp.float32(above + 1 if above else 0))

    sizes = stack_sizes(params)
    return by_path(depth, params)


def _scaled(scales: Callable[[jax.Array], Tree]) -> optax.GradientTransformation:
    """Multiply updates by `scales(step)`, a tree of multipliers. A multiplier of 0 gives 0 also for an update that is not finite."""
    def init(params: Tree) -> optax.OptState:
        del params
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, optax.OptState]:
        del params
        factors = named(scales(state.count))
        # By name: frozen leaves are masked nodes here, so the trees differ.
        scaled = by_path(lambda name, u: jnp.where(factors[name] == 0, jnp.zeros_like(u), u * factors[name]), updates)
        return scaled, optax.ScaleByScheduleState(jnp.asarray(optax.safe_increment(state.count)))

    return optax.GradientTransformation(init, update)


class TrainFirst(NamedTuple):
    """Parts of the parameters that are trained alone at first.

    Attributes:
      steps: for how many steps.
      parts: float32 multipliers of every leaf: 1 for what is trained from the start, 0 for the rest.
    """

    steps: int
    parts: Tree


def new_rows_first(params: Tree, first: int, steps: int) -> TrainFirst:
    """Train the tokens from id `first` on alone for `steps` steps: their rows of the word table and of the decoder's bias.

    Of an exBERT they are the extension's own table and bias.
    """
    extended = any(name.startswith("encoder/extension/") for name in named(params))

    def part(name: str, leaf: Any) -> np.ndarray:
        if extended:
            return np.asarray(name in ("encoder/extension/word", "mlm_extension/bias"), np.float32)
        if name in ("encoder/embeddings/word", "mlm_head/bias"):
            return (np.arange(leaf.shape[0]) >= first).astype(np.float32).reshape((-1,) + (1,) * (leaf.ndim - 1))
        return np.zeros((), np.float32)

    return TrainFirst(steps, by_path(part, params))


def _gates(train: Train, params: Tree, frozen: Tree, train_first: TrainFirst | None) -> Callable[[jax.Array], Tree] | None:
    """Return a function of the step: 0 for what is not trained at it, 1 for the rest; None if all leaves are always trained."""
    partly = [mask for mask in jax.tree.leaves(frozen) if mask.any() and not mask.all()]
    if not partly and not train.unfreeze_every and not train_first:
        return None

    def gates(step: jax.Array) -> Tree:
        opened = _by_depth(params, lambda depth: jnp.float32(step >= depth * train.unfreeze_every))
        trained = jax.tree.map(lambda gate, mask, leaf: gate * (1 - mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim))).astype(
            np.float32), opened, frozen, params)
        if train_first is None:
            return trained
        alone = step < train_first.steps
        return jax.tree.map(lambda gate, part: jnp.where(alone, gate * part, gate), trained, train_first.parts)

    return gates


def _clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Clip as optax.clip_by_global_norm does, by a multiplication, which XLA fuses with what follows; it did not fuse the division."""
    def update(updates: Tree, params: Tree | None = None) -> Tree:
        del params
        factor = jnp.minimum(1.0, limit / optax.tree.norm(updates))
        return jax.tree.map(lambda u: u * factor, updates)

    return optax.stateless(update)


def _scale_by_adam(beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformationExtraArgs:
    """Scale as optax.scale_by_adam does (Kingma & Ba 2015, Algorithm 1); the moments stay as they were where `finite` is False.

    Choosing here, and not over the finished state, makes the update read the new moments. Otherwise it reads the old ones
    while another pass overwrites them, so XLA copies both first, which cost a CPU a quarter of the optimizer's time.
    """
    def update(updates: Tree, state: Any, params: Tree | None = None, *, finite: Any = True,
               **_: Any) -> tuple[Tree, optax.OptState]:
        del params
        mean = jax.tree.map(lambda m, g: jnp.where(finite, beta1 * m + (1 - beta1) * g, m), state.mu, updates)
        square = jax.tree.map(lambda v, g: jnp.where(finite, beta2 * v + (1 - beta2) * (g * g), v), state.nu, updates)
        count = jnp.asarray(optax.safe_increment(state.count))
        unbias1, unbias2 = 1 / (1 - beta1**count), 1 / (1 - beta2**count)
        steps = jax.tree.map(lambda m, v: m * unbias1 / (jnp.sqrt(v * unbias2) + epsilon), mean, square)
        return steps, optax.ScaleByAdamState(count, mean, square)

    return optax.GradientTransformationExtraArgs(optax.scale_by_adam().init, update)


class Optimizer(NamedTuple):
    """What updates the parameters of a run.

    Attributes:
      transformation: the whole chain; `update(…, finite=False)` leaves Adam's moments as they were.
      schedule: the learning rate inside it, by step.
      frozen: which leaves, or which layers of stacked leaves, have no gradient (`frozen_layers`); None if all have one.
    """

    transformation: optax.GradientTransformationExtraArgs
    schedule: optax.Schedule
    frozen: Tree | None


def optimizer(train: Train, steps: int, params: Tree, train_first: TrainFirst | None = None) -> Optimizer:
    """Return clipping by global norm → AdamW (Loshchilov & Hutter 2019, bias correction on) → layer-wise learning rates.

    Frozen leaves get `set_to_zero` through `optax.partition`, so no moments exist for them. Frozen layers of a stacked
    leaf, layers that `train.unfreeze_every` has not opened yet (Howard & Ruder 2018, gradual unfreezing), and what waits
    while other parts are trained first, are held back by multiplying gradients and updates with 0.

    Args:
      steps: of the run.
      params: may be abstract; only paths and shapes are read.

    Raises:
      UserError: a pattern of `train.freeze` matches nothing, nothing is left to train, or the warm-up is longer than the run.
    """
    frozen = frozen_layers(params, train.freeze)
    gates = _gates(train, params, frozen, train_first)
    rate = schedule(train, steps)
    parts = [] if gates is None else [_scaled(gates)]
    if train.clip:
        parts.append(_clip_by_global_norm(train.clip))
    parts += [_scale_by_adam(train.beta1, train.beta2, train.epsilon),
              optax.add_decayed_weights(train.weight_decay, mask=lambda tree: by_path(lambda name, _: decays(name), tree)),
              optax.scale_by_learning_rate(rate)]
    if train.layer_decay != 1.0:
        parts.append(_scaled(lambda step: layer_scale(params, train.layer_decay)))
    if gates is not None:
        parts.append(_scaled(gates))  # weight decay moves what has no gradient
    transformation = optax.chain(*parts)
    if train.freeze:
        labels = jax.tree.map(lambda mask: "frozen" if mask.all() else "trained", frozen)
        transformation = optax.partition({"trained": transformation, "frozen": optax.set_to_zero()}, labels)
    return Optimizer(optax.with_extra_args_support(transformation), rate, frozen if train.freeze else None)
