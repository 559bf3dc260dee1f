"""Embeddings: vectors of texts or of their tokens, for other models. `recipe.run` for files, `in_memory.embed` for lists."""
