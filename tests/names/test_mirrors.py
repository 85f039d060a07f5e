"""torch's other module names: its files, what is refused, NumPy's names of arguments, what scripts call on modules."""

import importlib
import inspect
import warnings

import pytest
import torch

import tapegrad as tg
import tapegrad.nn.functional as F

# --- modules -----------------------------------------------------------------------------------------------------

PLACES = {
    "nn.modules.conv.Conv2d": tg.nn.Conv2d,
    "nn.modules.module.Module": tg.nn.Module,
    "nn.modules.batchnorm._BatchNorm": tg.nn.norms._BatchNorm,
    "nn.parameter.Parameter": tg.nn.Parameter,
    "optim.adam.Adam": tg.optim.Adam,
    "optim.optimizer.Optimizer": tg.optim.Optimizer,
    "optim.lr_scheduler._LRScheduler": tg.optim.lr_scheduler.LRScheduler,
    "distributions.normal.Normal": tg.distributions.Normal,
    "distributions.kl.kl_divergence": tg.distributions.kl_divergence,
    "utils.data.dataloader.DataLoader": tg.utils.data.DataLoader,
    "utils.data.dataset.TensorDataset": tg.utils.data.TensorDataset,
    "utils.data.sampler.SubsetRandomSampler": tg.utils.data.SubsetRandomSampler,
    "nn.utils.clip_grad.clip_grad_norm_": tg.nn.utils.clip_grad_norm_,
    "nn.parallel.data_parallel.DataParallel": tg.nn.DataParallel,
    "nn.modules.utils._pair": torch.nn.modules.utils._pair,
    "utils._pytree.tree_map": torch.utils._pytree.tree_map,
    "autograd.variable.Variable": tg.autograd.Variable,
}


@pytest.mark.parametrize("path", PLACES)
def test_torchs_files_can_be_imported(path):
    module, _, name = path.rpartition(".")
    assert getattr(importlib.import_module(f"tapegrad.{module}"), name) is PLACES[path]
    found = tg
    for part in path.split("."):
        found = getattr(found, part)
    assert found is PLACES[path]


def test_a_file_shows_its_own_names_only():
    module = importlib.import_module("tapegrad.optim.adam")
    with pytest.raises(AttributeError, match=r"tapegrad\.optim\.adam.*'SGD'"):
        _ = module.SGD
    with pytest.raises(ImportError):
        importlib.import_module("tapegrad.optim.nothing")
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = tg.nn.nothing


@pytest.mark.parametrize("path", ["fx", "onnx", "distributed.rpc", "distributed.fsdp.wrap", "quantization", "fft"])
def test_what_cannot_be_here_is_imported_and_refused_when_used(path):
    module = importlib.import_module(f"tapegrad.{path}")

    class Mine(module.Something):
        pass

    for use in (module.Something, Mine, module.Enumeration.MEMBER):
        with pytest.raises(tg.StateError, match=rf"{path}\.\w+.*: \w+"):
            use(1)
    assert not isinstance(tg.ones(1), module.Something)


def test_functions_that_write_are_there_as_functions():
    x = tg.tensor([-1.0, 2.0])
    assert tg.relu_(x) is x
    assert tg.nn.functional.leaky_relu_(x) is x
    assert x.tolist() == [0.0, 2.0]
    with pytest.raises(AttributeError):
        _ = tg.nothing_


# --- compilers of torch ------------------------------------------------------------------------------------------


def test_jit_gives_functions_back():
    tg.jit._said.clear()
    with pytest.warns(RuntimeWarning, match=r"jit\.script: .* tg\.compile"):

        @tg.jit.script
        def double(x):
            return x * 2

    @tg.jit.script  # said once
    def triple(x):
        return x * 3

    @tg.jit.ignore(drop=True)
    def none(x):
        return x

    assert (double(2), triple(2), none(2)) == (4, 6, 2)
    assert issubclass(tg.jit.ScriptModule, tg.nn.Module)
    assert not tg.jit.is_scripting()
    with pytest.raises(tg.StateError, match=r"jit\.load"):
        tg.jit.load("model.pt")


def test_compile_takes_torchs_arguments_and_falls_back():
    model = tg.nn.Linear(3, 2)
    fast = tg.compile(model, mode="max-autotune", dynamic=False)
    x = tg.randn(4, 3)
    fast(x).sum().backward()
    assert model.weight.grad.shape == (2, 3)
    fast.eval()
    assert not model.training
    assert not fast.training
    assert list(fast.state_dict()) == ["weight", "bias"]
    assert fast._orig_mod is model
    assert tg.compile(model, disable=True) is model

    def step(x):
        return x.item()

    with pytest.raises(tg.CompileError):
        tg.compile(step, fullgraph=True, backend="inductor")(tg.ones(1))
    with pytest.warns(RuntimeWarning, match="compile"):
        assert tg.compile(step, backend="inductor")(tg.ones(1)) == 1.0


def test_a_compiled_module_without_gradients_is_replayed():
    model = tg.nn.Linear(3, 2)
    fast, x = tg.compile(model), tg.randn(4, 3)
    with tg.no_grad():
        for _ in range(4):
            assert torch.equal(fast(x).data, model(x).data)
    assert len(fast.programs) == 1


def test_compiler_says_when_a_step_is_recorded():
    seen = []

    def step(x):
        seen.append(tg.compiler.is_compiling())
        return x * 2

    assert not tg.compiler.is_compiling()
    tg.compile(step, fullgraph=False)(tg.ones(1))
    assert seen == [True]
    assert tg._dynamo.disable(step) is step


# --- arguments ---------------------------------------------------------------------------------------------------

X = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(3, 4).sin()
BY_NAME = {
    "sum": {"axis": 1, "keepdims": True},
    "mean": {"axis": 0},
    "max": {"axis": 1},
    "argmax": {"axis": 0},
    "cat": {"axis": 1},
    "stack": {"axis": 2},
    "softmax": {"axis": 1},
    "unsqueeze": {"axis": 0},
    "squeeze": {"axis": 0},
    "logsumexp": {"axis": 1, "keepdims": True},
    "std": {"axis": 0, "keepdims": True},
    "cumsum": {"axis": 1},
    "sort": {"axis": 0},
    "amax": {"axis": 0},
    "any": {"axis": 0},
}


@pytest.mark.parametrize("name", BY_NAME)
def test_numpys_names_of_arguments(name):
    several = name in ("cat", "stack")
    theirs = getattr(torch, name)([X, X] if several else X, **BY_NAME[name])
    x = tg.tensor(X)
    ours = getattr(tg, name)([x, x] if several else x, **BY_NAME[name])
    pairs = zip(ours, theirs, strict=True) if isinstance(theirs, tuple) else [(ours, theirs)]
    assert all(
        torch.allclose(a.data, b, rtol=1e-14) if b.is_floating_point() else torch.equal(a.data, b) for a, b in pairs
    )
    assert "axis" in inspect.signature(getattr(tg, name)).parameters


def test_an_argument_is_missing_as_before():
    for call in (lambda: tg.unsqueeze(tg.ones(2)), lambda: tg.gather(tg.ones(2), 0), lambda: tg.select(tg.ones(2), 0)):
        with pytest.raises(TypeError, match=r"missing|select"):
            call()
    assert tg.gather(tg.tensor([[1.0, 2.0]]), axis=1, index=tg.tensor([[1]])).item() == 2.0


def test_makers_take_torchs_keywords():
    assert tg.randn(size=(2, 3), layout=tg.strided, pin_memory=False).shape == (2, 3)
    assert tg.rand(size=(2,), dtype=tg.float64).dtype is tg.float64
    assert 0 <= tg.randint(high=3, size=(1,)).item() < 3
    assert 1 <= tg.randint_like(tg.ones(1), 1, 3).item() < 3
    assert tg.tensor([1], pin_memory=True).tolist() == [1]
    assert tg.randperm(4, dtype=tg.int32).dtype is tg.int32
    assert tg.Generator(device="cpu").manual_seed(3).initial_seed() == 3
    assert [v.tolist() for v in tg.where(tg.tensor([[0, 1], [2, 0]]))] == [[0, 1], [1, 0]]
    for maker in (tg.zeros, tg.rand, tg.randperm):
        with pytest.raises(tg.DTypeError, match="layout"):
            maker(2, layout=torch.sparse_coo)


def test_softmax_without_dim_warns_as_torch():
    x = torch.randn(2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("softmax", "log_softmax", "softmin"):
            assert torch.allclose(getattr(F, name)(tg.tensor(x)).data, getattr(torch.nn.functional, name)(x))
    with pytest.warns(UserWarning, match="softmax: dim was not given"):
        F.softmax(tg.tensor(x))


def test_the_older_arguments_of_losses():
    x, y = torch.rand(3, 2), torch.rand(3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for given in ({"size_average": False}, {"size_average": True}, {"reduce": False}):
            theirs = torch.nn.functional.mse_loss(x, y, **given)
            assert torch.allclose(F.mse_loss(tg.tensor(x), tg.tensor(y), **given).data, theirs)
            assert torch.allclose(tg.nn.MSELoss(**given)(tg.tensor(x), tg.tensor(y)).data, theirs)
    assert list(vars(tg.nn.MSELoss(size_average=False))) == ["reduction"]


def test_grad_takes_torchs_arguments_in_their_places():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    (g,) = tg.autograd.grad((x**3).sum(), x, None, True, True, True, False)
    assert g.requires_grad
    with pytest.raises(tg.ArgumentError, match="only_inputs"):
        tg.grad((x**2).sum(), x, only_inputs=False)
    p, q = tg.nn.Parameter(tg.ones(2)), tg.nn.Parameter(tg.ones(2))
    assert len(tg.grad((p * q).sum(), tg.nn.ParameterList([p, q]))) == 2
    (p * q).sum().backward(inputs=[p])
    assert q.grad is None
    assert p.grad.tolist() == [1.0, 1.0]
    with pytest.raises(tg.TapeError, match=r"inputs\[0\]"):
        (p * q).sum().backward(inputs=(p * 2,))


# --- tensors and modules -----------------------------------------------------------------------------------------


def test_facts_of_a_tensor():
    x = tg.zeros(2, 3)
    assert (x.ndimension(), x.nelement(), x.element_size(), x.nbytes, x.itemsize) == (2, 6, 4, 24, 4)
    assert x.is_cpu
    assert x.layout is torch.strided
    assert {x.is_cuda, x.is_quantized, x.is_complex(), x.is_sparse} == {False}
    assert x.data_ptr() == x.data.data_ptr()
    assert x.get_device() == -1
    assert x.to_dense() is x
    assert x.new(2).shape == (2,)
    assert x.byte().dtype is tg.uint8
    assert x.view(tg.int32).dtype is tg.int32
    for call in (x.half, x.bfloat16, x.to_sparse):
        with pytest.raises(tg.DTypeError):
            call()


def test_shapes_change_in_place():
    x = tg.ones(2, 3, requires_grad=True)
    y = x * 2
    assert y.unsqueeze_(0) is y
    y.transpose_(1, 2)
    assert y.shape == (1, 3, 2)
    (y * tg.arange(6.0).reshape(1, 3, 2)).sum().backward()
    assert x.grad.tolist() == [[0.0, 4.0, 8.0], [2.0, 6.0, 10.0]]
    assert y.squeeze_().t_().shape == (2, 3)
    with pytest.raises(tg.TapeError, match="unsqueeze_"):
        x.unsqueeze_(0)
    assert not y.detach_().requires_grad


@pytest.mark.parametrize("name", ["exponential_", "cauchy_", "log_normal_", "geometric_", "random_"])
def test_numbers_are_drawn_in_place(name):
    args = {"geometric_": (0.25,), "random_": (3, 7), "log_normal_": (0.0, 0.5)}.get(name, ())
    drawn = getattr(tg.empty(4000), name)(*args).data.double()
    expected = getattr(torch.empty(4000), name)(*args).double()
    whole = name in ("geometric_", "random_")  # whose quartiles are steps
    at = [v.mean() if whole else v.quantile(torch.tensor([0.25, 0.5, 0.75]).double()) for v in (drawn, expected)]
    assert torch.allclose(*at, rtol=0.1, atol=0.1)  # two samples of 4000: a few percent apart
    assert tg.empty(5, dtype=tg.int64).random_().min().item() >= 0


def test_registries_of_a_module():
    net = tg.nn.Sequential(tg.nn.Linear(2, 3), tg.nn.BatchNorm1d(3))
    assert list(net._modules) == ["0", "1"]
    assert list(net[0]._parameters) == ["weight", "bias"]
    assert list(net[1]._buffers) == ["running_mean", "running_var", "num_batches_tracked"]
    net._modules["0"] = tg.nn.Identity()
    assert isinstance(net[0], tg.nn.Identity)
    del net[1]._parameters["bias"]
    assert [name for name, _ in net[1].named_parameters()] == ["weight"]
    with pytest.raises(KeyError):
        _ = net._modules["5"]


def test_conversions_of_a_module():
    net = tg.nn.Linear(2, 3)
    assert net.cpu() is net.to("cpu", non_blocking=True) is net.type(tg.float64)
    assert net.weight.dtype is tg.float64
    assert net.get_parameter("weight") is net.weight
    for call in (net.cuda, net.half, net.bfloat16):
        with pytest.raises(tg.DTypeError):
            call()
    outer = tg.nn.Sequential(net)
    outer.set_submodule("0", tg.nn.Identity())
    assert isinstance(outer[0], tg.nn.Identity)
    with pytest.raises(AttributeError, match="no buffer 'weight'"):
        net.get_buffer("weight")


def test_hooks_with_keywords_and_in_front():
    seen = []

    class Scaled(tg.nn.Module):
        def forward(self, x, scale=1.0):
            return x * scale

    net = Scaled()
    net.register_forward_hook(lambda m, args, out: seen.append("second"))
    net.register_forward_hook(lambda m, args, kwargs, out: seen.append(kwargs["scale"]), with_kwargs=True, prepend=True)
    net.register_forward_pre_hook(lambda m, args, kwargs: (args, {"scale": kwargs["scale"] + 1}), with_kwargs=True)
    assert net(tg.ones(1), scale=2.0).item() == 3.0
    assert seen == [3.0, "second"]


def test_sparse_tensors_are_dense_ones():
    i, v = [[0, 1, 1], [2, 0, 2]], [3.0, 4.0, 5.0]
    theirs = torch.sparse_coo_tensor(i, v, (2, 3), check_invariants=True)
    ours = tg.sparse_coo_tensor(i, v, (2, 3))
    assert torch.equal(ours.to_dense().data, theirs.to_dense())
    values = tg.tensor(v, requires_grad=True)
    tg.sparse.mm(tg.sparse_coo_tensor(i, values), tg.ones(3, 1)).sum().backward()
    assert values.grad.tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(tg.ArgumentError, match="indices must lie within"):
        tg.sparse_coo_tensor([[5]], [1.0], (2,))
    with pytest.raises(tg.ShapeError, match=r"indices must be \[d, n\]"):
        tg.sparse_coo_tensor([0], [1.0], (2,))


def test_testing_compares_nests():
    tg.testing.assert_close({"a": [tg.ones(2)]}, {"a": [torch.ones(2)]})
    with pytest.raises(AssertionError):
        tg.testing.assert_close(tg.ones(2), tg.zeros(2))


def test_random_states_are_put_back():
    state = tg.random.get_rng_state()
    with tg.random.fork_rng():
        tg.manual_seed(1)
        tg.rand(3)
    assert torch.equal(tg.random.get_rng_state().data, state.data)


def test_lists_of_safe_classes_are_taken():
    with tg.serialization.safe_globals([tg.nn.Linear]):
        assert tg.serialization.add_safe_globals([tg.nn.Linear]) is None
