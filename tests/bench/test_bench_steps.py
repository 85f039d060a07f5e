"""Suite `steps`: every side takes the same steps, goals, tables and files."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from bench_checks import bench_package as bench_package
from bench_checks import threads as threads

import tapegrad as tg

ROOT = Path(__file__).resolve().parents[2]


def workload(name, **changes):
    from bench.steps.workloads import WORKLOADS

    return dataclasses.replace(next(w for w in WORKLOADS if w.name.startswith(name)), **changes)


def tiny(name, batch=6):
    from bench.steps.sides import FIRST

    return workload(name, batch=batch, batches=FIRST)


def timing(*seconds):
    from bench.common.timing import Timing

    return Timing(0, list(seconds))


NAMES = ["2-25-25-25-2 ReLU, batch 25, MSE, SGD", "17-64", "Burgers", "784", "LeNet", "autoencoder", "LSTM 8", "GRU 8"]


# --- the sides ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_all_ways_to_take_the_step_give_the_same_losses(name):
    from bench.steps.rows import agree
    from bench.steps.sides import EPOCHS, FIRST, tapegrad_sides, torch_side

    w = tiny(name)
    sides = [side for variant in w.variants for side in tapegrad_sides(w, variant, 1)]
    theirs, _ = torch_side(w, "PyTorch", [1], 0.0)
    assert len(theirs.losses) == FIRST
    agree(w.name, sides, theirs)
    assert [side.unit for side in sides if " run" in side.name] == [EPOCHS * FIRST] * len(w.variants)
    for side in sides:
        side.advance(side.unit)  # what is timed


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra bench-jax")
@pytest.mark.parametrize("name", [name for name in NAMES if name != "LSTM 8"])  # XLA compiles it for seconds
def test_jax_takes_the_same_steps(name):
    from bench.steps import jax_side
    from bench.steps.rows import agree
    from bench.steps.sides import torch_side

    w = tiny(name)
    theirs, _ = torch_side(w, "PyTorch", [1], 0.0)
    sides = jax_side.sides(w, "jit", "scan")
    assert [side.name for side in sides] == ["jit", "scan"]
    agree(w.name, sides, theirs)


def test_without_jax_the_column_says_so(monkeypatch):
    from bench.steps import jax_side
    from bench.steps.sides import Unavailable

    monkeypatch.setattr(jax_side.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="not installed"):
        jax_side.sides(tiny("LeNet"), "jit", "scan")


@pytest.mark.parametrize("name", ["2-25-25-25-2 ReLU, batch 25, MSE, Adam", "Burgers", "autoencoder"])
def test_the_whole_step_as_a_function_takes_the_same_steps(name, monkeypatch):
    """Without the compiler, which takes its time."""
    from bench.steps import torch_compiled
    from bench.steps.rows import agree
    from bench.steps.sides import torch_side

    monkeypatch.setattr(torch_compiled, "compiled", lambda function: function)
    w = tiny(name)
    theirs, choice = torch_side(w, "PyTorch", [1], 0.0)
    side = torch_compiled.whole_step(w, "whole", choice)
    agree(w.name, [side], theirs)
    assert side.compile_seconds > 0


def test_a_compiler_that_fails_gives_its_reason(monkeypatch):
    from bench.common.sides import torch_choices
    from bench.steps import torch_compiled
    from bench.steps.sides import Unavailable

    def compiled(function):
        def fails(*arguments):
            raise RuntimeError("no C++ compiler\nmore lines")

        return fails

    monkeypatch.setattr(torch_compiled, "compiled", compiled)
    with pytest.raises(Unavailable, match=r"^no C\+\+ compiler$"):
        torch_compiled.forward_backward(tiny("784"), "partly", torch_choices(False)[0], "")


def test_losses_that_differ_stop_the_benchmark():
    from bench.steps.rows import agree
    from bench.steps.sides import Side, same_bits

    def side(*losses):
        return Side("one", list(losses), lambda steps: None)

    agree("w", [side(1.0, 1.00005)], side(1.000001, 1.0))
    with pytest.raises(
        RuntimeError, match=r"w: one: the loss of step 0 is 1.0001, PyTorch's is 1; expected within 1e-05"
    ):
        agree("w", [side(1.0001)], side(1.0))
    with pytest.raises(RuntimeError, match="step 1 is nan"):
        agree("w", [side(1.0, float("nan"))], side(1.0, 1.0))
    with pytest.raises(RuntimeError, match=r"w: the loss of step 1 is 2.0, the eager step's 2.5; expected bit for bit"):
        same_bits("w", [1.0, 2.0], [1.0, 2.5])


def test_a_block_is_as_many_whole_epochs_as_take_the_time():
    from bench.steps.sides import Side, time_sides

    steps = []
    side = Side("run", [], steps.append, unit=40)
    timings = time_sides([side], blocks=3, seconds=1e-9)
    assert steps == [40] * 6  # a warm-up, a trial, the block kept out, three blocks
    assert len(timings["run"].measured) == 3


def test_planning_is_that_of_a_program_not_yet_cached():
    from bench.steps.sides import plan

    w = tiny("2-25", batch=7)  # a batch that no other test compiles
    planned = plan(w, w.variants[0])
    assert planned.recorded == 2
    assert 0 < planned.arena <= planned.unshared
    assert planned.instructions > 0


# --- long loops ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["two LSTM cells", "a spring"])
def test_the_loops_are_those_of_torch(name):
    from bench.steps.growth import LOOPS

    make = LOOPS[name][0]
    (ours, mine), (theirs, reference) = make(tg, 5), make(torch, 5)
    compiled, again = make(tg, 5)
    compiled = tg.compile(compiled)
    for _ in range(3):
        loss = ours()
        assert compiled().item() == loss.item()
        assert loss.item() == pytest.approx(theirs().item(), rel=1e-5)
    for a, b, c in zip(mine, again, reference, strict=True):
        assert torch.equal(a.grad.data, b.grad.data)
        torch.testing.assert_close(a.grad.data, c.grad, rtol=1e-4, atol=1e-7)


def test_planning_a_longer_loop_takes_instructions_in_proportion():
    from bench.steps.growth import LOOPS, growth, plain, report

    for name in LOOPS:
        found = growth(name, [3, 6, 9], 1)
        a, b, c = found.instructions
        assert c - b == b - a > 0
        assert min(found.planning + found.eager) > 0
        assert plain(found)["exponent"] == found.exponent
        assert f"{name}, 9" in report([found])


def test_the_exponent_is_that_of_a_power():
    from bench.steps.growth import Growth, report

    def of(power):
        lengths = [50, 100, 200, 400]
        return Growth("loop", lengths, [10 * n for n in lengths], [2e-6 * n**power for n in lengths], [1e-3] * 4)

    assert of(1.5).exponent == pytest.approx(1.5)
    lines = report([of(1.1), of(2.0)]).splitlines()[2:]
    assert [line.split()[-1] for line in lines if "1.2" in line.split()] == ["1.2", "ABOVE"]


# --- rows, tables, files ------------------------------------------------------------------------------------------


def test_every_goal_names_a_column():
    from bench.steps.rows import FIGURES, OTHERS
    from bench.steps.workloads import WORKLOADS

    goals = [goal for w in WORKLOADS for v in w.variants for goal in v.goals]
    assert len(goals) == 18
    assert {goal.figure for goal in goals} <= set(FIGURES)
    assert {goal.against for goal in goals} <= set(OTHERS)


def test_ratios_stand_beside_their_goals():
    from bench.steps import tables as step_tables
    from bench.steps.rows import row

    w = workload("17-64")
    timings = {"tapegrad run": timing(1e-6), "PyTorch eager": timing(20e-6), "JAX scan": timing(1.4e-6)}
    others = {name: timings[name] for name in ("PyTorch eager", "JAX scan")}
    shared = {"threads": 1, "others": others, "missing": {}, "choice": "fused", "compile_seconds": {}}
    one = row(w, w.variants[0], None, timings, {**shared, "planning_wanted": w.planning})
    assert [(v.goal.times, v.met) for v in one.verdicts] == [(13, True), (1.5, False)]
    lines = step_tables.ratios([one]).splitlines()[2:]
    assert [line.split()[-2:] for line in lines] == [["20.00", "13"], ["1.5", "BELOW"]]
    assert step_tables.plain(one)["figures"]["run"]["median"] == 1e-6


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_that_of_the_steps(monkeypatch):
    from bench.steps import memory as step_memory

    w = workload("autoencoder")
    rows = step_memory.peaks([dataclasses.replace(w, variants=w.variants[:1])])
    assert [row["side"] for row in rows] == ["eager", "compiled", "PyTorch", "PyTorch, channels_last"]
    activations = 100 * 32 * (16 * 16 + 8 * 8 + 16 * 16) * 4  # what backward reads, at least
    assert min(row["first"] for row in rows) > activations
    assert "of PyTorch's least" in step_memory.report(rows)
    monkeypatch.setattr(step_memory.memory, "available", lambda: False)
    assert "not measured: needs Linux" in step_memory.report(step_memory.peaks([w]))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_writes_json_and_a_picture(monkeypatch, tmp_path, capsys, threads):
    from bench import cli
    from bench.steps import growth
    from bench.steps import memory as step_memory
    from bench.steps import rows as step_rows
    from bench.steps import suite as steps
    from bench.steps.sides import Unavailable

    def unavailable(*arguments):
        raise Unavailable("not installed")

    monkeypatch.setattr(steps, "WORKLOADS", [tiny("2-25-25-25-2 ReLU, batch 25, MSE, SGD")])
    monkeypatch.setattr(step_rows.torch_compiled, "forward_backward", unavailable)
    monkeypatch.setattr(step_rows.torch_compiled, "whole_step", unavailable)
    monkeypatch.setattr(step_rows.jax_side, "sides", unavailable)
    monkeypatch.setattr(step_memory, "peaks", lambda workloads: [])
    monkeypatch.setattr(growth, "LOOPS", {"a spring": (growth.physics, (4, 8, 16, 32))})
    assert cli.main(["steps", "--quick", "--threads", str(threads), "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "steps.json").read_text())
    assert [row["threads"] for row in result["rows"]] == [1, 2][:threads]
    assert [loop["lengths"] for loop in result["growth"]] == [[4, 8]]
    first = result["rows"][0]
    assert set(first["figures"]) == {"eager", "call", "run"}
    assert all(figure["median"] > 0 for figure in first["figures"].values())
    assert first["missing"]["JAX scan"] == "not installed"
    assert first["plan"]["recorded"] >= 2
    if threads == 2:
        assert [goal["against"] for goal in result["rows"][1]["verdicts"]] == ["run, 1 thread"]
    assert (tmp_path / "steps.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "run / PyTorch eager" in capsys.readouterr().out


def test_the_folded_autoencoder_is_the_autoencoder():
    from bench.common.networks import autoencoder, folded_autoencoder
    from bench.steps.workloads import load

    weights = workload("autoencoder").weights()
    x = tg.rand(2, 3, 32, 32)
    plain, folded = (load(network, tg, weights)(x).data for network in (autoencoder, folded_autoencoder))
    assert torch.allclose(plain, folded, rtol=1e-5, atol=1e-6)
