"""Benchmarks: how fast the pipeline is, against yardsticks measured in the same run."""
