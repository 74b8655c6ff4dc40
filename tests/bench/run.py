"""Start of the benchmark: `python tests/bench/run.py [--rounds 3] [--only folder,s3] [--write docs/benchmarks.md]`."""

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    # As a script this folder heads sys.path, where it would hide nothing good; the packages we need are one above.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    sys.exit(import_module("bench.main").main())
