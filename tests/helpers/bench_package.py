"""Importing this makes `bench` importable as its own entry does: by path, without the folder above on sys.path."""

import runpy
import sys
from pathlib import Path

_path = list(sys.path)
runpy.run_path(str(Path(__file__).resolve().parents[2] / "bench" / "__main__.py"), run_name="not_main")
sys.path[:] = _path
