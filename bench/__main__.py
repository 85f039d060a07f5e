"""Entry of ``python bench`` and ``python -m bench``.

The folder above holds the sources of tapegrad, without the compiled extension, and must not hide the tapegrad that is
installed. So this folder is made a package by its path, and neither it nor the folder above stays on ``sys.path``
(the folder above may, where the extension was built in place for development).
"""

import importlib.util
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

HERE = Path(__file__).resolve().parent


def prepare() -> None:
    """Make `bench` importable and the uncompiled `tapegrad` not."""
    hidden = [HERE]
    if not any((HERE.parent / "tapegrad" / f"_C{suffix}").is_file() for suffix in EXTENSION_SUFFIXES):
        hidden.append(HERE.parent)
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() not in hidden]
    if "bench" not in sys.modules:
        spec = importlib.util.spec_from_file_location("bench", HERE / "__init__.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["bench"] = module
        spec.loader.exec_module(module)


prepare()

if __name__ == "__main__":
    from bench.cli import main

    sys.exit(main())
