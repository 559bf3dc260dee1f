"""Paths of parameters, such as encoder/blocks/mlp/up/kernel, and functions over them."""

from typing import Any

import jax

Tree = Any


BLOCKS = "encoder/blocks/"


STACKS = (BLOCKS, "encoder/extension/blocks/")  # leaves below these are [N, ...]


def path_name(path: tuple[Any, ...]) -> str:
    """'encoder/blocks/mlp/up/kernel' for a key path of `jax.tree_util`."""
    return "/".join(str(getattr(entry, "key", getattr(entry, "name", entry))) for entry in path)


def by_path(function: Any, tree: Tree) -> Tree:
    """`function(path_name, leaf)` over every leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(path_name(path), leaf), tree)


def stack_of(name: str) -> str | None:
    """The stack of blocks that a leaf belongs to, or None."""
    return next((stack for stack in STACKS if name.startswith(stack)), None)


def named(tree: Tree) -> dict[str, Any]:
    """{'encoder/...': leaf}"""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
