"""Matrix products."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ..core import _C, FLOATS, ArgumentError, Array, Arrays, ShapeError, Tensor, either, op, raw
from .elementwise import mul
from .shape import diagonal, expand, unsqueeze

__all__ = [
    "addmm",
    "baddbmm",
    "bmm",
    "dot",
    "einsum",
    "linear",
    "matmul",
    "mm",
    "mv",
    "outer",
]


def _matmul_input(g: Any, input_shape: torch.Size, other: Any) -> Any:
    """d(x @ y): g @ y.T, with vectors as one-row or one-column matrices; the call path sums broadcast dimensions."""
    if other.ndim == 1:  # [..., M, K] @ [K] or [K] @ [K]
        return g.unsqueeze(-1) * other
    if len(input_shape) == 1:  # [K] @ [..., K, N]
        return (g.unsqueeze(-2) @ other.mT).squeeze(-2)
    return g @ other.mT


def _matmul_other(g: Any, input: Any, other_shape: torch.Size) -> Any:
    """d(x @ y): x.T @ g, likewise."""
    if len(other_shape) == 1:
        return g * input if input.ndim == 1 else (input.mT @ g.unsqueeze(-1)).squeeze(-1)
    if input.ndim == 1:
        return input.unsqueeze(-1) * g.unsqueeze(-2)
    return input.mT @ g


@op(
    input=lambda g, input_shape, other: _matmul_input(g, input_shape, other),
    other=lambda g, input, other_shape: _matmul_other(g, input, other_shape),
    backward=lambda g, input, other, input_shape, other_shape, needs: _C.matmul_backward(
        g, input, other, input_shape, other_shape, *needs
    ),
)
def matmul(input: Array, other: Array) -> Any:
    """The matrix product ``y[..., i, j] = sum_k input[..., i, k] * other[..., k, j]``.

    Parameters
    ----------
    input : [..., M, K] or [K]
    other : [..., K, N] or [K]; leading dimensions broadcast

    Returns [..., M, N], without the dimensions that a vector argument lacks. Raises ShapeError where K differs.
    """
    return _C.matmul(input, other)


def _ranked(name: str, *arguments: tuple[str, Any, int]) -> None:
    """Every argument a tensor with as many dimensions as stated; else ShapeError."""
    for argument, value, ndim in arguments:
        value = raw(value, name, argument)
        got = value.ndim if isinstance(value, torch.Tensor) else 0
        if got != ndim:
            shape = list(getattr(value, "shape", ()))
            raise ShapeError(f"{name}: {argument} must have {ndim} dimensions; got shape {shape}")


def _inner(name: str, input: Any, other: Any, argument: str, dim: int) -> None:
    """The dimension summed over is as large in both; else ShapeError."""
    if input.shape[-1] != other.shape[dim]:
        raise ShapeError(
            f"{name}: {argument}.shape[{dim}] = {other.shape[dim]} must equal input.shape[-1] = {input.shape[-1]}"
        )


def mm(input: Any, mat2: Any) -> Tensor:
    """The product of two matrices: [M, K] and [K, N] give [M, N]."""
    _ranked("mm", ("input", input, 2), ("mat2", mat2, 2))
    _inner("mm", input, mat2, "mat2", 0)
    return matmul(input, mat2)


def bmm(input: Any, mat2: Any) -> Tensor:
    """A batch of matrix products: [B, M, K] and [B, K, N] give [B, M, N]."""
    _ranked("bmm", ("input", input, 3), ("mat2", mat2, 3))
    if input.shape[0] != mat2.shape[0]:
        raise ShapeError(f"bmm: mat2.shape[0] = {mat2.shape[0]} must equal input.shape[0] = {input.shape[0]}")
    _inner("bmm", input, mat2, "mat2", 1)
    return matmul(input, mat2)


def mv(input: Any, vec: Any) -> Tensor:
    """A matrix times a vector: [M, K] and [K] give [M]."""
    _ranked("mv", ("input", input, 2), ("vec", vec, 1))
    _inner("mv", input, vec, "vec", 0)
    return matmul(input, vec)


def dot(input: Any, tensor: Any) -> Tensor:
    """The inner product of two vectors: [K] and [K] give []."""
    _ranked("dot", ("input", input, 1), ("tensor", tensor, 1))
    _inner("dot", input, tensor, "tensor", 0)
    return matmul(input, tensor)


def outer(input: Any, vec2: Any) -> Tensor:
    """``y[i, j] = input[i] * vec2[j]``: [M] and [N] give [M, N]."""
    _ranked("outer", ("input", input, 1), ("vec2", vec2, 1))
    return mul(unsqueeze(input, 1), vec2)


def _scaled(x: Any, factor: float) -> Any:
    return x if factor == 1 else x * factor


def _added(input: Any, left: Any, right: Any, ndim: int) -> bool:
    """Whether the kernels take the three; torch computes integers, and says what is wrong with the others."""
    if not all(isinstance(x, torch.Tensor) and x.is_floating_point() for x in (input, left, right)):
        return False
    if left.ndim != ndim or right.ndim != ndim or left.shape[:-2] != right.shape[:-2]:
        return False
    full = (*left.shape[:-1], right.shape[-1])
    fits = len(input.shape) <= ndim and all(
        n in (1, whole) for n, whole in zip(reversed(input.shape), reversed(full), strict=False)
    )
    return fits and input.dtype is left.dtype is right.dtype and left.shape[-1] == right.shape[-2]


def _add_scaled(product: torch.Tensor, alpha: float, input: torch.Tensor, beta: float) -> torch.Tensor:
    """alpha * product + beta * input, in the product's memory; the input is not read where beta is 0."""
    if alpha != 1:
        product *= alpha
    if beta == 1:
        product += input
    elif beta != 0:
        product += input * beta
    return product


@op(
    input=lambda g, beta: _scaled(g, beta),
    mat1=lambda g, mat2, alpha: _scaled(either("matmul", g, mat2.mT), alpha),
    mat2=lambda g, mat1, alpha: _scaled(either("matmul", mat1.mT, g), alpha),
)
def addmm(input: Array, mat1: Array, mat2: Array, *, beta: float = 1, alpha: float = 1) -> Any:
    """``y = beta * input + alpha * mat1 @ mat2``: [M, K] and [K, N]; the input broadcasts to [M, N]."""
    if not _added(input, mat1, mat2, 2):
        return torch.addmm(input, mat1, mat2, beta=beta, alpha=alpha)
    return _add_scaled(_C.matmul(mat1, mat2), alpha, input, beta)


@op(
    input=lambda g, beta: _scaled(g, beta),
    batch1=lambda g, batch2, alpha: _scaled(either("matmul", g, batch2.mT), alpha),
    batch2=lambda g, batch1, alpha: _scaled(either("matmul", batch1.mT, g), alpha),
)
def baddbmm(input: Array, batch1: Array, batch2: Array, *, beta: float = 1, alpha: float = 1) -> Any:
    """``y = beta * input + alpha * batch1 @ batch2``: [B, M, K] and [B, K, N]; the input broadcasts to [B, M, N]."""
    if not _added(input, batch1, batch2, 3):
        return torch.baddbmm(input, batch1, batch2, beta=beta, alpha=alpha)
    return _add_scaled(_C.matmul(batch1, batch2), alpha, input, beta)


def _rows(x: Any) -> Any:
    """[..., K] as a matrix [M, K]."""
    return x.unsqueeze(0) if x.ndim == 1 else x.flatten(0, -2)


@op(
    input=lambda g, weight: either("matmul", g, weight),
    weight=lambda g, input: either("matmul", _rows(g).mT, _rows(input)),
    bias=lambda g: g,
    backward=lambda g, input, weight, needs: _C.linear_backward(g, input, weight, *needs),
)
def linear(input: Array, weight: Array, bias: Array | None = None) -> Any:
    """``y = x W^T + b``.

    Parameters
    ----------
    input : [..., in_features]
    weight : [out_features, in_features]
    bias : [out_features] or None

    Returns [..., out_features]. The backward kernel gives dX = g W, dW = g^T X and db = sum g in one call (report 3,
    equations 3 and 4).
    """
    if isinstance(input, torch.Tensor) and input.dtype not in FLOATS:
        return torch.nn.functional.linear(input, weight, bias)
    return _C.linear(input, weight, bias)


# --- einsum ------------------------------------------------------------------------------------------------------


@functools.lru_cache(1024)
def _einsum_gradients(equation: str) -> list[tuple[str, list[int]]]:
    """For each operand the equation of its gradient, which takes g and then the other operands, and where in it
    stand dimensions of 1: those of letters that only this operand has."""
    left, out = equation.split("->")
    terms = left.split(",")
    found = []
    for i, term in enumerate(terms):
        others = terms[:i] + terms[i + 1 :]
        known = set(out).union(*others)
        kept = "".join(c for c in term if c in known)
        found.append((f"{','.join([out, *others])}->{kept}", [k for k, c in enumerate(term) if c not in known]))
    return found


def _einsum_rules(g: Any, equation: str, operands: list[Any], operands_shape: list[torch.Size]) -> list[Any]:
    """The gradient of each operand: g and the other operands contracted to its letters.

    A letter that only this operand has was summed away: its gradient is repeated along that dimension.
    """
    grads = []
    for i, ((gradient, ones), shape) in enumerate(zip(_einsum_gradients(equation), operands_shape, strict=True)):
        dx = either("einsum", [g, *operands[:i], *operands[i + 1 :]], gradient)
        for position in ones:
            dx = dx.unsqueeze(position)
        grads.append(dx.expand(shape) if ones else dx)
    return grads


@op(
    name="einsum",
    operands=lambda g, equation, operands, operands_shape: _einsum_rules(g, equation, operands, operands_shape),
)
def einsum_op(operands: Arrays, equation: str) -> Any:
    """`einsum` of an explicit equation whose terms repeat no letter: from the left, a pair at a time."""
    dtype = operands[0].dtype
    if dtype not in FLOATS or any(x.dtype is not dtype for x in operands):
        return torch.einsum(equation, *operands)
    first, pairs, last = _einsum_plan(equation, tuple([x.shape for x in operands]))
    x = operands[0]
    if not pairs:
        x = _summed(x, first)
    for pair, y in zip(pairs, operands[1:], strict=True):
        x = pair.product(pair.left.of(x), pair.right.of(y))
        if pair.shape is not None:
            x = x.reshape(pair.shape)
    return x if last is None else x.permute(last)


def _summed(x: torch.Tensor, dims: list[int]) -> torch.Tensor:
    return _C.sum(x, dims, False) if dims else x


class _Side(NamedTuple):
    """An operand of a product: summed over dimensions, then permuted, then reshaped; None where that changes nothing"""

    sums: list[int]
    order: list[int] | None
    shape: list[int] | None

    def of(self, x: torch.Tensor) -> torch.Tensor:
        if self.sums:
            x = _C.sum(x, self.sums, False)
        if self.order is not None:
            x = x.permute(self.order)
        return x if self.shape is None else x.reshape(self.shape)


class _Pair(NamedTuple):
    left: _Side
    right: _Side
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    shape: list[int] | None  # of the result, where the product's is another


def _dotted(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # [B, K], [B, K] -> [B]
    return _C.sum(x * y, [1], False)


@functools.lru_cache(1024)
def _einsum_plan(equation: str, shapes: tuple[torch.Size, ...]) -> tuple[list[int], list[_Pair], list[int] | None]:
    """What a lone operand is summed over, the products of each next operand with the result so far, and the order of
    the result's dimensions."""
    left, out = equation.split("->")
    terms = left.split(",")
    term, pairs = terms[0], []
    size: dict[str, int] = {}
    for t, shape in zip(terms, shapes, strict=True):
        size.update(zip(t, shape, strict=True))
    for i in range(1, len(terms)):
        pair, term = _pair(term, terms[i], set(out).union(*terms[i + 1 :]), size)
        pairs.append(pair)
    sums = [i for i, c in enumerate(term) if c not in out]
    order = [[c for c in term if c in out].index(c) for c in out]
    fresh = bool(pairs or sums)  # else the result is a view of the operand, and not the operand
    return sums, pairs, None if fresh and order == sorted(order) else order


def _pair(a: str, b: str, kept: set[str], size: dict[str, int]) -> tuple[_Pair, str]:
    """The product of two operands, summed over the letters that are not kept: a batch of matrix products."""
    gone = [[i for i, c in enumerate(one) if c not in kept and c not in other] for one, other in ((a, b), (b, a))]
    a, b = ("".join(c for c in one if c in kept or c in other) for one, other in ((a, b), (b, a)))
    both = [c for c in a if c in b]
    batch, inner = [c for c in both if c in kept], [c for c in both if c not in kept]
    rows, columns = [c for c in a if c not in b], [c for c in b if c not in a]

    def side(term: str, sums: list[int], *groups: list[str]) -> _Side:
        """One dimension for each group of letters: their sizes' product."""
        order = [term.index(c) for group in groups for c in group]
        shape = [math.prod(size[c] for c in group) for group in groups]
        same = shape == [size[c] for group in groups for c in group]
        return _Side(sums, None if order == sorted(order) else order, None if same else shape)

    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = _C.matmul
    if not inner:
        product = torch.mul
        groups, result = ([batch, rows, []], [batch, [], columns]), [batch, rows, columns]
    elif not batch and not rows and not columns:
        groups, result = ([inner], [inner]), []
    elif not rows and not columns:
        product = _dotted
        groups, result = ([batch, inner], [batch, inner]), [batch]
    elif not batch:
        groups, result = ([rows, inner], [inner, columns]), [rows, columns]
    else:
        groups, result = ([batch, rows, inner], [batch, inner, columns]), [batch, rows, columns]
    letters = [*batch, *rows, *columns]
    same = all(len(group) == 1 for group in result)
    shape = None if same else [size[c] for c in letters]
    return _Pair(side(a, gone[0], *groups[0]), side(b, gone[1], *groups[1]), product, shape), "".join(letters)


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _lettered(given: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """Operands that are each followed by the numbers of their dimensions, as an equation."""
    paired = len(given) // 2 * 2
    terms = []
    for numbers in (*given[1:paired:2], *given[paired:]):
        fine = isinstance(numbers, list | tuple) and all(n is ... or (type(n) is int and 0 <= n < 52) for n in numbers)
        if not fine:
            raise ArgumentError(
                "einsum: expected an equation, or tensors each followed by a list of numbers from 0 to 51; "
                f"got {type(numbers).__name__}"
            )
        terms.append("".join("..." if n is ... else _LETTERS[n] for n in numbers))
    out = f"->{terms.pop()}" if len(given) > paired else ""
    return ",".join(terms) + out, given[:paired:2]


def einsum(equation: Any, *operands: Any) -> Tensor:
    """Products summed over named dimensions: ``einsum("bik,bkj->bij", a, b)``.

    Parameters
    ----------
    equation : a term of letters per operand, ``...`` for dimensions that broadcast; without ``->`` the output has the
        ellipsis, then the letters that occur once, alphabetically. A letter repeated in a term takes the diagonal
    operands : tensors, or one list of them

    Or, as in torch, tensors each followed by the numbers of its dimensions: ``einsum(a, [0, 1], b, [1, 2], [0, 2])``.
    """
    if not isinstance(equation, str):
        equation, operands = _lettered((equation, *operands))
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    values = [x if isinstance(x, Tensor) else Tensor(raw(x, "einsum", f"operand {i}")) for i, x in enumerate(operands)]
    explicit, changes = _explicit(equation, tuple([x.shape for x in values]))
    for i, diagonals, shape in changes:
        for first, second in diagonals:
            values[i] = diagonal(values[i], 0, first, second)
        if shape is not None:
            values[i] = expand(values[i], shape)
    return einsum_op(values, explicit)


_Change = tuple[int, list[tuple[int, int]], list[int] | None]


@functools.lru_cache(1024)
def _explicit(equation: str, shapes: tuple[torch.Size, ...]) -> tuple[str, list[_Change]]:
    """The equation with letters alone, an output, and no letter twice in a term; and what that makes of operands:
    (which, pairs of dimensions to take the diagonal of, the shape to expand to, or None)."""
    left, arrow, out = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise ShapeError(f"einsum: equation {equation!r} has {len(terms)} terms for {len(shapes)} operands")
    free = [c for c in _LETTERS if c not in equation]
    wide = max(
        (len(s) - len(t.replace("...", "")) for t, s in zip(terms, shapes, strict=True) if "..." in t), default=0
    )
    ellipsis = "".join(free[: max(wide, 0)])
    sizes, diagonals = [], []
    for i, (term, shape) in enumerate(zip(terms, shapes, strict=True)):
        if "..." in term:
            count = len(shape) - len(term.replace("...", ""))
            term = term.replace("...", ellipsis[len(ellipsis) - count :] if count > 0 else "")
        if len(term) != len(shape) or not all(c.isascii() and c.isalpha() for c in term):
            raise ShapeError(
                f"einsum: term {i} of {equation!r} must name the {len(shape)} dimensions of operand {i}, "
                f"of shape {list(shape)}, by letters"
            )
        terms[i], size, taken = _without_repeats(term, list(shape))
        sizes.append(size)
        diagonals.append(taken)
    if arrow:
        out = out.replace("...", ellipsis)
    else:
        letters = "".join(left.split(",")).replace(".", "")
        out = ellipsis + "".join(c for c in sorted(set(letters)) if letters.count(c) == 1)
    if len(set(out)) != len(out) or not set(out) <= set("".join(terms)):
        raise ShapeError(f"einsum: the output of {equation!r} must name letters of the terms, each once")
    wider = _without_ones(equation, terms, sizes)
    changes = [
        (i, taken, None if size == new else new)
        for i, (taken, size, new) in enumerate(zip(diagonals, sizes, wider, strict=True))
        if taken or size != new
    ]
    return f"{','.join(terms)}->{out}", changes


def _without_repeats(term: str, shape: list[int]) -> tuple[str, list[int], list[tuple[int, int]]]:
    """A term whose letters are all different, its sizes, and the dimensions that become a diagonal, one by one."""
    taken = []
    for c in dict.fromkeys(term):
        while term.count(c) > 1:
            first = term.index(c)
            second = term.index(c, first + 1)
            n = shape[first]
            if n != shape[second]:
                raise ShapeError(f"einsum: dimensions '{c}' of shape {shape} must be equal")
            taken.append((first, second))
            term = term[:first] + term[first + 1 : second] + term[second + 1 :] + c
            shape = [*shape[:first], *shape[first + 1 : second], *shape[second + 1 :], n]
    return term, shape, taken


def _without_ones(equation: str, terms: list[str], sizes: list[list[int]]) -> list[list[int]]:
    """The sizes, where those of 1 are as large as another operand's dimension of that letter."""
    size: dict[str, int] = {}
    for i, (term, shape) in enumerate(zip(terms, sizes, strict=True)):
        for c, n in zip(term, shape, strict=True):
            known = size.setdefault(c, n)
            if 1 not in (n, known) and n != known:
                raise ShapeError(
                    f"einsum: dimension '{c}' of {equation!r} is {known}, but {n} in operand {i}, of shape {shape}"
                )
            size[c] = n if known == 1 else known
    return [
        [size[c] if n == 1 else n for c, n in zip(t, shape, strict=True)] for t, shape in zip(terms, sizes, strict=True)
    ]
