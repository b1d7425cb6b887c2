"""Seaway and those it is compared with, each on a host of its own in the benchmark's lab."""
