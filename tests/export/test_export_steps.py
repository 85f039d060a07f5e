"""Exported steps and networks against the compiled tape: outputs, 50 training steps, and what they leave.

The bound: losses of 50 steps are equal to 1e-5 in float32 and 1e-12 in float64, as sums are taken in another order and
<math.h> rounds another way than our kernels (a few units in the last place an instruction); outputs to 2e-6 and 1e-13
of the largest; parameters after 50 steps to 1e-4 and 1e-11.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_checks import CASES, OPTIMIZERS, Ready, Step, compiler, library, pointer, ready

import tapegrad as tg
from tapegrad.export.optimizers import spelled
from tapegrad.optim.kernels import KERNELS, hyper

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C compiler (cc)")
LOSS = {torch.float32: 1e-5, torch.float64: 1e-12}
OUTPUT = {torch.float32: 2e-6, torch.float64: 1e-13}
PARAMETER = {torch.float32: 1e-4, torch.float64: 1e-11}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Ready, Any, Any, Any]]:
    """By name: what was exported, its step, its network, and the one library that all of them are in."""
    folder = tmp_path_factory.mktemp("export")
    made = {}
    for name, case in CASES.items():
        one = ready(case)
        x, y = one.batches[0]
        made[name] = (
            one,
            tg.export_c(one.step, x, y, path=folder, name=name, math=case.math),
            tg.export_c(one.model, x, path=folder, name=f"{name}_net", math=case.math),
        )
    sources = [path for _, step, network in made.values() for path in (step.source, network.source)]
    lib = library(sources, Path(folder) / "all.so")
    return {name: (*parts, lib) for name, parts in made.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_network_gives_what_it_gives_in_python(exported, name):
    one, _, _, lib = exported[name]
    x = ready(one.case, 1).batches[0][0]
    model = ready(one.case, 1).model.eval()
    with tg.no_grad():
        want = model(x).data
    got = torch.full(want.shape, torch.nan, dtype=want.dtype)
    forward = getattr(lib, f"{name}_net_forward")
    forward.restype = None
    forward(pointer(x), pointer(got))
    assert (got - want).abs().max() <= OUTPUT[one.case.dtype] * want.abs().max()


@pytest.mark.parametrize("name", CASES)
def test_fifty_steps_are_those_of_the_compiled_tape(exported, name):
    one, made, _, lib = exported[name]
    in_c, case, still = Step(lib, made, name), one.case, Step(lib, made, name)
    tg.default_generator.set_state(one.random)
    losses = np.array([[in_c(x, y), one.step(x, y).item()] for x, y in one.batches])
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=LOSS[case.dtype], atol=LOSS[case.dtype])
    assert sum(bound.calls for _, bound in one.step._bound.values()) > 45, "replayed"
    moved = [np.abs(in_c[field] - still[field]).max() for field, *_ in in_c.kind._fields_ if field.endswith("weight")]
    assert min(moved) > 1e-4, "trained"
    if not case.settled:  # Adam makes steps of full length from a gradient that is rounding alone
        return
    members = [field for field, *_ in in_c.kind._fields_]
    for path, p in one.model.named_parameters():
        member = path.replace(".", "_")
        member = member if member in members else f"layer{member}"
        bound = PARAMETER[case.dtype]
        np.testing.assert_allclose(in_c[member], p.data.flatten().numpy(), rtol=bound, atol=bound, err_msg=path)


def test_statistics_and_optimizer_state_are_in_the_struct(exported):
    one, made, _, lib = exported["norms"]
    in_c, again = Step(lib, made, "norms"), ready(one.case)
    for x, y in again.batches[:10]:
        in_c(x, y)
        again.step(x, y)
    for path, buffer in again.model.named_buffers():
        if "running" in path:
            got = in_c[f"layer{path.replace('.', '_')}"]
            np.testing.assert_allclose(got, buffer.data.numpy(), rtol=1e-5, atol=1e-6, err_msg=path)
    (state,) = [s for p, s in again.optimizer.state.items() if p is again.model[8].weight]
    np.testing.assert_allclose(in_c["layer8_weight_exp_avg"], state["exp_avg"].data.flatten(), rtol=1e-4, atol=1e-6)
    assert in_c["layer8_weight_step"].tolist() == [10.0]


def test_a_learning_rate_is_read_at_every_step(exported):
    one, made, _, lib = exported["sgd"]
    in_c, again = Step(lib, made, "sgd"), ready(one.case)
    assert in_c.s.lr == 0.1
    for k, (x, y) in enumerate(again.batches[:8]):
        in_c.s.lr = again.optimizer.param_groups[0]["lr"] = 0.1 / (k + 1)
        assert in_c(x, y) == pytest.approx(again.step(x, y).item(), rel=1e-5)


@pytest.mark.parametrize("name", [*OPTIMIZERS, "wide"])
def test_every_number_of_an_optimizer_is_read_at_every_step(exported, name):
    one, made, _, lib = exported[name]
    in_c, again = Step(lib, made, name), ready(one.case)
    group = again.optimizer.param_groups[0]
    numbers = KERNELS[again.optimizer.kernel].numbers
    assert [in_c_name for in_c_name in map(spelled, numbers) if not hasattr(in_c.s, in_c_name)] in ([], ["momentum"])
    for k, (x, y) in enumerate(again.batches[:20]):
        for key in numbers:
            if hasattr(in_c.s, spelled(key)):
                value = hyper(group, key) * (0.99 if k % 2 else 0.995)
                setattr(in_c.s, spelled(key), value)
                if isinstance(key, str):
                    group[key] = value
                else:
                    group[key[0]] = tuple(value if i == key[1] else v for i, v in enumerate(group[key[0]]))
        assert in_c(x, y) == pytest.approx(again.step(x, y).item(), rel=1e-11), k


def test_a_label_out_of_range_gives_nan_and_changes_nothing(exported):
    one, made, _, lib = exported["sgd"]
    in_c = Step(lib, made, "sgd")
    (x, y), before = one.batches[0], bytes(in_c.s.layer0_weight)
    assert np.isnan(in_c(x, torch.full_like(y, 3)))
    assert bytes(in_c.s.layer0_weight) == before
    assert not np.isnan(in_c(x, y))


def test_a_word_that_is_none_gives_nan(exported):
    one, _, _, lib = exported["words"]
    x = one.batches[0][0].clone()
    x[0, 0] = 11
    got = torch.zeros(len(x), 3)
    lib.words_net_forward(pointer(x), pointer(got))
    assert got.isnan().all()


def test_the_arena_can_be_given(exported):
    one, _, network, lib = exported["momentum"]
    x = one.batches[0][0]
    static, given = torch.zeros(5, 3), torch.zeros(5, 3)
    lib.momentum_net_forward(pointer(x), pointer(static))
    arena = ctypes.create_string_buffer(network.arena_bytes)
    lib.momentum_net_forward_in(arena, pointer(x), pointer(given))
    assert torch.equal(static, given)
    assert any(arena.raw)
