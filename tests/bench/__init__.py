"""The benchmark: `python tests/bench/run.py` runs mirror and its peers side by side and writes docs/benchmarks.md."""
