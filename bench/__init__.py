"""Measures Seaway and its peers in the same run: ``python -m bench`` (see docs/benchmarks.md)."""
