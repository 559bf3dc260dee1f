"""Choosing texts of a corpus for a task: words and their n-grams, leaks, importance weights, sampling, exact neighbours. NumPy only."""
