"""Seaway gives containers their network: Python steers, the Linux kernel forwards."""

__version__ = "0.1.0"
