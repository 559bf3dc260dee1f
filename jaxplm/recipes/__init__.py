"""Recipes: what each command does, from its config to its report."""
