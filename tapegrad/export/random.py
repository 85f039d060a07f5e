"""Random numbers: csrc/kernels/random.cpp."""

from __future__ import annotations

from typing import Any

import torch

from .table import Instruction, Symbol, emits
from .values import TYPES, Value, literal
from .writer import Writer


def _wide(place: Any) -> str:
    """A seed or an offset: of the struct's generator, or of one that the step makes anew."""
    return place.text if isinstance(place, Symbol) else f"UINT64_C({int(place) % 2**64})"


def _blocks(w: Writer, out: Value, each: int, seed: Any, offset: Any, element: Any) -> None:
    """element(index, word's place) for all elements, ``each`` to a block of four words."""
    philox = w.library.philox()
    n = out.numel
    w("uint32_t word[4];")
    with w.loop(-(-n // each), 0, w.index()) as block:
        w(f"{philox}({_wide(offset)} + (uint64_t){block}, {_wide(seed)}, word);")
        first = f"{block} * {each}"
        last = f"{each}" if n % each == 0 else f"({n} - {first} < {each} ? {n} - {first} : {each})"
        with w.loop(last, 0, w.index()) as k:
            element(f"{first} + {k}", k)


@emits("dropout")
def dropout(w: Writer, x: Instruction) -> None:
    """x / (1 - p) where a word lies below (1 - p) 2^32, else 0"""
    p, out = float(x[1]), x.out
    below = int((1 - p) * 2**32)
    if not below:
        with w.over(x.out.sizes, x.out, x[0]) as (to, one):
            w(f"{to.element} = {one.element} * 0;")
        return
    given, scale = x[0], literal(1 / (1 - p), x.dtype)

    def element(i: str, k: str) -> None:
        keep = f"word[{k}] <= {below - 1}u ? {scale} : 0"
        w(f"{out.flat_at(i)} = {given.flat_at(i)} * ({keep});")

    _blocks(w, out, 4, x[2], x[3], element)


@emits("random_bernoulli")
def bernoulli(w: Writer, x: Instruction) -> None:
    below, out = int(float(x[0]) * 2**32), x.out

    def element(i: str, k: str) -> None:
        w(f"{out.flat_at(i)} = {f'word[{k}] < {below}u' if 0 < below < 2**32 else int(below > 0)};")

    _blocks(w, out, 4, x[2], x[3], element)


@emits("random_uniform")
def uniform(w: Writer, x: Instruction) -> None:
    out = x.out

    def single(i: str, k: str) -> None:
        w(f"{out.flat_at(i)} = (float)(word[{k}] >> 8) * 0x1p-24f;")

    def double(i: str, k: str) -> None:
        wide = f"((uint64_t)word[2 * {k} + 1] << 32 | word[2 * {k}])"
        w(f"{out.flat_at(i)} = (double)({wide} >> 11) * 0x1p-53;")

    wide = x.dtype == torch.float64
    _blocks(w, out, 2 if wide else 4, x[2], x[3], double if wide else single)


@emits("random_normal")
def normal(w: Writer, x: Instruction) -> None:
    """Box and Muller's, on pairs of words."""
    out, wide = x.out, x.dtype == torch.float64
    kind, dtype = TYPES[x.dtype], x.dtype
    pair = "((uint64_t)word[{b}] << 32 | word[{a}]) >> 11"

    def element(i: str, k: str) -> None:
        if wide:
            u, v = f"(double)({pair.format(a=0, b=1)}) + 1", f"(double)({pair.format(a=2, b=3)})"
            unit, turn = "0x1p-53", "(0x1p-53 * 6.283185307179586)"
        else:
            u, v = f"(double)word[{k} / 2 * 2] + 1", f"(double)word[{k} / 2 * 2 + 1]"
            unit, turn = "0x1p-32", "(0x1p-32 * 6.283185307179586)"
        w(f"const {kind} u = ({kind})(({u}) * {unit}), angle = ({kind})({v} * {turn});")
        radius = w.call("sqrt", dtype, f"-2 * {w.call('log', dtype, 'u')}")
        wave = f"{k} % 2 ? {w.call('sin', dtype, 'angle')} : {w.call('cos', dtype, 'angle')}"
        w(f"{out.flat_at(i)} = {radius} * ({wave});")

    _blocks(w, out, 2 if wide else 4, x[2], x[3], element)
