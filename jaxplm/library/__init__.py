"""Recipes from Python: what the command does, in this process, with the result as a dataclass."""
