"""Attention within the texts of a row: one dispatch, one file for each kernel, one check of a kernel on the device."""
