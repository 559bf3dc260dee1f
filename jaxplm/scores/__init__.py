"""Definitions of scores, on the host."""
