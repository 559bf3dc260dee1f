"""Self-attention within the texts of a row: `dispatch` chooses the kernel, each kernel has a file, `selfcheck` tests one on the device.

Shapes: B rows, L tokens per row, H heads, Dh (d in names) width of a head, M segments per row at most.
"""
