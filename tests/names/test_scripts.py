"""What torch's scripts ask besides: devices, flags, types by older names, loaders, functions without gradient."""

import itertools

import pytest
import torch

import tapegrad as tg
from tapegrad.ops import without_gradient

# --- devices -----------------------------------------------------------------------------------------------------


def test_the_usual_choice_of_a_device_is_the_cpu():
    device = tg.device("cuda" if tg.cuda.is_available() else "mps" if tg.backends.mps.is_available() else "cpu")
    assert device == torch.device("cpu")
    x = tg.zeros(2, 3, device=device).to(device).cpu()
    assert x.device == device
    assert not x.is_cuda
    assert tg.accelerator.current_accelerator() is None
    assert tg.cuda.device_count() == tg.accelerator.device_count() == 0


def test_a_device_that_is_not_there_is_refused_by_name():
    makers = [
        lambda: tg.zeros(2, device="cuda"),
        lambda: tg.randn(2, device="cuda"),
        lambda: tg.randn_like(tg.ones(2), device="cuda"),
        lambda: tg.randperm(2, device="cuda:0"),
        lambda: tg.ones(2).to("cuda"),
        lambda: tg.ones(2).cuda(),
        lambda: tg.ones(2).new_zeros(3, device="mps"),
        lambda: tg.nn.Linear(1, 1, device="cuda"),
    ]
    for make in makers:
        with pytest.raises(tg.DTypeError, match=r"cuda|mps"):
            make()
    with pytest.raises(tg.StateError, match=r"cuda\.current_device: there is no CUDA device"):
        tg.cuda.current_device()
    with pytest.raises(tg.StateError, match=r"cuda\.FloatTensor"):
        tg.cuda.FloatTensor(2)


def test_one_process_is_all_there_is():
    assert not tg.distributed.is_initialized()
    with pytest.raises(tg.StateError, match="DistributedDataParallel"):
        tg.nn.parallel.DistributedDataParallel(tg.nn.Linear(1, 1))
    inner = tg.nn.Linear(2, 3)
    wrapped = tg.nn.DataParallel(inner)
    assert list(wrapped.state_dict()) == ["module.weight", "module.bias"]
    x = tg.randn(4, 2)
    assert torch.equal(wrapped(x).data, inner(x).data)


def test_flags_are_kept():
    import tapegrad.backends.cudnn as cudnn

    assert cudnn is tg.backends.cudnn
    before = cudnn.benchmark
    cudnn.benchmark = True
    assert tg.backends.cudnn.benchmark
    cudnn.benchmark = before
    tg.backends.cuda.matmul.allow_tf32 = False
    tg.cuda.manual_seed_all(3)
    tg.cuda.empty_cache()
    tg.cuda.synchronize()


def test_mixed_precision_is_off_and_says_so_once():
    x = tg.tensor([2.0], requires_grad=True)
    optimizer = tg.optim.SGD([x], lr=0.5)
    scaler = tg.cuda.amp.GradScaler(enabled=False)
    with tg.amp.autocast("cuda", enabled=False):
        loss = (x * x).sum()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert x.tolist() == [0.0]
    tg.amp.autocast._said = False
    with pytest.warns(RuntimeWarning, match="autocast: tapegrad computes in float32"), tg.autocast("cpu", tg.bfloat16):
        assert (tg.ones(2, 2) @ tg.ones(2, 2)).dtype is tg.float32
    with tg.autocast("cpu"):  # said once
        assert not tg.is_autocast_enabled()


# --- types -------------------------------------------------------------------------------------------------------

TYPES = ["FloatTensor", "DoubleTensor", "LongTensor", "IntTensor", "ShortTensor", "CharTensor", "ByteTensor"]


@pytest.mark.parametrize("name", [*TYPES, "BoolTensor"])
def test_constructors_by_dtype(name):
    ours, theirs = getattr(tg, name), getattr(torch, name)
    assert ours(2, 3).shape == theirs(2, 3).shape
    made, expected = ours([[1, 0], [3, 4]]), theirs([[1, 0], [3, 4]])
    assert made.dtype is expected.dtype
    assert torch.equal(made.data, expected)
    assert isinstance(made, ours)
    assert not isinstance(tg.ones(1, dtype=tg.int64 if made.dtype is not tg.int64 else tg.int32), ours)
    assert made.type() == expected.type()
    for target in (ours, made.dtype, f"torch.{name}"):
        assert tg.tensor([0, 1, 2]).type(target).dtype is expected.dtype
        assert torch.tensor([0, 1, 2]).type(target).dtype is expected.dtype


def test_a_type_conversion_is_recorded():
    x = tg.ones(2, requires_grad=True)
    (x.type(tg.DoubleTensor) * 3).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]


def test_new_tensors_have_the_tensors_dtype():
    for dtype in (torch.float64, torch.int64):
        x, y = tg.ones(1, dtype=dtype), torch.ones(1, dtype=dtype)
        for name, args in [("zeros", (2, 3)), ("ones", ((2,),)), ("full", ((2, 2), 7)), ("tensor", ([1, 2],))]:
            made, expected = getattr(x, f"new_{name}")(*args), getattr(y, f"new_{name}")(*args)
            assert made.dtype is expected.dtype
            assert torch.equal(made.data, expected)
        assert x.new_empty(4, 2).shape == (4, 2)


def test_variables_are_tensors():
    x = tg.ones(2, requires_grad=True)
    v = tg.autograd.Variable(x * 2, requires_grad=True)
    assert isinstance(v, tg.autograd.Variable)
    assert isinstance(x, tg.autograd.Variable)
    assert v.is_leaf
    (v * 3).sum().backward()
    assert v.grad.tolist() == [3.0, 3.0]
    assert x.grad is None
    assert tg.autograd.Variable(torch.ones(2)).requires_grad is False


def test_autograd_backward_adds_up_and_can_be_restricted():
    x, y = (tg.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    a, b = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([1.0, 2.0], requires_grad=True)
    for library, p, q in ((tg, x, y), (torch, a, b)):
        product = p * q
        library.autograd.backward([product.sum(), product], [None, library.ones(2)])
        library.autograd.backward((p * q).sum(), inputs=[q])
    assert x.grad.tolist() == a.grad.tolist()
    assert y.grad.tolist() == b.grad.tolist()


# --- settings ----------------------------------------------------------------------------------------------------


def test_the_default_dtype_is_torchs():
    before = tg.get_default_dtype()
    try:
        tg.set_default_dtype(tg.float64)
        assert tg.zeros(1).dtype is tg.randn(1).dtype is tg.nn.Linear(1, 1).weight.dtype is tg.float64
        tg.set_default_tensor_type(tg.FloatTensor)
        assert tg.zeros(1).dtype is tg.float32
    finally:
        tg.set_default_dtype(before)
    with pytest.raises(tg.DTypeError, match="set_default_tensor_type"):
        tg.set_default_tensor_type(tg.LongTensor)


def test_the_state_of_the_generator_comes_back():
    state = tg.get_rng_state()
    first = tg.rand(5)
    tg.set_rng_state(state)
    assert torch.equal(tg.rand(5).data, first.data)


def test_inference_mode_records_nothing():
    x = tg.ones(1, requires_grad=True)
    with tg.inference_mode():
        assert not (x * 2).requires_grad
    assert tg.inference_mode(lambda: (x * 2).requires_grad)() is False
    assert tg.inference_mode()(lambda: (x * 2).requires_grad)() is False
    with tg.inference_mode(False):
        assert (x * 2).requires_grad


# --- functions without a gradient --------------------------------------------------------------------------------

V, I = torch.tensor([0.5, -1.0, 0.0, 2.0, 2.0]), torch.tensor([3, 0, 3, 1])  # noqa: E741
CASES = {
    "allclose": [(V, V + 1e-9), (V, V + 1)],
    "bincount": [(I,), (I, V[:4])],
    "bucketize": [(V, torch.tensor([-1.0, 0.0, 1.0]))],
    "can_cast": [(torch.float32, torch.int64)],
    "cartesian_prod": [(I, I)],
    "combinations": [(V, 2)],
    "count_nonzero": [(V,), (V.reshape(5, 1), 0)],
    "equal": [(V, V.clone()), (V, V[:3])],
    "heaviside": [(V, torch.tensor(0.5))],
    "histc": [(V, 4, -1, 3)],
    "histogram": [(V, 4)],
    "isclose": [(V, V + 1e-9)],
    "isin": [(I, torch.tensor([1, 3]))],
    "isneginf": [(torch.tensor([1.0, -torch.inf]),)],
    "isposinf": [(torch.tensor([1.0, torch.inf]),)],
    "isreal": [(V,)],
    "nonzero": [(V,), (V.reshape(1, 5),)],
    "argwhere": [(V.reshape(1, 5),)],
    "promote_types": [(torch.float32, torch.int64)],
    "result_type": [(V, 2)],
    "searchsorted": [(torch.tensor([0.0, 1.0, 2.0]), V)],
    "signbit": [(torch.tensor([0.0, -0.0, -1.0]),)],
    "tril_indices": [(3, 3)],
    "triu_indices": [(3, 4)],
    "unique": [(I,)],
    "unique_consecutive": [(V,)],
    "vander": [(V,)],
    "hamming_window": [(5,)],
    "hann_window": [(5,)],
    "from_dlpack": [(V,)],
    "histogramdd": [],  # a nest of edges: test_memory_of_others_and_sizes_by_name
    "nonzero_static": [],  # by name: test_memory_of_others_and_sizes_by_name
    "bartlett_window": [(5,)],
    "blackman_window": [(5,)],
    "kaiser_window": [(5,)],
    "bitwise_left_shift": [(I, torch.tensor(2))],
    "bitwise_right_shift": [(I, torch.tensor(1))],
    "gcd": [(I, torch.tensor(6))],
    "lcm": [(I, torch.tensor(6))],
    "unravel_index": [(I, (2, 2))],
}


def plain(value):
    """Results as torch has them."""
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return value.data if isinstance(value, tg.Tensor) else value


@pytest.mark.parametrize("name", without_gradient.__all__)
def test_functions_without_gradient_are_torchs(name):
    for args in CASES[name]:
        given = [tg.Tensor(a) if isinstance(a, torch.Tensor) else a for a in args]
        ours, theirs = plain(getattr(tg, name)(*given)), getattr(torch, name)(*args)
        pairs = zip(ours, theirs, strict=True) if isinstance(theirs, tuple) else [(ours, theirs)]
        assert all(torch.equal(a, b) if isinstance(b, torch.Tensor) else a == b for a, b in pairs)


def test_memory_of_others_and_sizes_by_name():
    words = bytearray(torch.arange(4, dtype=torch.int64).numpy().tobytes())
    shared = tg.frombuffer(words, dtype=tg.int64, count=2, offset=8)
    words[8] = 7
    assert shared.tolist() == [7, 2]
    with pytest.raises(tg.DTypeError, match="float16"):
        tg.frombuffer(words, dtype=tg.float16)
    assert tg.nonzero_static(tg.tensor([0, 2, 3]), size=3, fill_value=-1).tolist() == [[1], [2], [-1]]
    with pytest.warns(UserWarning, match="range is deprecated"):
        assert tg.range(0, 4, 2).tolist() == [0.0, 2.0, 4.0]
    counts, edges = tg.histogramdd(tg.tensor([[0.0, 1.0], [1.0, 3.0]]), [1, 2])
    assert counts.tolist() == [[1.0, 1.0]]
    assert edges[1].tolist() == [1.0, 2.0, 3.0]
    assert tg.empty_permuted((2, 3), (1, 0)).stride() == (1, 2)


def test_their_arguments_may_need_a_gradient():
    x = tg.tensor([0.0, 3.0], requires_grad=True)
    assert x.nonzero().tolist() == [[1]]
    assert tg.unique(x * 2).requires_grad is False
    with pytest.raises(tg.ShapeError, match="bincount"):
        tg.bincount(tg.ones(2, 2, dtype=tg.int64))


def test_cross_is_torchs():
    for shape, other, dim in [((2, 3), (1, 3), 1), ((3, 4), (3, 4), None), ((0, 3), (0, 3), -1)]:
        a, b = torch.randn(shape, dtype=torch.float64), torch.randn(other, dtype=torch.float64)
        expected = torch.linalg.cross(a, b, dim=0 if dim is None else dim)
        # differences of products
        torch.testing.assert_close(tg.cross(a, b, dim).data, expected, rtol=1e-12, atol=1e-14)
    x, y = (tg.randn(2, 3, dtype=tg.float64, requires_grad=True) for _ in range(2))
    assert tg.gradcheck(lambda p, q: tg.cross(p, q, 1), [x, y])
    with pytest.raises(tg.ShapeError, match="cross: dim must have extent 3"):
        tg.cross(tg.ones(2), tg.ones(2))


# --- samples -----------------------------------------------------------------------------------------------------


def test_multinomial_draws_by_weight():
    tg.manual_seed(0)
    weights = tg.tensor([[0.0, 1.0, 3.0, 0.0], [5.0, 0.0, 0.0, 5.0]])
    drawn = tg.multinomial(weights, 40_000, replacement=True)
    shares = tg.stack([tg.bincount(row, minlength=4) for row in drawn]).double() / 40_000
    expected = weights / weights.sum(1, keepdim=True)
    assert (shares - expected).abs().max().item() < 0.01  # four standard deviations
    assert shares[expected == 0].tolist() == [0.0] * 4
    for _ in range(20):
        assert sorted(tg.multinomial(weights[0], 2).tolist()) == [1, 2]
    with pytest.raises(tg.ArgumentError, match="multinomial: weights"):
        tg.multinomial(weights[0], 3)
    with pytest.raises(tg.ArgumentError, match="multinomial: weights"):
        tg.multinomial(tg.tensor([1.0, float("nan")]), 1)


def test_multinomial_without_replacement_takes_the_heavier_first_more_often():
    tg.manual_seed(1)
    first = tg.stack([tg.multinomial(tg.tensor([1.0, 3.0]), 2)[0] for _ in range(2000)]).double().mean().item()
    assert abs(first - 0.75) < 0.04  # four standard deviations


def test_bernoulli_and_normal_have_their_moments():
    tg.manual_seed(2)
    drawn = tg.bernoulli(tg.full((20_000,), 0.3))
    assert set(drawn.tolist()) == {0.0, 1.0}
    assert abs(drawn.mean().item() - 0.3) < 0.013
    values = tg.normal(tg.full((20_000,), 2.0), 3.0)
    assert abs(values.mean().item() - 2) < 0.085
    assert abs(values.std().item() - 3) < 0.06
    assert tg.normal(1.0, 0.0, (2, 2)).tolist() == [[1.0, 1.0], [1.0, 1.0]]
    with pytest.raises(tg.ArgumentError, match="bernoulli"):
        tg.bernoulli(tg.tensor([1.5]))
    with pytest.raises(tg.ArgumentError, match="std"):
        tg.normal(tg.zeros(2), -1.0)


@pytest.mark.parametrize("draw", ["bernoulli", "multinomial", "normal"])
def test_samples_in_a_compiled_step_are_those_of_the_eager_one(draw):
    def step(x):
        if draw == "bernoulli":
            return x * tg.bernoulli(tg.full((4,), 0.5))
        return x * (tg.normal(x, 1.0) if draw == "normal" else tg.multinomial(x, 3, replacement=True).sum())

    results = []
    for f in (step, tg.compile(step)):
        tg.manual_seed(5)
        results.append([f(tg.tensor([1.0, 2.0, 3.0, 4.0])).tolist() for _ in range(5)])
    assert results[0] == results[1]


# --- data --------------------------------------------------------------------------------------------------------


class Squares(tg.utils.data.Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, i):
        return tg.tensor([float(i), float(i * i)]), i


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_batches_of_tensors(workers):
    loader = tg.utils.data.DataLoader(Squares(), batch_size=4, num_workers=workers)
    batches = list(loader)
    assert [len(x) for x, _ in batches] == [4, 4, 2]
    for x, i in batches:
        assert isinstance(x, tg.Tensor)
        assert x[:, 1].tolist() == [float(k) ** 2 for k in i.tolist()]


def test_the_order_repeats_with_the_seed():
    data = tg.utils.data.TensorDataset(tg.arange(20))

    def order(**options):
        loader = tg.utils.data.DataLoader(data, batch_size=5, shuffle=True, **options)
        return list(itertools.chain.from_iterable(x.tolist() for (x,) in loader))

    tg.manual_seed(3)
    first = order()
    tg.manual_seed(3)
    assert order() == first
    assert sorted(first) == list(range(20)) != first
    assert order(generator=tg.Generator(1)) == order(generator=tg.Generator(1)) != order(generator=tg.Generator(2))
    parts = tg.utils.data.random_split(data, [15, 5], generator=tg.Generator(4))
    again = tg.utils.data.random_split(data, [15, 5], generator=tg.Generator(4))
    assert [list(p.indices) for p in parts] == [list(p.indices) for p in again]


def test_checkpoint_takes_torchs_options():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    tg.utils.checkpoint.checkpoint(lambda a, k: a * a * k, x, use_reentrant=False, k=2).sum().backward()
    assert x.grad.tolist() == [4.0, 8.0]
    steps = [tg.nn.Linear(2, 2), tg.nn.Tanh(), tg.nn.Linear(2, 1)]
    whole = tg.nn.Sequential(*steps)(x).sum()
    parts = tg.utils.checkpoint.checkpoint_sequential(steps, 2, x, use_reentrant=False).sum()
    assert torch.equal(whole.data, parts.data)
    for a, b in zip(tg.grad(whole, [x]), tg.grad(parts, [x]), strict=True):
        assert torch.equal(a.data, b.data)
