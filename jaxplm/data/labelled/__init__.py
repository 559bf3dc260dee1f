"""Labelled tasks: rows with labels, units that the encoder reads, batches."""
