"""Triton kernels for NVIDIA GPUs (through Pallas) of what XLA computes in several passes over the activations.

`tiles` has what they share. The plain forms, which these must equal, are in `jaxplm.nn.layers`; `selfcheck` compares the two on the
device. Shapes: M rows (all tokens of a batch), D width, F width of the feed-forward layer.
"""
