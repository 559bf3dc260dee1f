"""Labelled tasks: fine-tuning and feature extraction."""
