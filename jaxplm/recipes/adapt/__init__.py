"""The comparison: which way to adapt an encoder is best for a task."""
