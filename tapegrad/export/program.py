"""A captured program on its way to C: where its values lie, and every instruction written by its emitter."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..compiled import Call, Number, Offset, Ref, Seed, Trace, changed, function_name, reads, refs_of
from ..core import CompileError
from ..optim.kernels import Key, hyper
from . import (
    convolutions,
    ctc,
    elementwise,
    indexing,
    losses,
    norms,
    optimizers,
    pools,
    products,
    random,
    recurrent,
    reductions,
)
from .capture import Captured
from .library import Library
from .memory import Array, Memory, dtypes_of, place_in_arena, uniform
from .names import storage
from .table import EMITTERS, Instruction, Symbol
from .values import Unsupported, Value, identifier
from .writer import Writer

ROOMS = (  # they fill EMITTERS
    *(convolutions, ctc, elementwise, indexing, losses, norms, optimizers, pools, products, random, recurrent),
    reductions,
)


class Program:
    """A captured program on its way to C."""

    def __init__(self, captured: Captured, name: str, math: str) -> None:
        self.captured, self.name = captured, name
        self.trace: Trace = captured.bound.trace
        self.calls = [one for call in captured.bound.program.calls for one in _each(call)]
        self.memory = Memory()
        self.library = Library(math)
        self.inputs = list(captured.inputs)
        self.numbers: dict[str, float] = {}
        self.generators: list[tuple[str, Any, int]] = []
        self.ends = [*captured.outputs, *([captured.returned] if captured.returned else [])]
        self.outputs = self._output_names()
        self.direct: dict[int, str] = {}  # slots that are an output argument
        self._place()

    # --- where things lie -----------------------------------------------------------------------------------------

    def _output_names(self) -> list[str]:
        base = "y" if self.captured.is_module and "y" not in self.inputs else "out"
        n = len(self.captured.outputs)
        return [base] if n == 1 else [f"{base}{i}" for i in range(n)]

    def _place(self) -> None:
        memory, trace, program = self.memory, self.trace, self.captured.bound.program
        refs = [r for call in self.calls for r in (*reads(call), *refs_of(call.outs))] + self.ends
        used = list(dict.fromkeys(r.slot for r in refs))
        written = {r.slot for call in self.calls for r in (*changed(call), *refs_of(call.outs))}
        read = {r.slot for call in self.calls for r in reads(call)} | {r.slot for r in self.ends}
        memory.dtypes = dtypes_of(self.calls, self.ends)
        memory._taken |= {*self.inputs, *self.outputs, "s", "arena"}
        carried = {one.slot: one.left for one in trace.carried if one.slot in used}
        gradients = self._unread_gradients(read - set(carried.values()))
        arena: set[int] = set()
        arguments = iter(self.inputs)
        named = {i: next(arguments) for i, slot in enumerate(trace.slots) if slot.kind == "argument"}
        for i in used:
            slot = trace.slots[i]
            if i in named:
                memory.arrays[i] = named[i]
            elif i in carried:
                continue  # it lies where the step leaves its own
            elif slot.kind == "outside" or (i in program.own and i not in written) or i in gradients:
                self._outside(i, i in written, gradients.get(i), i in carried.values())
            else:
                arena.add(i)
        for i, left in carried.items():
            memory.arrays[i] = memory.arrays[left]
        for ref, output in zip(self.captured.outputs, self.outputs, strict=True):
            if ref.slot in arena and self._whole(ref) and ref.slot not in self.direct:
                self.direct[ref.slot] = memory.arrays[ref.slot] = output
                arena.discard(ref.slot)
        for i in sorted(arena):
            memory.arrays[i] = f"v{i}"
            memory.labels[i] = self._shape_of(i)
        counts = {i: -(-trace.slots[i].nbytes // self._itemsize(i)) for i in arena}
        place_in_arena(memory, self.calls, self.ends, arena, counts)

    def _itemsize(self, slot: int) -> int:
        """Bytes of an element where it was recorded."""
        for call in self.calls:
            for ref in (*refs_of(call.outs), *reads(call)):
                if ref.slot == slot:
                    return int(ref.dtype.itemsize)
        return int(self.memory.dtypes[slot].itemsize)

    def _shape_of(self, slot: int) -> str:
        for call in self.calls:
            for ref in (*refs_of(call.outs), *changed(call)):
                if ref.slot == slot:
                    return f"[{', '.join(map(str, ref.sizes))}]"
        return "scratch"

    def _whole(self, ref: Ref) -> bool:
        """Whether a result is its slot from the first element to the last, in order."""
        numel = math.prod(ref.sizes)
        step, flat = 1, True
        for n, stride in zip(reversed(ref.sizes), reversed(ref.strides), strict=True):
            flat &= n == 1 or stride == step
            step *= n
        same = ref.dtype == self.memory.dtypes[ref.slot]
        return flat and same and ref.offset == 0 and numel * ref.dtype.itemsize == self.trace.slots[ref.slot].nbytes

    def _unread_gradients(self, read: set[int]) -> dict[int, str]:
        """Gradients that the step leaves and no update of it reads, by slot: they are what it is for."""
        found = {}
        for owner, made in self.trace.gradients:
            ref = getattr(made, "ref", None)
            if ref is None or ref.slot in read or self.trace.slots[ref.slot].kind != "made":
                continue
            known = self.inputs[owner] if isinstance(owner, int) and owner < len(self.inputs) else None
            label = known or self.captured.names.get(id(owner))
            found[ref.slot] = f"{label or f'gradient_{ref.slot}'}.grad"
        return found

    def _outside(self, i: int, is_written: bool, gradient: str | None, carried: bool) -> None:
        """Memory from outside, and constants: a member of the struct where the step writes it, else a constant."""
        memory, dtype = self.memory, self.memory.dtypes[i]
        held = self.captured.bound.memory(i)
        values = torch.empty(0, dtype=dtype).set_(held.untyped_storage()).clone()
        label = gradient or self.captured.names.get(storage(held)) or f"{'state' if is_written else 'constant'}_{i}"
        shape = self._label_shape(i)
        if is_written:
            if gradient and not carried:
                values = torch.zeros_like(values)
            name = memory.unique(label)
            memory.arrays[i] = f"s->{name}"
            memory.state.append(Array(name, values, f"{label} {shape}".strip()))
            return
        one = uniform(values)
        if one is not None and label.startswith("constant"):
            memory.known[i] = one
        memory.arrays[i] = f"{self.name}_{memory.unique(label)}"
        memory.values[i] = values
        memory.labels[i] = f"{label} {shape}".strip()

    def _label_shape(self, i: int) -> str:
        for call in self.calls:
            for ref in (*reads(call), *refs_of(call.outs)):
                if ref.slot == i:
                    return f"[{', '.join(map(str, ref.sizes))}]"
        return ""

    # --- instructions ---------------------------------------------------------------------------------------------

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Ref):
            return self.memory.value(value)
        if isinstance(value, Number):
            group, key = self.trace.numbers[value.which]
            return Symbol(f"s->{self._number(group, key, value.which)}")
        if isinstance(value, Seed):
            return Symbol(f"s->{self._generator(value.which)}_seed")
        if isinstance(value, Offset):
            more = f" + {value.delta}u" if value.delta else ""
            return Symbol(f"s->{self._generator(value.which)}_offset{more}")
        return tuple([self._argument(v) for v in value]) if type(value) is tuple else value

    def _number(self, group: dict[str, Any], key: Key, which: int) -> str:
        alike = [i for i, (_, k) in enumerate(self.trace.numbers) if k == key]
        called = optimizers.spelled(key)
        name = identifier(called if len(alike) == 1 else f"{called}_{alike.index(which)}")
        self.numbers[name] = hyper(group, key)
        return name

    def _generator(self, which: int) -> str:
        generator, blocks = self.trace.generators[which]
        name = "random" if len(self.trace.generators) == 1 else f"random_{which}"
        if all(known != name for known, *_ in self.generators):
            self.generators.append((name, generator, blocks))
        return name

    def body(self) -> Writer:
        """Every instruction, one block each."""
        w = Writer(self.library, self.memory, self._fail())
        for i, call in enumerate(self.calls):
            name = function_name(call)
            emitter = EMITTERS.get(name)
            try:
                if emitter is None:
                    raise Unsupported("it has no form in C")
                arguments = tuple([self._argument(a) for a in call.arguments])
                outs = tuple([None if r is None else self.memory.value(r) for r in call.outs])

                def transposed(k: int, call: Call = call) -> Value | None:
                    return self.memory.transposed(call.arguments[k])

                w(f"/* {i}: {self._describe(call)} */")
                with w.block():
                    emitter(w, Instruction(name, arguments, outs, transposed))
            except Unsupported as reason:
                raise CompileError(f"export_c: {call.source}: {call.name} cannot be exported: {reason}") from None
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                raise CompileError(f"export_c: {call.source}: {call.name} cannot be exported: {why}") from error
            if w.lines[-1].strip() == "}" and w.lines[-2].strip() == "{":
                del w.lines[-3:]
        self._finish(w)
        return w

    def _describe(self, call: Call) -> str:
        """``linear 0.weight [25, 17] -> [25, 64]  train.py:12``."""
        shown = []
        for ref in refs_of(call.arguments):
            array = self.memory.arrays.get(ref.slot, "")
            label = self.memory.labels.get(ref.slot, "").partition(" [")[0]
            text = array.removeprefix("s->") if array.startswith("s->") else label if label[:1] not in "[" else array
            shown.append(f"{text} {list(ref.sizes)}".strip())
        more = [*shown[:4], "..."] if len(shown) > 5 else shown
        outs = ", ".join([f"{self.memory.arrays[r.slot]} {list(r.sizes)}" for r in refs_of(call.outs)])
        name = call.name.removeprefix("aten.")
        text = f"{name}({', '.join(more)})" + (f" -> {outs}" if outs else "")
        return f"{text}  {call.source}".replace("*/", "* /").replace("/*", "/ *").strip()

    def _fail(self) -> list[str]:
        """What a function does on bad values: NaN comes out."""
        lines = []
        for output, ref in zip(self.outputs, self.captured.outputs, strict=True):
            n = math.prod(ref.sizes)
            if ref.dtype.is_floating_point and n:
                nan = "0.0f / 0.0f" if ref.dtype == torch.float32 else "0.0 / 0.0"
                lines.append(
                    f"for (int at_{output} = 0; at_{output} < {n}; ++at_{output}) {output}[at_{output}] = {nan};"
                )
        if self.captured.returned:
            return [
                *lines,
                f"return {'0.0f / 0.0f' if self.captured.returned.dtype == torch.float32 else '0.0 / 0.0'};",
            ]
        return [*lines, "return;"]

    def _finish(self, w: Writer) -> None:
        """Outputs that were not written in place, the random stream moved on, the returned number."""
        for ref, output in zip(self.captured.outputs, self.outputs, strict=True):
            if self.direct.get(ref.slot) == output:
                continue
            value = self.memory.value(ref)
            flat = value._replace(array=output, bound=(), number=None, shape=torch.empty(ref.sizes, device="meta"))
            with w.over(ref.sizes, flat, value) as (to, one):
                w(f"{to.element} = {one.read(ref.dtype)};")
        w(*[f"s->{name}_offset += {blocks}u;" for name, _, blocks in self.generators])
        if self.captured.returned is not None:
            w(f"return {self.memory.value(self.captured.returned).element};")


def _each(call: Call) -> list[Call]:
    """A call of torch's on lists of tensors (``_foreach_add_``) as one call for each."""
    name = function_name(call)
    if not name.startswith("aten::_foreach_"):
        return [call]
    lists = [a for a in call.arguments if type(a) is tuple and a and isinstance(a[0], Ref)]
    found = []
    for i in range(len(lists[0]) if lists else 0):
        arguments = tuple([a[i] if type(a) is tuple else a for a in call.arguments])
        outs = (call.outs[i],) if call.outs else ()
        found.append(call._replace(function=_single(name), arguments=arguments, outs=outs))
    return found


def _single(name: str) -> str:
    """``aten::add_.Tensor`` of ``aten::_foreach_add_.List``."""
    head, _, overload = name.replace("_foreach_", "").partition(".")
    base = head.removesuffix("_")
    kind = {"List": "Tensor", "ScalarList": "Scalar"}.get(overload, overload)
    for wanted in (f"{head}.{kind}", head):
        if wanted in EMITTERS:
            return wanted
    return f"{base}.{kind}" if kind else base
