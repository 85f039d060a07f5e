"""`export_c`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import ArgumentError, PathError
from ..files import write
from .capture import capture
from .program import Program
from .source import Text
from .values import KEYWORDS, is_identifier


@dataclass(frozen=True)
class Exported:
    """What an exported header declares.

    Attributes
    ----------
    source, header : the files
    functions : their declarations
    parameter_bytes : constant arrays and, in a step, the struct's parameters and state
    arena_bytes : values that live while a function runs
    state_bytes : the struct of a step without its arena; 0 for inference
    """

    source: Path
    header: Path
    functions: tuple[str, ...]
    parameter_bytes: int
    arena_bytes: int
    state_bytes: int

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.source}, {self.header.name}: {self.parameter_bytes} bytes of parameters, "
                f"{self.arena_bytes} of arena",
                *self.functions,
            ]
        )


def export_c(what: Any, *example: Any, path: str | os.PathLike[str], name: str = "net", math: str = "libm") -> Exported:
    """Write a module or a compiled step as plain C99: one ``.c`` and one ``.h``, which need no Python and no malloc.

    A module becomes ``void net_forward(const float *x, float *y)``, in evaluation mode, its parameters constant
    arrays. A compiled step becomes ``float net_step(struct net *s, const float *x, const float *y)``: forward, backward
    and update. ``struct net`` holds what the step changes (parameters, statistics, optimizer state), the learning rate
    and weight decay of SGD and Adam, random streams and the arena; ``net_init(&s)`` fills it with what they are now. It
    returns a first result that is one number; other results follow the arguments. Shapes are those of the example;
    every instruction of the compiled program (``explain``) is one loop nest, and rounds as a loop does: results are
    those of the compiled tape to rounding.

    >>> import tapegrad as tg, tempfile
    >>> model = tg.nn.Sequential(tg.nn.Linear(17, 64), tg.nn.Tanh(), tg.nn.Linear(64, 6))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = tg.export_c(model, tg.zeros(1, 17), path=folder)
    >>> made.functions[0], made.arena_bytes
    ('void net_forward(const float *x, float *y);', 512)

    Parameters
    ----------
    what : a `Module`, or what `tg.compile` made of a step
    example : arguments as for a call of it; their values matter to a step only as far as it reads them in Python
    path : a directory, for ``NAME.c`` and ``NAME.h`` in it; or a file's name, whose suffix becomes ``.c`` and ``.h``
    name : what functions and the struct are called, an identifier in C
    math : "libm" calls <math.h>; "own" needs no library: tanh, exp and the like are in the file

    Returns
    -------
    `Exported`: both paths, the declared functions, and the sizes in bytes of parameters, arena and state.

    Raises
    ------
    CompileError
        for a step that cannot be compiled (shapes that depend on values among them), and for an instruction that has
        no form in C, with its source line.
    ArgumentError, DTypeError
        for another ``what``, a name that is none in C, and float16. Nothing is written then.
    PathError
        (an OSError) where the files cannot be written; both are written whole, or neither.

    A label or index out of range gives NaN, and no update. Statistics of normalisations, float64 in Python, have the
    type of their input. Gradients that an update reads lie in the arena; others are members of the struct.

    Source: after CasADi's code generation; instructions as ``csrc/kernels`` computes them.
    """
    if not isinstance(name, str) or not is_identifier(name):
        reason = "a keyword" if name in KEYWORDS else "no identifier"
        raise ArgumentError(f"export_c: name must be an identifier in C; {name!r} is {reason}")
    base = _base(path, name)
    program = Program(capture(what, example), name, math)
    files = Text(program, program.body(), base.name).both()
    source, header = base.with_name(f"{base.name}.c"), base.with_name(f"{base.name}.h")
    _write_both({header: files.header, source: files.source})
    sizes = files.parameter_bytes, files.arena_bytes, files.state_bytes
    return Exported(source, header, tuple(files.functions), *sizes)


def _write_both(texts: dict[Path, str]) -> None:
    """Both files, or neither: where the second cannot be written, the first becomes what it was."""
    written: dict[Path, bytes | None] = {}  # and what was there
    for path, text in texts.items():
        try:
            before = path.read_bytes() if path.exists() else None
            write(path, text.encode())
        except OSError as error:
            for done, held in written.items():
                if held is None:
                    done.unlink(missing_ok=True)
                else:
                    write(done, held)
            raise PathError(f"export_c: path: {path} cannot be written: {error.strerror or error}") from error
        written[path] = before


def _base(path: str | os.PathLike[str], name: str) -> Path:
    """Both files without their suffix."""
    given = Path(path)
    if given.is_dir():
        return given / name
    if given.suffix in (".c", ".h"):
        given = given.with_suffix("")
    if not given.name or not given.parent.is_dir():
        raise PathError(f"export_c: path must lie in a directory that exists; got {os.fspath(path)!r}")
    return given
