"""Evaluation without training."""
