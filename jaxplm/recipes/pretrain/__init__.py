"""Masked language modelling: further pre-training, pre-training from scratch, vocabulary extension."""
