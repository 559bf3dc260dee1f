"""Devices and processes: meshes, precision, kernels, several hosts."""
