"""The two files: around the instructions their arrays, struct, arena and functions."""

from __future__ import annotations

import math
import re
import textwrap
from dataclasses import dataclass

import torch

from .memory import Array, initial, short
from .program import Program
from .values import TYPES
from .writer import Writer


@dataclass
class Files:
    """The text of both files, and what the header declares."""

    header: str
    source: str
    functions: list[str]
    parameter_bytes: int
    arena_bytes: int
    state_bytes: int


class Text:
    """The text of both files."""

    def __init__(self, program: Program, w: Writer, stem: str) -> None:
        self.p, self.w, self.stem = program, w, stem
        self.name, self.upper = program.name, program.name.upper()
        memory, captured = program.memory, program.captured
        self.has_state = bool(memory.state or program.numbers or program.generators)
        self.function = f"{self.name}_forward" if captured.is_module and not self.has_state else f"{self.name}_step"
        trace = program.trace
        written = {i for i, slot in enumerate(trace.slots) if slot.kind == "argument" and slot.written}
        slots = [i for i, slot in enumerate(trace.slots) if slot.kind == "argument"]
        self.formal = []
        for i, name in zip(slots, program.inputs, strict=True):
            kind = TYPES[memory.dtypes.get(i, torch.float32)]
            self.formal.append(f"{'' if i in written else 'const '}{kind} *{name}")
        self.formal += [f"{TYPES[r.dtype]} *{n}" for r, n in zip(captured.outputs, program.outputs, strict=True)]
        self.kind = TYPES[captured.returned.dtype] if captured.returned else "void"
        self.arena = memory.sizes or {torch.float32: 1}
        self.words = _words("\n".join(w.lines))
        memory.constants = {name: a for name, a in memory.constants.items() if name in self.words}
        memory.pointers = {name: text for name, text in memory.pointers.items() if name in self.words}

    def both(self) -> Files:
        """Both texts, and what the header declares."""
        source, header = self.source(), self.header()
        if re.search(r"\bu?int\d+_t\b|INT64_C", header + source):
            first = header.index("#ifdef __cplusplus")
            header = f"{header[:first]}#include <stdint.h>\n\n{header[first:]}"
        sizes = self._parameter_bytes(), self.p.memory.arena_bytes, self._state_bytes()
        return Files(header, source, self.functions(), *sizes)

    def _parameter_bytes(self) -> int:
        arrays = [*self.p.memory.constants.values(), *self.p.memory.state]
        return sum(a.values.nbytes for a in arrays)

    def _state_bytes(self) -> int:
        extra = 8 * (len(self.p.numbers) + 2 * len(self.p.generators))
        return sum(a.values.nbytes for a in self.p.memory.state) + extra if self.has_state else 0

    def functions(self) -> list[str]:
        formal = ", ".join(self.formal)
        if self.has_state:
            return [
                f"void {self.name}_init(struct {self.name} *s);",
                f"{self.kind} {self.function}(struct {self.name} *s{', ' if formal else ''}{formal});",
            ]
        return [
            f"void {self.function}({formal});",
            f"void {self.function}_in(struct {self.name}_arena *arena, {formal});",
        ]

    def header(self) -> str:
        p, captured = self.p, self.p.captured
        guard = f"{self.upper}_H"
        lines = [f"/* {self.name}: {captured.title}, exported by tapegrad. C99."]
        lines += textwrap.wrap(self._about(), 116, initial_indent="   ", subsequent_indent="   ")
        lines[-1] += " */"
        lines += [f"#ifndef {guard}", f"#define {guard}", ""]
        lines += ["#ifdef __cplusplus", 'extern "C" {', "#endif", ""]
        lines += [f"#define {self.upper}_PARAMETER_BYTES {self._parameter_bytes()}"]
        lines += [f"#define {self.upper}_ARENA_BYTES {self.p.memory.arena_bytes}"]
        for name, size in self._extents():
            lines.append(f"#define {self.upper}_{name.upper()}_SIZE {size} /* elements */")
        lines += ["", f"struct {self.name}_arena {{ /* where values lie while a function runs */"]
        lines += [f"  {TYPES[dtype]} {short(dtype)}[{n}];" for dtype, n in self._merged().items()]
        lines += ["};", ""]
        if self.has_state:
            lines += [f"struct {self.name} {{"]
            lines += [f"  double {name};" for name in p.numbers]
            for name, *_ in p.generators:
                lines += [f"  uint64_t {name}_seed, {name}_offset;"]
            lines += [
                f"  {TYPES[a.values.dtype]} {a.name}[{max(a.values.numel(), 1)}]; /* {a.comment} */"
                for a in p.memory.state
            ]
            lines += [f"  struct {self.name}_arena arena;", "};", ""]
        functions = self.functions()
        if self.has_state:
            lines += ["/* The parameters, state and hyper-parameters as they were exported. */", functions[0]]
            lines += ["/* One step. Bad values (a label out of range) give NaN. */", functions[1]]
        else:
            lines += [
                "/* Row-major arrays. Values lie in an arena of its own: not to be called by two threads at once. */"
            ]
            lines += [functions[0], "/* The same in an arena that is given. */", functions[1]]
        return "\n".join([*lines, "", "#ifdef __cplusplus", "}", "#endif", "", "#endif", ""])

    def _merged(self) -> dict[torch.dtype, int]:
        """bool and uint8 are one member."""
        found: dict[str, tuple[torch.dtype, int]] = {}
        for dtype, n in self.arena.items():
            key = short(dtype)
            found[key] = (dtype, max(n, found.get(key, (dtype, 0))[1]))
        return dict(found.values())

    def _about(self) -> str:
        p = self.p
        shapes = [f"{name} {list(p.captured.shapes[i])}" for i, name in enumerate(p.inputs)]
        shapes += [f"{n} {list(r.sizes)}" for n, r in zip(p.outputs, p.captured.outputs, strict=True)]
        return "Arrays, row by row: " + ", ".join(shapes) + "."

    def _extents(self) -> list[tuple[str, int]]:
        p = self.p
        found = [(name, math.prod(p.captured.shapes[i])) for i, name in enumerate(p.inputs)]
        return found + [(n, math.prod(r.sizes)) for n, r in zip(p.outputs, p.captured.outputs, strict=True)]

    def source(self) -> str:
        p = self.p
        lines = [f"/* {self.name}: exported by tapegrad; see the header. */", f'#include "{self.stem}.h"', ""]
        headers = [h for h in ("math.h",) if h in p.library.headers]
        copies = any(p.memory.state)
        headers += ["string.h"] if copies else []
        lines += [*[f"#include <{h}>" for h in headers], *([""] if headers else [])]
        for source in p.library.sources.values():
            lines += [source, ""]
        lines += [*self.w.tables, ""] if self.w.tables else []
        for array in p.memory.constants.values():
            lines += [*self._constant(array.name, array), ""]
        lines += self._state() if self.has_state else []
        lines += self._main()
        return "\n".join(lines)

    def _constant(self, name: str, array: Array) -> list[str]:
        n = max(array.values.numel(), 1)
        head = f"static const {TYPES[array.values.dtype]} {name}[{n}] = {{ /* {array.comment} */"
        return [head, *[f"  {line}" for line in initial(array) or ["0"]], "};"]

    def _state(self) -> list[str]:
        p = self.p
        lines, body = [], []
        for array in p.memory.state:
            if not bool(array.values.any()):
                body.append(f"  memset(s->{array.name}, 0, sizeof s->{array.name});")
                continue
            name = f"{self.name}_{array.name}_start"
            lines += [*self._constant(name, array), ""]
            body.append(f"  memcpy(s->{array.name}, {name}, sizeof s->{array.name});")
        body += [f"  s->{name} = {value!r};" for name, value in p.numbers.items()]
        for name, generator, _ in p.generators:
            seed, offset = generator.get_state()
            body += [f"  s->{name}_seed = UINT64_C({seed});", f"  s->{name}_offset = UINT64_C({offset});"]
        return [*lines, f"void {self.name}_init(struct {self.name} *s) {{", *body, "}", ""]

    def _main(self) -> list[str]:
        p, functions = self.p, self.functions()
        arena = f"struct {self.name}_arena *"
        body = [f"  {declaration}" for declaration in p.memory.pointers.values()]
        if self.has_state and p.memory.pointers:
            body = [f"  {arena}const arena = &s->arena;", *body]
        for name in (*p.inputs, *p.outputs, *(["s"] if self.has_state else [])):
            if name not in self.words and not (name == "s" and p.memory.pointers):
                body.append(f"  (void){name};")
        if not self.has_state and not p.memory.pointers:
            body.append("  (void)arena;")
        lines = [functions[1].removesuffix(";") + " {", *body, *self.w.lines, "}", ""]
        if not self.has_state:
            names = ", ".join(["&arena", *p.inputs, *p.outputs])
            lines += [functions[0].removesuffix(";") + " {", f"  static struct {self.name}_arena arena;"]
            lines += [f"  {self.function}_in({names});", "}", ""]
        return lines


def _words(text: str) -> set[str]:
    """The names in a text, comments aside."""
    return set(re.findall(r"[A-Za-z_]\w*", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)))
