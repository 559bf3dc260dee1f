"""Embeddings for other models: vectors of texts or of their tokens.

`recipe.run` writes them to files, `in_memory.embed` returns them.
"""
