"""Masked language modelling: packed rows, masks, batches."""
