"""One module for each question that the benchmarks answer; each has ``measure(bench)``."""
