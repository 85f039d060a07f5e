"""Matrix products."""

from __future__ import annotations

import math
from typing import Any

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


def _einsum_rules(g: Any, equation: str, operands: list[Any], operands_shape: list[torch.Size]) -> list[Any]:
    """The gradient of each operand: g and the other operands contracted to its letters.

    A letter that only this operand has was summed away: its gradient is repeated along that dimension.
    """
    left, out = equation.split("->")
    terms = left.split(",")
    grads = []
    for i, (term, shape) in enumerate(zip(terms, operands_shape, strict=True)):
        others = [(t, x) for j, (t, x) in enumerate(zip(terms, operands, strict=True)) if j != i]
        known = set(out).union(*(t for t, _ in others))
        kept = "".join(c for c in term if c in known)
        inputs = ",".join([out, *(t for t, _ in others)])
        dx = either("einsum", [g, *(x for _, x in others)], f"{inputs}->{kept}")
        for position, c in enumerate(term):
            if c not in known:
                dx = dx.unsqueeze(position)
        grads.append(dx.expand(shape))
    return grads


@op(
    name="einsum",
    operands=lambda g, equation, operands, operands_shape: _einsum_rules(g, equation, operands, operands_shape),
)
def einsum_op(operands: Arrays, equation: str) -> Any:
    """`einsum` of an explicit equation whose terms repeat no letter: from the left, a pair at a time."""
    if not all(x.dtype in FLOATS and x.dtype is operands[0].dtype for x in operands):
        return torch.einsum(equation, *operands)
    left, out = equation.split("->")
    terms = left.split(",")
    term, x = terms[0], operands[0]
    for i in range(1, len(terms)):
        kept = set(out).union(*terms[i + 1 :])
        first = _summed(term, x, kept | set(terms[i]))
        term, x = _pair(*first, *_summed(terms[i], operands[i], kept | set(term)), kept)
    term, x = _summed(term, x, set(out))
    return x.permute([term.index(c) for c in out])


def _summed(term: str, x: torch.Tensor, kept: set[str]) -> tuple[str, torch.Tensor]:
    """Without the letters that are not kept, their dimensions summed over."""
    gone = [i for i, c in enumerate(term) if c not in kept]
    return ("".join(c for c in term if c in kept), _C.sum(x, gone, False)) if gone else (term, x)


def _pair(a: str, x: torch.Tensor, b: str, y: torch.Tensor, kept: set[str]) -> tuple[str, torch.Tensor]:
    """The product of two operands, summed over the letters of both that are not kept: a batch of matrix products."""
    both = [c for c in a if c in b]
    batch, inner = [c for c in both if c in kept], [c for c in both if c not in kept]
    rows, columns = [c for c in a if c not in b], [c for c in b if c not in a]
    size = dict(zip(a, x.shape, strict=True)) | dict(zip(b, y.shape, strict=True))

    def grouped(term: str, value: torch.Tensor, *groups: list[str]) -> torch.Tensor:
        """One dimension for each group of letters: their sizes' product."""
        shape = [math.prod(size[c] for c in group) for group in groups]
        return value.permute([term.index(c) for group in groups for c in group]).reshape(shape)

    if not inner:
        product = grouped(a, x, batch, rows, []) * grouped(b, y, batch, [], columns)
    elif not batch and not rows and not columns:
        product = _C.matmul(grouped(a, x, inner), grouped(b, y, inner))
    elif not rows and not columns:
        product = _C.sum(grouped(a, x, batch, inner) * grouped(b, y, batch, inner), [1], False)
    elif not batch:
        product = _C.matmul(grouped(a, x, rows, inner), grouped(b, y, inner, columns))
    else:
        product = _C.matmul(grouped(a, x, batch, rows, inner), grouped(b, y, batch, inner, columns))
    letters = [*batch, *rows, *columns]
    return "".join(letters), product.reshape([size[c] for c in letters])


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
    left, arrow, out = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise ShapeError(f"einsum: equation {equation!r} has {len(terms)} terms for {len(operands)} operands")
    values = [x if isinstance(x, Tensor) else Tensor(raw(x, "einsum", f"operand {i}")) for i, x in enumerate(operands)]
    free = [c for c in _LETTERS if c not in equation]
    wide = max(
        (x.ndim - len(t.replace("...", "")) for t, x in zip(terms, values, strict=True) if "..." in t), default=0
    )
    ellipsis = "".join(free[: max(wide, 0)])
    for i, (term, x) in enumerate(zip(terms, values, strict=True)):
        if "..." in term:
            count = x.ndim - len(term.replace("...", ""))
            term = term.replace("...", ellipsis[len(ellipsis) - count :] if count > 0 else "")
        if len(term) != x.ndim or not all(c.isascii() and c.isalpha() for c in term):
            raise ShapeError(
                f"einsum: term {i} of {equation!r} must name the {x.ndim} dimensions of operand {i}, "
                f"of shape {list(x.shape)}, by letters"
            )
        terms[i], values[i] = _without_repeats(term, x)
    if arrow:
        out = out.replace("...", ellipsis)
    else:
        letters = "".join(left.split(",")).replace(".", "")
        out = ellipsis + "".join(c for c in sorted(set(letters)) if letters.count(c) == 1)
    if len(set(out)) != len(out) or not set(out) <= set("".join(terms)):
        raise ShapeError(f"einsum: the output of {equation!r} must name letters of the terms, each once")
    return einsum_op(_without_ones(terms, values), f"{','.join(terms)}->{out}")


def _without_repeats(term: str, x: Tensor) -> tuple[str, Tensor]:
    """A term whose letters are all different: the diagonal of x for each repeated one."""
    for c in dict.fromkeys(term):
        while term.count(c) > 1:
            first = term.index(c)
            second = term.index(c, first + 1)
            if x.shape[first] != x.shape[second]:
                raise ShapeError(f"einsum: dimensions '{c}' of shape {list(x.shape)} must be equal")
            x = diagonal(x, 0, first, second)
            term = term[:first] + term[first + 1 : second] + term[second + 1 :] + c
    return term, x


def _without_ones(terms: list[str], values: list[Tensor]) -> list[Tensor]:
    """Operands whose size-1 dimensions are expanded where another operand's dimension of that letter is larger."""
    size: dict[str, int] = {}
    for term, x in zip(terms, values, strict=True):
        for c, n in zip(term, x.shape, strict=True):
            size[c] = n if size.get(c, 1) == 1 else size[c]
    wide = [
        [size[c] if n == 1 else n for c, n in zip(t, x.shape, strict=True)] for t, x in zip(terms, values, strict=True)
    ]
    return [x if list(x.shape) == shape else expand(x, shape) for x, shape in zip(values, wide, strict=True)]
