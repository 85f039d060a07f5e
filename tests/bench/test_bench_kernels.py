"""Suite `kernels`: both sides compared before they are timed, goals, tables and files; and the page of ops."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from bench_checks import bench_package as bench_package
from bench_checks import threads as threads

import tapegrad as tg

ROOT = Path(__file__).resolve().parents[2]


def case(name):
    from bench.kernels.cases import all_cases

    return next(c for c in all_cases(True) if c.name.startswith(name))


def peak():
    from bench.common.peaks import Peaks

    return Peaks(1, {"products": 1e11, "registers": 2e11}, {1 << 20: 8e10, 1 << 28: 1e10})


# --- cases -------------------------------------------------------------------------------------------------------


def test_every_case_agrees_with_pytorch_before_it_is_timed():
    from bench.kernels.cases import all_cases
    from bench.kernels.suite import check

    for c in all_cases(True):
        values = c.make()
        assert max(x.numel() for x in values) <= c.elements
        if c.elements > 100_000:
            continue
        leaves = len(values) - c.constants
        check(
            c,
            [tg.Tensor(x, requires_grad=i < leaves) for i, x in enumerate(values)],
            [[x.clone().requires_grad_(i < leaves) for i, x in enumerate(values)]],
        )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: tg.relu(x) * 1.001, r"relu 3e4: the value differs from PyTorch's by \d"),
        (lambda x: tg.relu(x).detach() + 0.5 * (tg.relu(x) - tg.relu(x).detach()), "the gradient of input 0 differs"),
        (lambda x: tg.relu(x).double(), r"the value is torch.float64 \[30000\], PyTorch's is torch.float32"),
        (lambda x: tg.relu(x).reshape(3, -1), r"the value is torch.float32 \[3, 10000\]"),
    ],
)
def test_a_wrong_result_stops_the_benchmark(wrong, message):
    from bench.kernels.suite import measure

    with pytest.raises(RuntimeError, match=message):
        measure(dataclasses.replace(case("relu 3e4"), ours=wrong), peak(), True)


def test_a_row_has_both_sides_the_kernel_and_the_rate():
    from bench.kernels.suite import cells, measure

    rows = measure(case("conv2d (100,3,10,10)"), peak(), True)
    assert [row["what"] for row in rows] == ["forward", "forward + backward"]
    flops = 2 * 100 * 3 * 8 * 8 * 3 * 9
    for row, work in zip(rows, (flops, 3 * flops), strict=True):
        assert row["rate"] == pytest.approx(work / row["kernel"].median)
        assert row["share"] == pytest.approx(row["rate"] / 2e11)
        assert row["torch"].median > 0
    assert rows[1]["unrecorded"] is None
    assert cells({**rows[0], "goal": None})[0] == "conv2d (100,3,10,10) 3->3 3x3/1, reports, forward"


# --- the kernel itself -------------------------------------------------------------------------------------------


def test_a_kernel_called_directly_gives_what_the_tape_gives():
    from bench.kernels.direct import kernel_calls

    x, w, b = (torch.randn(shape) for shape in ((5, 4), (3, 4), (3,)))
    leaves = [tg.Tensor(v, requires_grad=True) for v in (x, w, b)]
    g = torch.randn(5, 3)
    forward, both = kernel_calls(tg.linear, leaves, g)
    y = tg.linear(*leaves)
    y.backward(g)
    assert torch.equal(forward(), y.data)
    for got, leaf in zip(both(), leaves, strict=True):
        assert torch.equal(got, leaf.grad.data)


def test_what_torch_computes_has_no_kernel():
    from bench.kernels.direct import kernel_calls

    x = tg.Tensor(torch.randn(3, 3), requires_grad=True)
    assert kernel_calls(tg.asinh, [x], torch.ones(3, 3)) == (None, None)
    assert kernel_calls(lambda x: tg.linear(x, x) + 1, [x], torch.ones(3, 3)) == (None, None)


# --- goals -------------------------------------------------------------------------------------------------------


def timing(seconds):
    from bench.common.timing import Timing

    return Timing(0, [seconds])


def judged(isa="avx512", **changes):
    from bench.kernels.goals import judge

    row = {"name": "gelu 1e6", "what": "forward", "threads": 1, "elements": 10**6, "kernel": None, "ratio": 0.5}
    return judge({**row, "tapegrad": timing(2e-6), "torch": timing(1e-6), **changes}, isa)


def test_rows_are_held_to_their_goals():
    product = {"name": "matmul 64x64x64", "elements": 4096}
    assert not judged(**product, ratio=1.9).met
    assert judged(**product, ratio=2.0).met
    assert judged("avx2", **product, ratio=1.2).text == "1.1x"
    assert judged(**product, ratio=1.9, threads=2).text == "+1.5 us"
    assert judged() is None  # large, and torch does the work
    assert not judged(kernel=timing(1e-6)).met
    assert judged(elements=100).met
    assert not judged(elements=100, tapegrad=timing(2.6e-6)).met


def test_every_goal_names_a_row():
    from bench.kernels.cases import all_cases
    from bench.kernels.goals import EVERYWHERE, GOALS
    from bench.kernels.steps import all_steps
    from bench.kernels.tapes import all_tapes

    names = (
        [t.name for t in all_tapes()]
        + [c.name for c in all_cases(True)]
        + [s.task.name for s in all_steps() if hasattr(s, "task")]
    )
    for name, _, _ in [goal for table in GOALS.values() for goal in table] + EVERYWHERE:
        assert sum(n.startswith(name) for n in names) == 1, name


# --- peaks, steps, memory ----------------------------------------------------------------------------------------


def test_peaks_are_the_highest_rate_and_the_copy_of_a_like_size():
    assert peak().flops == 2e11
    assert peak().bytes(100) == peak().bytes(1 << 21) == 8e10
    assert peak().bytes(1 << 27) == 1e10


def test_peaks_are_measured():
    from bench.common import peaks

    measured = peaks.measure(1, 0.01)
    assert measured.flops > 0
    assert all(rate > 0 for rate in measured.bytes_by_size.values())


def test_an_update_that_differs_is_refused():
    from bench.common.networks import digits_mlp
    from bench.kernels.steps import Update

    ours, theirs = digits_mlp(tg.nn), digits_mlp(torch.nn)
    with pytest.raises(RuntimeError, match="Adam over 784-128-10: after three updates a parameter differs"):
        Update("Adam").check(ours, theirs)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_that_of_the_step():
    from bench.kernels import memory

    peaks = memory.peak_memory()
    activations = 100 * 32 * (16 * 16 + 8 * 8 + 16 * 16) * 4  # what backward reads, at least
    assert min(peaks.values()) > activations
    assert "PyTorch, channels_last" in memory.report(peaks)


# --- the whole suite ---------------------------------------------------------------------------------------------


def test_a_run_writes_json_a_picture_and_the_page(monkeypatch, tmp_path, capsys):
    from bench import cli
    from bench.common import peaks
    from bench.kernels import memory, steps
    from bench.kernels import suite as kernels

    monkeypatch.setattr(kernels, "all_cases", lambda quick: [case("relu 3e4"), case("upsample"), case("getitem")])
    monkeypatch.setattr(peaks, "measure", lambda threads, seconds: dataclasses.replace(peak(), threads=threads))
    step = next(s for s in steps.all_steps() if isinstance(s, steps.Step))
    monkeypatch.setattr(steps, "all_steps", lambda: [steps.Update("SGD"), step])
    monkeypatch.setattr(memory, "peak_memory", lambda: {"tapegrad": 1 << 20, "PyTorch": 2 << 20})
    assert cli.main(["kernels", "--quick", "--threads", "1", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "kernels.json").read_text())
    assert [row["name"] for row in result["rows"]][-1] == "2-25-25-25-2, SGD, batch 25"
    assert len(result["rows"]) == 10
    assert all(row["tapegrad"]["median"] > 0 for row in result["rows"])
    assert (tmp_path / "kernels.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "ops.md").exists()
    assert "goals met" in capsys.readouterr().out


# --- the page of ops ---------------------------------------------------------------------------------------------


def test_the_committed_page_of_ops_is_the_registry():
    from bench.pages import ops as ops_page

    committed = (ROOT / "bench" / "results" / ops_page.PAGE).read_text()
    assert committed == ops_page.page(), f"out of date; regenerate it with: {ops_page.COMMAND}"


def test_the_page_says_what_an_op_saves_and_who_computes_it():
    from bench.pages.ops import row
    from tapegrad.core import registry

    conv = row(registry["conv2d"])
    assert conv == ("`conv2d`", "input, weight, bias", "`input`, `weight`", "yes", "yes", "C++", "C++, fused")
    assert row(registry["isnan"]) == ("`isnan`", "none", "", "", "", "torch", "")
    assert row(registry["sin"])[2:] == ("`input`", "yes", "yes", "torch", "torch")


def test_a_rule_that_calls_a_kernel_past_the_ops_has_no_second_order():
    from bench.pages.ops import calls_kernels_directly
    from tapegrad.core import registry
    from tapegrad.ops import conv

    assert not calls_kernels_directly(registry["conv2d"].rules["input"].function)
    assert calls_kernels_directly(registry["conv2d"].backward.function)
    assert calls_kernels_directly(conv.conv2d_op.op.forward)


def test_a_users_op_is_not_on_the_page():
    from bench.pages.ops import own_ops

    @tg.op(x=lambda g: 3 * g)
    def threefold_for_the_page(x):
        return 3 * x

    assert "threefold_for_the_page" not in [op.name for op in own_ops()]
