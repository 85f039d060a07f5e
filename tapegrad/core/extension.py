"""Loads the compiled extension, tapegrad._C, and says what to do where that fails."""

import importlib.util
import sysconfig
from pathlib import Path

import torch

_REINSTALL = "pip install --force-reinstall --no-cache-dir ."
_BUILD_HERE = "pip install --no-build-isolation --force-reinstall --no-deps --no-cache-dir ."


def _public(version: str) -> str:
    """2.13.0+cpu -> 2.13.0: builds of one release for other devices share the interface that the extension uses."""
    return version.partition("+")[0]


def _check() -> None:
    """Raises ImportError where the extension is missing, or was built for another torch (loading it then fails with no
    more than the name of a missing symbol)."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise ImportError("tapegrad needs the usual build of Python; this one is free-threaded")
    found = importlib.util.find_spec("tapegrad._C")
    if found is None or found.origin is None:
        here = Path(__file__).resolve().parent.parent
        if (here.parent / "pyproject.toml").exists():
            raise ImportError(
                f"tapegrad was imported from its source folder {here.parent}, where its extension is not compiled: "
                f"install it with `pip install .` and start Python in another folder, or compile it for use in the "
                f"source folder with `pip install --no-build-isolation -e .`"
            )
        raise ImportError(f"tapegrad's extension _C is missing from {here}; in tapegrad's source folder: {_REINSTALL}")
    try:
        built_for = Path(found.origin).with_name("_built_for.txt").read_text().strip()
    except OSError as error:
        raise ImportError(
            f"tapegrad's installation is incomplete ({error}); in tapegrad's source folder: {_REINSTALL}"
        ) from error
    if _public(built_for) != _public(torch.__version__):
        raise ImportError(
            f"tapegrad's extension was built for torch {built_for}, found torch {torch.__version__}. "
            f"Install the torch it was built for (pip install torch=={_public(built_for)}), or rebuild it for this "
            f"one, in tapegrad's source folder: {_BUILD_HERE}"
        )


_check()
try:
    from tapegrad import _C
except ImportError as error:
    if str(error).startswith("TAPEGRAD_ISA="):
        raise
    raise ImportError(
        f"tapegrad's extension cannot be loaded under torch {torch.__version__}: {error}. "
        f"Reinstall it, in tapegrad's source folder: {_REINSTALL}"
    ) from error

__all__ = ["_C"]
