"""torch's operators as direct instructions: the bits of torch's own call, for every layout, in place or not."""

import itertools
import math

import pytest
import torch

from tapegrad.core import _C

aten = torch.ops.aten
FLOATS = (torch.float32, torch.float64)
SPECIAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-40, -1.5, 0.5, 2.0, -2.0, 3.0, 1e30]


def values(n, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    if dtype is torch.bool:
        return torch.rand(n, generator=generator) < 0.5
    if dtype is torch.int64:
        return torch.randint(-3, 4, (n,), generator=generator)
    drawn = torch.randn(n, generator=generator, dtype=dtype)
    special = torch.tensor(SPECIAL, dtype=dtype)[torch.randint(0, len(SPECIAL), (n,), generator=generator)]
    return torch.where(torch.rand(n, generator=generator) < 0.5, special, drawn)


def laid_out(shape, dtype, layout, seed=0):
    """Values of a shape in memory of a layout."""
    n = math.prod(shape)
    if layout == "contiguous":
        return values(n, dtype, seed).reshape(shape)
    if layout == "columns":
        return values(n, dtype, seed).reshape(shape[::-1]).permute(*range(len(shape))[::-1])
    if layout == "part":
        big = values(math.prod([2 * s + 1 for s in shape]), dtype, seed).reshape([2 * s + 1 for s in shape])
        return big[tuple(slice(1, 2 * s + 1, 2) for s in shape)]
    if layout == "first":  # broadcasts along the first dimension
        return values(math.prod(shape[1:]), dtype, seed).reshape(1, *shape[1:])
    if layout == "last":
        return values(math.prod(shape[:-1]), dtype, seed).reshape(*shape[:-1], 1)
    if layout == "expanded":
        return values(shape[-1], dtype, seed).expand(shape)
    assert layout == "one"
    return values(1, dtype, seed)[0]


LAYOUTS = ("contiguous", "columns", "part", "first", "last", "expanded", "one")
DENSE = ("contiguous", "columns", "part")
SHAPES = ((3, 4), (2, 3, 5), (7,), (1, 4), (0, 3), (), (2, 1, 3, 2, 2))


class Program:
    """One instruction on views of outside memory."""

    def __init__(self):
        self.executor = _C.Executor(64)
        self.slots = {}

    def view(self, t):
        memory = torch.empty(0, dtype=torch.uint8).set_(t.untyped_storage())
        slot = self.slots.setdefault(t.untyped_storage()._cdata, None)
        if slot is None:
            slot = self.slots[t.untyped_storage()._cdata] = self.executor.add_outside(memory, True)
        return self.executor.view(slot, t.dtype, t.storage_offset(), list(t.shape), list(t.stride()))

    def given(self, value):
        if isinstance(value, torch.Tensor):
            return self.view(value)
        return [self.given(v) for v in value] if isinstance(value, list) and value else value

    def run(self, name, arguments, outs):
        index = self.executor.add_direct(name, tuple(map(self.given, arguments)), [self.view(out) for out in outs])
        if index is not None:
            self.executor.step([], [], [], [], [], [])
        return index


def name_of(operator):
    schema = operator._schema
    return schema.name + (f".{schema.overload_name}" if schema.overload_name else "")


def same(a, b):
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    whole = torch.int32 if a.dtype is torch.float32 else torch.int64
    nan = a.isnan() & b.isnan()  # of whatever payload
    return torch.equal(a.contiguous().view(whole).masked_fill(nan, 0), b.contiguous().view(whole).masked_fill(nan, 0))


def check(operator, *arguments, out_layout="contiguous"):
    expected = operator(*arguments)
    many = isinstance(expected, tuple)
    results = [torch.empty_like(e, memory_format=torch.contiguous_format) for e in (expected if many else (expected,))]
    if out_layout != "contiguous":
        results = [laid_out(tuple(r.shape), r.dtype, out_layout) if r.ndim else r for r in results]
    assert Program().run(name_of(operator), arguments, results) is not None, "there is no direct form"
    for got, wanted in zip(results, expected if many else (expected,), strict=True):
        assert same(got, wanted)


def check_in_place(operator, first, *others):
    copy = first.clone(memory_format=torch.preserve_format)
    program = Program()
    assert program.run(name_of(operator), (first, *others), []) is not None, "there is no direct form"
    operator(copy, *[copy if other is first else other for other in others])
    assert same(first, copy)


BINARY = [aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor]
IN_PLACE = [aten.add_.Tensor, aten.sub_.Tensor, aten.mul_.Tensor, aten.div_.Tensor]
COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]
UNARY = [aten.neg.default, aten.abs.default, aten.reciprocal.default, aten.sign.default]
POWERS = [1, 2, 3, -1, -2]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("operator", BINARY, ids=name_of)
@pytest.mark.parametrize(("a", "b"), list(itertools.product(LAYOUTS, LAYOUTS)))
def test_arithmetic(operator, dtype, a, b):
    for shape in SHAPES:
        if shape == () and (a, b) != ("one", "one"):
            continue
        x, y = laid_out(shape, dtype, a, 1), laid_out(shape, dtype, b, 2)
        for out in DENSE if x.shape or y.shape else ("contiguous",):
            check(operator, x, y, out_layout=out)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("operator", IN_PLACE, ids=name_of)
@pytest.mark.parametrize("layout", DENSE)
def test_arithmetic_in_place(operator, dtype, layout):
    for shape, other in itertools.product(((3, 4), (2, 3, 5), (7,)), LAYOUTS):
        check_in_place(operator, laid_out(shape, dtype, layout, 1), laid_out(shape, dtype, other, 2))
    x = laid_out((4, 6), dtype, "contiguous")
    check_in_place(operator, x[:, :3], x[:, 3:].clone())
    y = laid_out((6,), dtype, "contiguous")
    check_in_place(operator, y, y)


def test_memory_that_lies_over_each_other_is_left_to_torch():
    x = laid_out((6, 6), torch.float32, "contiguous")
    assert Program().run("aten::add_.Tensor", (x, x.t()), []) is None
    assert Program().run("aten::mul_.Tensor", (x[1:], x[:-1]), []) is None
    assert Program().run("aten::neg", (x[1:],), [x[:-1]]) is None
    assert Program().run("aten::copy_", (x[0].expand(3, 6), x[1:4]), []) is None  # written to several times


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("operator", [*UNARY, *POWERS], ids=lambda o: name_of(o) if hasattr(o, "_schema") else str(o))
def test_functions_of_one_number(operator, dtype):
    for shape, layout, out in itertools.product(SHAPES, DENSE, DENSE):
        x = laid_out(shape, dtype, layout if shape else "contiguous")
        arguments = (x,) if hasattr(operator, "_schema") else (x, operator)
        call = operator if hasattr(operator, "_schema") else aten.pow.Tensor_Scalar
        check(call, *arguments, out_layout=out if shape else "contiguous")


@pytest.mark.parametrize(("dtype", "whole"), [(torch.float32, torch.int32), (torch.float64, torch.int64)], ids=str)
def test_all_patterns_of_bits(dtype, whole):
    """torch's own functions may round otherwise than IEEE's: those that do (sqrt) have no direct form."""
    generator = torch.Generator().manual_seed(0)
    ends = torch.iinfo(whole)
    bits = torch.randint(ends.min, ends.max, (2, 30000), dtype=whole, generator=generator)
    for x, y in (bits.view(dtype), torch.randn(2, 30000, dtype=dtype, generator=generator)):
        for operator in UNARY:
            check(operator, x)
        for exponent in POWERS:
            check(aten.pow.Tensor_Scalar, x, exponent)
        for operator in BINARY:
            check(operator, x, y)
            check(operator, x.view(150, 200).t(), y[:200, None])


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64], ids=str)
@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(name, dtype):
    for shape, a, b in itertools.product(((3, 4), (7,), (0, 3)), LAYOUTS, LAYOUTS):
        check(getattr(aten, name).Tensor, laid_out(shape, dtype, a, 1), laid_out(shape, dtype, b, 2))
    for number in (0, 1, -2, *(() if dtype is torch.int64 else (0.5, 0.1, math.inf, math.nan))):
        for layout in DENSE:
            check(getattr(aten, name).Scalar, laid_out((3, 4), dtype, layout), number)


def test_a_number_that_changes_the_dtype_is_left_to_torch():
    x = torch.arange(4)
    assert Program().run("aten::lt.Scalar", (x, 1.5), [torch.empty(4, dtype=torch.bool)]) is None


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.5, None), (None, 0.1), (2, -2), (0.0, 0.0), (-math.inf, 1)])
def test_clamp(dtype, low, high):
    for shape, layout in itertools.product(SHAPES, DENSE):
        check(aten.clamp.default, laid_out(shape, dtype, layout if shape else "contiguous"), low, high)
    check_in_place(aten.clamp_.default, laid_out((3, 4), dtype, "columns"), low, high)


@pytest.mark.parametrize("name", ["bitwise_and.Tensor", "bitwise_or.Tensor", "bitwise_xor.Tensor"])
def test_truth_values(name):
    name, overload = name.split(".")
    for a, b in itertools.product(LAYOUTS, LAYOUTS):
        x, y = laid_out((3, 4), torch.bool, a, 1), laid_out((3, 4), torch.bool, b, 2)
        check(getattr(getattr(aten, name), overload), x, y)
        if name != "bitwise_xor":
            check(getattr(aten, name.replace("bitwise", "logical")).default, x, y)
    for layout in DENSE:
        check(aten.bitwise_not.default, laid_out((3, 4), torch.bool, layout))
        check(aten.logical_not.default, laid_out((3, 4), torch.bool, layout))


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64], ids=str)
def test_where(dtype):
    for shape, mask, a, b in itertools.product(((3, 4), (2, 3, 5)), LAYOUTS, LAYOUTS, ("contiguous", "part", "one")):
        condition = laid_out(shape, torch.bool, mask, 3)
        check(aten.where.self, condition, laid_out(shape, dtype, a, 1), laid_out(shape, dtype, b, 2))
    if dtype is torch.int64:
        return
    for mask, layout in itertools.product(LAYOUTS, DENSE):
        masked = laid_out((3, 4), torch.bool, mask, 3)
        x = laid_out((3, 4), dtype, layout, 1)
        check(aten.masked_fill.Scalar, x, masked, -math.inf)
        check(aten.masked_fill.Tensor, x, masked, torch.tensor(2.5, dtype=dtype))
        check_in_place(aten.masked_fill_.Scalar, x, masked, 7)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.bool, torch.int32], ids=str)
def test_moves(dtype):
    kind = torch.int64 if dtype is torch.int32 else dtype
    for shape, layout in itertools.product(SHAPES, LAYOUTS):
        if not shape and layout != "contiguous":
            continue
        x = laid_out(shape, kind, layout).to(dtype)
        for out in DENSE if shape else ("contiguous",):
            check(aten.clone.default, x, out_layout=out) if dtype is not torch.int32 else check(aten.clone.default, x)
    for layout, other in itertools.product(DENSE, LAYOUTS):
        if dtype is not torch.int32:
            check_in_place(aten.copy_.default, laid_out((3, 4), dtype, layout, 1), laid_out((3, 4), dtype, other, 2))
    parts = [
        laid_out((2, n, 3), kind, layout, n).to(dtype) for n, layout in ((1, "part"), (4, "columns"), (2, "contiguous"))
    ]
    check(aten.cat.default, parts, 1)
    check(aten.cat.default, [torch.empty(0, dtype=dtype), *parts], -2)
    check(aten.stack.default, [p[:, 0] for p in parts], 1)
    check(aten.stack.default, [p[0, 0, 0] for p in parts], 0)
    check_in_place(aten.zero_.default, laid_out((3, 4), kind, "contiguous").to(dtype))


@pytest.mark.parametrize("a", [*FLOATS, torch.int64, torch.bool], ids=str)
@pytest.mark.parametrize("b", [*FLOATS, torch.int64], ids=str)
def test_conversions(a, b):
    for layout in DENSE:
        x = laid_out((3, 4), a, layout)
        out = torch.empty(3, 4, dtype=b)
        made = Program().run("aten::_to_copy", (x, b, None, None, None, False, None), [out])
        if a.is_floating_point and not b.is_floating_point:
            assert made is None
        else:
            assert same(out, x.to(b))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_padding(dtype):
    for pad, value, layout in itertools.product(([0, 1], [2, 0, 1, 3], [0, 0]), (0, 1.5), LAYOUTS):
        x = laid_out((3, 4), dtype, layout)
        if x.ndim == 2:
            check(aten.constant_pad_nd.default, x, pad, value)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64], ids=str)
def test_gathering(dtype):
    generator = torch.Generator().manual_seed(0)
    for layout, dim in itertools.product(DENSE, (0, 1, -1)):
        x = laid_out((4, 5), dtype, layout)
        for shape in ((4, 1), (2, 3), (4, 5), (1, 5)):
            index = torch.randint(0, 4, shape, generator=generator)
            check(aten.gather.default, x, dim, index)
            check(aten.gather.default, x, dim, index.t().contiguous().t())
    x = laid_out((6, 3), dtype, "contiguous")
    for shape in ((5,), (2, 4), (), (0,)):
        index = torch.randint(0, 6, shape, generator=generator)
        check(aten.embedding.default, x, index)
        check(aten.index.Tensor, x, [index])
        check(aten.index.Tensor, x, [-1 - index])
    if dtype.is_floating_point:
        for layout in DENSE:
            index = torch.randint(0, 5, (4, 1), generator=generator)
            check(
                aten.scatter_add.default, laid_out((4, 5), dtype, layout), 1, index, laid_out((4, 1), dtype, "part", 2)
            )


@pytest.mark.parametrize(("name", "index"), [("gather", 5), ("gather", -1), ("scatter_add", 5), ("embedding", 4)])
def test_an_index_outside_is_an_error(name, index):
    x = torch.ones(4, 5)
    arguments = {
        "gather": (x, 1, torch.tensor([[index]] * 4)),
        "scatter_add": (x, 1, torch.tensor([[index]] * 4), torch.ones(4, 1)),
        "embedding": (x, torch.tensor([index])),
    }[name]
    out = (
        torch.empty_like(x)
        if name == "scatter_add"
        else torch.empty(1, 5)
        if name == "embedding"
        else torch.empty(4, 1)
    )
    with pytest.raises(IndexError, match="out of bounds"):
        Program().run(f"aten::{name}", arguments, [out])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_maximum_and_its_place(dtype):
    for layout, dim, keep in itertools.product(DENSE, (0, 1, -1), (False, True)):
        check(aten.max.dim, laid_out((4, 5), dtype, layout), dim, keep)
    check(aten.max.dim, torch.zeros(3, 4, dtype=dtype), 1, False)  # the first of equal ones
    check(aten.max.dim, laid_out((5,), dtype, "contiguous"), 0, False)


def test_all_along_a_dimension():
    for layout, dim, keep in itertools.product(DENSE, (0, 1, -1), (False, True)):
        check(aten.all.dim, laid_out((4, 5), torch.bool, layout) | (torch.arange(4)[:, None] < 2), dim, keep)
    check(aten.all.dim, torch.ones(3, 0, dtype=torch.bool), 1, False)


@pytest.mark.parametrize("operator", [*BINARY[:3], *IN_PLACE[:3]], ids=name_of)
def test_arithmetic_of_integers(operator):
    for a, b in itertools.product(DENSE, LAYOUTS):
        x, y = laid_out((3, 4), torch.int64, a, 1), laid_out((3, 4), torch.int64, b, 2)
        for other in (y, 3, -1):
            (check_in_place if operator in IN_PLACE else check)(operator, x, other)
    counter = torch.tensor(2**63 - 1)
    if operator in IN_PLACE:
        check_in_place(operator, counter, 1)  # wraps


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_many_tensors_by_one_number(dtype):
    tensors = [laid_out(shape, dtype, "contiguous", len(shape)) for shape in ((3, 4), (5,), ())]
    copies = [t.clone() for t in tensors]
    factor = torch.tensor(0.3, dtype=dtype)
    assert Program().run("aten::_foreach_mul_.Tensor", (tensors, factor), []) is not None
    torch._foreach_mul_(copies, factor)
    assert all(same(a, b) for a, b in zip(tensors, copies, strict=True))


def test_large_tensors_are_left_to_torch():
    x = torch.ones(1 << 16)
    assert Program().run("aten::abs", (x,), [torch.empty_like(x)]) is None
