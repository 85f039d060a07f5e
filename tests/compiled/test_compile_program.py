"""The program is plain data: a few lines of Python evaluate it, and give what the executor gives."""

from __future__ import annotations

import functools
import gc
import re
import warnings
import weakref
from itertools import starmap

import numpy as np
import pytest
import test_compile_networks as networks
import torch
from compile_checks import assert_same_script, batch, bits, history, mlp, replays, state, training_step, uncompiled
from optable.check import one_thread as one_thread

import tapegrad as tg
from tapegrad import nn
from tapegrad.compiled import bind
from tapegrad.compiled.reference import evaluate, view
from tapegrad.compiled.trace import Ref, made_in, refs_of


def compiled(build, calls=3):
    """(step, what it changes), called so often that it has a program."""
    tg.manual_seed(0)
    training = build()
    training.step = tg.compile(training.step)
    for i in range(calls):
        training.step(*training.batches[i % len(training.batches)])
    return training


def bound_of(step):
    return next(bound for _, bound in step._bound.values())


# --- the evaluator -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [networks.mlp, networks.lenet5, networks.normalized, networks.transformer, networks.burgers],
    ids=lambda f: f.__name__,
)
def test_the_evaluator_in_python_gives_the_executors_bits(build):
    training = compiled(build)
    bound = bound_of(training.step)
    trace, program = bound.trace, bound.program
    arguments = list(training.batches[0])
    memory = {i: t.data.clone() for i, t in enumerate(arguments)}
    memory |= {
        i: torch.empty(0, dtype=torch.uint8).set_(slot.tensor.untyped_storage()).clone()
        for i, slot in enumerate(trace.slots)
        if slot.kind == "outside"
    }
    draws = [(generator.seed, generator.offset) for generator, _ in trace.generators]
    evaluate(program, memory, bound.numbers(), draws)

    result = training.step(*arguments)
    assert replays(training.step) == 2
    expected = [bits(t.data) for t in (result if isinstance(result, tuple) else (result,))]
    assert [bits(view(memory[made.ref.slot], made.ref)) for made in made_in(trace.result)] == expected
    for i, slot in enumerate(trace.slots):
        if slot.kind == "outside" and slot.written:
            assert bits(view(memory[i], whole(slot.tensor))) == bits(slot.tensor), f"slot {i}"
    for leaf, made in trace.gradients:
        assert bits(view(memory[made.ref.slot], made.ref)) == bits(leaf.grad.data)


def whole(t):
    """The Ref of a tensor in its own slot."""
    return Ref(0, t.dtype, t.storage_offset(), tuple(t.shape), t.stride())


# --- lowering ----------------------------------------------------------------------------------------------------


def test_the_arena_is_smaller_than_its_values_and_nothing_alive_overlaps():
    """But for an input gradient of a convolution, which may take the memory of the input that ends there."""
    program = compiled(networks.lenet5).step.programs[0]
    assert 0 < program.arena_bytes < program.unshared_bytes
    spans = {}
    for i, call in enumerate(program.calls):
        for ref in refs_of((call.arguments, call.outs)):
            first, _ = spans.get(ref.slot, (i, i))
            spans[ref.slot] = (first, i)
    taken = 0
    alive = [(*spans[s], offset, offset + program.slots[s].nbytes) for s, offset in program.offsets.items()]
    for i, (first, last, begin, end) in enumerate(alive):
        assert begin % 64 == 0
        assert end <= program.arena_bytes
        for other_first, other_last, other_begin, other_end in alive[:i]:
            apart = last < other_first or other_last < first or end <= other_begin or other_end <= begin
            meet = (last, begin) == (other_first, other_begin) or (other_last, other_begin) == (first, begin)
            taken += not apart
            assert apart or (meet and program.calls[max(first, other_first)].name == "conv2d_backward")
    assert taken == 1


def test_what_nobody_reads_is_dropped_and_what_is_computed_twice_is_shared():
    def step(x):
        (x * 5).exp()
        return (x + 1).sin() * (x + 1).sin() + tg.full((3,), 2.0)

    step = tg.compile(step)
    for _ in range(3):
        step(tg.arange(3.0))
    (program,) = step.programs
    text = str(program)
    assert "exp" not in text
    assert len(re.findall(r"= \S*sin", text)) == 1
    assert [call.name for call in program.once] == ["aten.full.default"]


@pytest.mark.parametrize(
    "use",
    [lambda layer, x: layer(x) + layer(x), lambda layer, x: (layer(x), x)[1], lambda layer, x: layer(layer(x) * 0 + x)],
    ids=["twice", "unused", "again"],
)
def test_statistics_are_updated_by_calls_that_could_be_shared_or_dropped(use):
    def script(compile):
        layer = nn.BatchNorm1d(3)
        step = compile(lambda x: use(layer, x).detach())
        return [value for i in range(5) for value in (step(tg.randn(4, 3)), state([layer]))]

    assert_same_script(script)


def test_programs_are_shared_by_models_of_one_structure(monkeypatch):
    lowered = []
    lower = bind.lower
    monkeypatch.setattr(bind, "lower", lambda *given: lowered.append(given) or lower(*given))
    programs, finals = [], []
    for seed in range(4):
        model, optimizer = mlp(seed, sizes=(3, 6, 2), lr=0.1 * (seed + 1))
        step = tg.compile(training_step(model, optimizer))
        for i in range(5):
            step(*batch(6, i))
        programs += step.programs
        finals.append(state([model]))
        model, optimizer = mlp(seed, sizes=(3, 6, 2), lr=0.1 * (seed + 1))
        plain = training_step(model, optimizer)
        for i in range(5):
            plain(*batch(6, i))
        assert state([model]) == finals[-1]
    assert len(lowered) == 1
    assert all(program is programs[0] for program in programs)


def test_models_of_other_structure_do_not_share():
    programs = []
    for options in ({}, {"momentum": 0.9}, {"maximize": True}, {"nesterov": True, "momentum": 0.9}):
        model, optimizer = mlp(**options)
        step = tg.compile(training_step(model, optimizer))
        for _ in range(3):
            step(*batch(6))
        programs += step.programs
    assert len({id(program) for program in programs}) == 4


# --- the cache ---------------------------------------------------------------------------------------------------


def test_alternating_batch_sizes_are_recorded_once_each():
    model, optimizer = mlp()
    step = tg.compile(training_step(model, optimizer))
    for i in range(60):
        step(*batch(2 + i % 6))
    assert len(step.programs) == 6
    assert replays(step) == 60 - 12


def test_the_cache_is_bounded_and_forgets_the_program_used_least_recently():
    model, optimizer = mlp()
    step = tg.compile(training_step(model, optimizer), cache_size=2)
    for n in (1, 2, 1, 3):  # 3 takes the place of 2
        for _ in range(3):
            step(*batch(n))
    assert len(step.programs) == 2
    before = replays(step)
    step(*batch(1))
    step(*batch(3))
    assert replays(step) == before + 2
    step(*batch(2))
    assert replays(step) == before + 2


def test_what_is_kept_stays_bounded():
    """Signatures that come once, come and go, or never compare equal leave nothing behind."""
    step = tg.compile(lambda x, k: x * k, cache_size=4)
    calls = [call for i in range(60) for call in ((2, i), (2, float("nan")), *[(i + 1, 1)] * 3)]
    with pytest.warns(RuntimeWarning, match="again and again because the shape, dtype or value of an argument") as said:
        list(starmap(lambda n, k: step(tg.ones(n), k), calls))
    assert len(said) == 1
    assert len(step.programs) <= 4
    assert len(step._pending) <= 4
    assert len(step._of) <= 4


def test_a_forgotten_step_frees_model_and_optimizer():
    model, optimizer = mlp()
    step = tg.compile(training_step(model, optimizer))
    for _ in range(4):
        step(*batch())
    dead = weakref.ref(model)
    del step, model, optimizer
    gc.collect()
    assert dead() is None


def test_the_state_a_guard_keeps_missing_is_named():
    scale = 0.0
    step = tg.compile(lambda x: x * scale, cache_size=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(60):
            scale = float(i // 3)
            assert step(tg.ones(1)).tolist() == [scale]
    assert [w.category for w in caught] == [RuntimeWarning]
    assert re.search("recorded again and again because scale keeps changing.*0-dim tensor", str(caught[0].message))


# --- explain -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [networks.mlp, networks.lenet5, networks.actor_critic], ids=lambda f: f.__name__)
def test_explain_changes_nothing(build):
    tg.manual_seed(0)
    training = build()
    step = tg.compile(training.step)
    before = state(training.models, training.optimizers)
    text = step.explain(*training.batches[0])
    assert state(training.models, training.optimizers) == before
    assert not step.programs
    for _ in range(3):
        step(*training.batches[0])
    before = state(training.models, training.optimizers)
    assert first_line(step.explain(*training.batches[0])) == first_line(text)
    assert state(training.models, training.optimizers) == before


def first_line(text):
    return text.partition("\n")[0]


def test_explain_names_instructions_memory_and_guards():
    model, optimizer = mlp()
    step = tg.compile(training_step(model, optimizer))
    for _ in range(2):
        step(*batch())
    text, (program,) = step.explain(*batch()), step.programs
    assert f"program: {len(program.calls)} instructions" in text
    assert re.search(r"sgd_\(.*compile_checks.py:\d+", text)
    assert f"arena: {program.arena_bytes} bytes for {program.unshared_bytes} bytes of values" in text
    assert "read at every step: lr = 0.1" in text
    assert re.search(r"guards: \d+ facts", text)
    assert not re.search(r"^ *\d+ torch", text, re.MULTILINE), "a torch call in a program of our kernels"


def test_explain_marks_calls_of_torch_and_says_why():
    def step(x, counts):
        counts.copy_(tg.flip(counts, (0,)))
        return tg.flip(x, (0,)) + x.t()

    text = tg.compile(step).explain(tg.ones(200, 200), tg.ones(2, dtype=tg.int64))
    assert re.search(r"^ *\d+ torch .*flip", text, re.MULTILINE)
    assert "torch, as tapegrad has no kernel of it: aten.flip" in text
    assert "torch, as no float32 or float64 in it: aten.flip" in text
    assert (
        "torch, as so many elements are worth its threads, or not of dtypes that tapegrad's loop takes: aten.add"
        in text
    )
    small = tg.compile(step).explain(tg.ones(3, 3), tg.ones(2, dtype=tg.int64))
    assert re.search(r"^ *\d+  +.*aten.add", small, re.MULTILINE)  # by our loop: the table says nothing of torch


@pytest.mark.parametrize("build", [networks.mlp, networks.lenet5, networks.actor_critic], ids=lambda f: f.__name__)
def test_explain_is_of_one_line_an_instruction_and_fits_a_terminal(build):
    training = build()
    step = tg.compile(training.step)
    text = step.explain(*training.batches[0])
    assert max(map(len, text.splitlines())) < 120
    assert len(re.findall(r"^ *\d+ (torch| {5})[ /|\\]", text, re.MULTILINE)) == int(text.split()[1])


def test_explain_names_parameters_gradients_and_moments():
    model = tg.nn.Sequential(tg.nn.Linear(4, 3), tg.nn.BatchNorm1d(3))
    scale = tg.ones(3, requires_grad=True)
    optimizer = tg.optim.Adam([*model.parameters(), scale])

    def step(batch, weights=None):
        optimizer.zero_grad()
        loss = (model(batch["x"]) * scale * weights).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    text = tg.compile(step).explain({"x": tg.randn(5, 4)}, weights=tg.ones(3))
    lines = text.splitlines()
    assert "arguments: batch['x'] f32[5, 4], weights f32[3]" in lines
    assert any("= linear(batch['x'], 0.weight, 0.bias)" in line and "60 B" in line for line in lines)
    assert re.search(r"0\.weight\.grad( f32\[3, 4\])?, 0\.bias\.grad( f32\[3\])? = linear_backward\(", text), text
    assert re.search(r"\bscale\.grad\b", text)
    assert re.search(r"move_statistics_\(\[1\.running_mean\]", text)
    assert re.search(r"adam_\(\[0\.weight \.\.\. scale: 5\], lr, (beta1=)?betas\[0\], (beta2=)?betas\[1\], eps", text)
    assert "read at every step: betas[1] = 0.999" in lines
    two = tg.compile(lambda: (optimizer.state[model[0].weight]["exp_avg"] * 2 + model[0].weight).detach())
    assert re.search(r"aten\.mul\(0\.weight\.exp_avg, 2\)", two.explain())


def test_explain_names_two_models_apart():
    actor, critic = tg.nn.Linear(2, 1), tg.nn.Linear(2, 1)
    text = tg.compile(lambda *inputs: (actor(inputs[0]) + critic(inputs[1])).detach()).explain(
        tg.ones(1, 2), tg.ones(2)
    )
    assert "linear(inputs[0], actor.weight, actor.bias)" in text
    assert "linear(inputs[1], critic.weight, critic.bias)" in text


def test_explain_tells_views_apart():
    def step(x):
        a, b = (x * 2).chunk(2)
        return a @ b

    text = tg.compile(step).explain(tg.ones(4, 2))
    assert "matmul(%1, %1@4)" in text
    assert "a view that begins 16 elements into %7 is %7@16" in text
    assert "elements into" not in tg.compile(lambda x: x @ x).explain(tg.ones(2, 2))


def test_a_program_without_instructions_is_explained_and_profiled():
    step = tg.compile(lambda: tg.ones(3) * 2)
    assert step.explain().startswith("program: 0 instructions")
    assert step.profile().rows == []


def test_explain_shows_what_runs_as_one():
    text = tg.compile(lambda x: ((x * 2 + 1).tanh() - x).exp()).explain(tg.ones(300, 300))
    marks = re.findall(r"^ *\d+ {6}([/|\\])", text, re.MULTILINE)
    assert marks == ["/", "|", "|", "|", "\\"]


def test_explain_lists_first_what_changes_by_accident():
    gain = 3.0
    table = np.arange(3.0, dtype=np.float32)
    model = tg.nn.Sequential(tg.nn.Dropout(0.5))
    optimizer = tg.optim.SGD([tg.ones(3, requires_grad=True)], lr=0.1, momentum=0.5)

    def step(x):
        optimizer.zero_grad()
        loss = (model(x) * gain * table * optimizer.param_groups[0]["params"][0]).sum()
        loss.backward()
        optimizer.step()
        return loss

    text = tg.compile(step).explain(tg.ones(3)).partition("guards: ")[2]
    assert re.search(r"numbers and strings: .*gain = 3\.0", text)
    assert "modes: model.training = True" in text
    assert "settings of optimizer.param_groups[0]: nesterov = False, maximize = False" in text
    assert re.search(r"arrays: .*table", text)


# --- convolutions of a doubled map -------------------------------------------------------------------------------


def test_a_convolution_after_doubling_reads_the_small_map():
    build = functools.partial(networks.autoencoder, networks.upsampled)
    _, eager = history(build, 5, uncompiled)
    step, replayed = history(build, 5, tg.compile)
    assert eager == replayed
    tg.manual_seed(0)
    text = step.explain(*build().batches[0])
    program = text.partition("rewrites")[0]
    assert text.count("read by its convolution from the small map") == 2
    assert program.count("conv2d_of_doubled(") == program.count("conv2d_of_doubled_backward(") == 2
    assert "upsample_nearest2d" not in program


@pytest.mark.parametrize("case", ["stride", "shared", "returned", "twice", "gradient of the map", "changed"])
def test_what_else_happens_to_a_doubled_map_is_kept(case):
    def script(compile):
        first, second = nn.Conv2d(2, 3, 3, padding=1, stride=2 if case == "stride" else 1), nn.Conv2d(2, 3, 1)
        up, leaf = nn.Upsample(scale_factor=2), tg.ones(1, 2, 4, 4, requires_grad=True)

        @compile
        def step(x):
            leaf.grad = first.weight.grad = second.weight.grad = None
            small = leaf * x
            if case == "changed":
                with tg.no_grad():
                    small = small.detach().clone()
            large = up(small)
            y = first(large)
            if case == "changed":
                small.mul_(2.0)
            out = y.sum()
            if case == "twice":
                out = out + second(large).square().sum()
            if case == "shared":
                out = out + large.square().sum()
            if case == "gradient of the map":
                (g,) = tg.grad(out, [large], retain_graph=True)
                out = out + g.sum()
            out.backward()
            return (out.detach(), large.detach()) if case == "returned" else out.detach()

        seen = []
        for i in range(1, 6):
            out = step(tg.ones(1, 2, 4, 4) * i)
            grads = [p.grad if p.grad is None else p.grad.clone() for p in (leaf, first.weight, second.weight)]
            seen.append((out, grads))
        return seen

    assert_same_script(script)


# --- exact=False -------------------------------------------------------------------------------------------------


def test_folding_the_upsampling_is_named_and_differs_by_rounding_only():
    build = functools.partial(networks.autoencoder, networks.upsampled)
    _, eager = history(build, 6, uncompiled)
    step, folded = history(build, 6, functools.partial(tg.compile, exact=False))
    assert replays(step) == 4
    tg.manual_seed(0)
    text = step.explain(*build().batches[0])
    assert text.count("folded into the convolution at") == 2
    assert "upsample_nearest2d" not in text.partition("rewrites")[0]
    for a, b in zip(eager, folded, strict=True):
        for key in a:
            values, others = (floats(side[key]) for side in (a, b))
            # sums of 72 products in another order, through 6 steps
            assert torch.allclose(values, others, rtol=1e-4, atol=1e-6), key
    assert folded != eager


def floats(seen):
    """The numbers in a value that `bits` made."""
    if isinstance(seen, bytes):
        return torch.frombuffer(bytearray(seen), dtype=torch.float32)
    found = (
        [floats(part) for part in seen if isinstance(part, tuple | list | bytes)]
        if isinstance(seen, tuple | list)
        else []
    )
    return torch.cat(found) if found else torch.empty(0)


def test_exact_false_changes_nothing_else():
    for build in (networks.mlp, networks.lenet5, functools.partial(networks.autoencoder, networks.bilinear)):
        _, eager = history(build, 4, uncompiled)
        _, other = history(build, 4, functools.partial(tg.compile, exact=False))
        assert eager == other


def test_an_upsampled_map_that_is_read_again_is_not_folded():
    def script(compile):
        convolution, up = nn.Conv2d(2, 2, 3, padding=1), nn.Upsample(scale_factor=2)

        def step(x):
            large = up(x)
            return convolution(large).detach(), large

        step = compile(step) if compile is uncompiled else compile(step, exact=False)
        return [step(tg.ones(1, 2, 4, 4) * i) for i in range(4)]

    assert_same_script(script)
