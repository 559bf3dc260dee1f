"""Paths of parameters, such as encoder/blocks/mlp/up/kernel, and functions of them.

Blocks are stacked: a leaf below a branch called `blocks` has the leading axis [N, ...], one entry per block. The prefix up
to and including `blocks/` is the stack's name. Freezing by layer, layer-wise learning rates and gradual unfreezing rely on
this, so they work for every module that is built this way.
"""

import re
from collections.abc import Callable
from typing import Any

import jax

Tree = Any

_STACK = re.compile(r"(.*?/)?blocks/")


def path_name(path: tuple[Any, ...]) -> str:
    """Return 'encoder/blocks/mlp/up/kernel' for a key path of `jax.tree_util`."""
    return "/".join(str(getattr(entry, "key", getattr(entry, "name", entry))) for entry in path)


def by_path(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """Return the tree of `function(path_name, leaf, *leaves of the others at the same path)`."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: function(path_name(path), *leaves), tree, *others)


def named(tree: Tree) -> dict[str, Any]:
    """Return {path_name: leaf}."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def stack_of(name: str) -> str | None:
    """Return the stack of blocks that a leaf belongs to, such as 'encoder/blocks/'; None if it is not in one."""
    found = _STACK.match(name)
    return found[0] if found else None


def stack_sizes(tree: Tree) -> dict[str, int]:
    """Return {stack: N, the number of its blocks}. Leaves need a shape only.

    Raises:
      ValueError: leaves of one stack differ in their leading axis.
    """
    sizes: dict[str, int] = {}
    for name, leaf in named(tree).items():
        if (stack := stack_of(name)) and sizes.setdefault(stack, leaf.shape[0]) != leaf.shape[0]:
            raise ValueError(f"{name} has {leaf.shape[0]} blocks, and others of {stack} have {sizes[stack]}")
    return sizes


def blocks_above(name: str, sizes: dict[str, int]) -> int:
    """Return how many blocks read, directly or not, what a leaf outside of the stacks computes.

    It is N for the embeddings beside a stack of N blocks (encoder/embeddings/word beside encoder/blocks/), and 0 for heads.

    Args:
      name: path of a leaf that is in no stack.
      sizes: `stack_sizes` of its tree.
    """
    parts = name.split("/")
    beside = ("/".join([*parts[:end], "blocks/"]) for end in range(len(parts) - 1, 0, -1))
    return next((sizes[stack] for stack in beside if stack in sizes), 0)
