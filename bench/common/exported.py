"""The exported side of a benchmark: a network as C, compiled for this machine, called in a loop that is C itself.

Python's own call of a function in C (ctypes) takes longer than a small network; a control loop on a device has none.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import tapegrad as tg

FLAGS = ("-std=c99", "-O3", "-march=native")
_LOOP = """#include "net.h"
void repeat(int n, {kind} *x, {kind} *y);
void repeat(int n, {kind} *x, {kind} *y) {{
  for (int i = 0; i < n; ++i) {{
    net_forward(x, y);
    x[0] += y[0] * 0; /* so that no call is one too many */
  }}
}}
"""


class ExportedForward:
    """A module's forward for batches like ``x``, as `tg.export_c` writes it.

    ``self(x)`` gives the output; ``self.seconds(calls)`` the time of one of so many calls. There is none where there is
    no C compiler: `ExportedForward.here()`.
    """

    def __init__(self, model: Any, x: torch.Tensor, math: str = "libm", compiler: str = "cc") -> None:
        self.x = x.detach().clone().contiguous()
        with tempfile.TemporaryDirectory() as folder:
            made = tg.export_c(model, self.x, path=folder, math=math)
            kind = "float" if x.dtype == torch.float32 else "double"
            loop = Path(folder) / "loop.c"
            loop.write_text(_LOOP.format(kind=kind))
            library = Path(folder) / "net.so"
            command = [compiler, *FLAGS, "-shared", "-fPIC", str(made.source), str(loop), "-o", str(library), "-lm"]
            subprocess.run(command, check=True)
            self._repeat = ctypes.CDLL(str(library)).repeat
        self._repeat.restype = None
        self.y = torch.empty_like(model.eval()(self.x).data)

    @staticmethod
    def here(compiler: str = "cc") -> bool:
        return shutil.which(compiler) is not None

    def _run(self, calls: int) -> None:
        self._repeat(calls, ctypes.c_void_p(self.x.data_ptr()), ctypes.c_void_p(self.y.data_ptr()))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.x.copy_(x)
        self._run(1)
        return self.y.clone()

    def seconds(self, calls: int = 1000) -> float:
        begin = time.perf_counter()
        self._run(calls)
        return (time.perf_counter() - begin) / calls
