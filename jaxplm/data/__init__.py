"""From files to batches. NumPy only: nothing here imports JAX."""
