"""Benchmarks: tapegrad and PyTorch side by side in one process. `python bench --help` lists the suites."""
