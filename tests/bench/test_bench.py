"""The benchmark frame: its command line, fair timing, tables, and each training on a few steps."""

import dataclasses
import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bench_checks import bench_package as bench_package

import tapegrad as tg

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments, cwd=ROOT):
    """Run a bench command as a user would: (exit code, everything printed)."""
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


# --- the command line --------------------------------------------------------------------------------------------


def test_an_unknown_suite_is_refused_with_the_known_ones():
    code, printed = command("bench", "speed")
    assert code == 2
    assert "invalid choice: 'speed'" in printed
    assert "train" in printed


def test_an_unwritable_folder_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    code, printed = command("bench", "--quick", "--out", str(tmp_path / "file" / "results"))
    assert code == 2
    assert f"--out: cannot write to '{tmp_path / 'file' / 'results'}': Not a directory" in printed
    assert "tapegrad 0" not in printed  # the first line of a run


def test_threads_below_one_are_refused():
    code, printed = command("bench", "--threads", "0")
    assert code == 2
    assert "--threads must be at least 1; got 0" in printed


def test_a_missing_extra_is_refused_with_the_command(monkeypatch, capsys, tmp_path):
    from bench import cli

    find = cli.importlib.util.find_spec
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name))
    with pytest.raises(SystemExit) as stop:
        cli.main(["--quick", "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert "scikit-learn missing; install with: pip install '.[bench]'" in capsys.readouterr().err


@pytest.mark.parametrize("call", [["bench"], ["-m", "bench"]])
def test_the_uncompiled_source_folder_does_not_hide_the_installed_package(call, tmp_path):
    shutil.copytree(ROOT / "bench", tmp_path / "bench", ignore=shutil.ignore_patterns("out", "__pycache__"))
    (tmp_path / "tapegrad").mkdir()
    (tmp_path / "tapegrad" / "__init__.py").write_text("raise ImportError('the source folder was imported')")
    (tmp_path / "tapegrad" / "_C.pyi").write_text("")  # the stub, which is no extension
    (tmp_path / "file").write_text("")
    code, printed = command(*call, "--out", "file/x", cwd=tmp_path)
    assert code == 2
    assert "cannot write" in printed  # it got past the check that imports tapegrad
    assert "source folder" not in printed


# --- timing ------------------------------------------------------------------------------------------------------


def test_blocks_take_turns():
    from bench.common.timing import take_turns

    calls = []
    seen = []
    timings = take_turns(
        [lambda: calls.append("A"), lambda: calls.append("B")], blocks=3, calls=2, warmup=1, after_block=seen.append
    )
    assert "".join(calls) == "AABB" + "BBAA" + "AABB"
    assert seen == [0, 1, 2]
    assert [len(t.blocks) for t in timings] == [3, 3]
    assert [len(t.measured) for t in timings] == [2, 2]
    with pytest.raises(ValueError, match="warmup = 3 must be at least 0 and below blocks = 3"):
        take_turns([], blocks=3, calls=1, warmup=3)


def test_figures_are_those_of_the_blocks_behind_the_warm_up():
    from bench.common.timing import Timing, ratio

    a = Timing(1, [100.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert (a.median, a.spread) == (3.0, 1.0)
    b = Timing(1, [100.0, 2.0, 4.0, 6.0, 8.0, 50.0])
    assert ratio(a, b) == 2.0
    assert Timing(0, [1.0]).spread == 0


# --- tables ------------------------------------------------------------------------------------------------------


def test_a_table_is_aligned():
    from bench.common.tables import table

    assert table(["", "step"], [["tapegrad", "1 ms"], ["x", "10.5 ms"]]) == (
        "             step\n"
        "--------  -------\n"
        "tapegrad     1 ms\n"
        "x         10.5 ms"
    )  # fmt: skip


def test_times_carry_their_unit():
    from bench.common.tables import seconds

    assert [seconds(s) for s in (2.5, 0.0123, 4.56e-5, 0.9999e-3)] == ["2.5 s", "12.3 ms", "45.6 us", "999.9 us"]


# --- the trainings -----------------------------------------------------------------------------------------------


@functools.cache
def few_samples(load):
    data = load()
    test = tuple(x[:20] for x in data.test)
    return dataclasses.replace(data, train=tuple(x[:40] for x in data.train), test=test)


def tiny(name):
    from bench.train.tasks import TASKS

    task = next(task for task in TASKS if task.name == name)
    load = functools.partial(few_samples, task.load)
    return dataclasses.replace(task, load=load, steps=4, calls=1, batch_size=10)


@pytest.mark.parametrize("name", ["disk", "digits", "autoencoder"])
def test_both_sides_take_the_same_steps(name):
    from tqdm import tqdm

    from bench.train.suite import report, train

    result, sides, data = train(tiny(name), 4, tqdm(disable=True))
    ours, theirs = result["sides"]["tapegrad"], result["sides"]["torch"]
    assert len(ours["losses"]) == len(theirs["losses"]) == 4
    # three float32 updates let rounding grow a little
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-4)
    assert ours["losses"][0] == pytest.approx(theirs["losses"][0], rel=1e-6)
    assert ours["scores"] == pytest.approx(theirs["scores"], abs=0.5)
    assert result["first_gradients"]["relative"] < 1e-5
    assert result["score_steps"] == [0, 1, 2, 3, 4]
    assert torch.allclose(sides[0].predict(data.test[0]), sides[1].predict(data.test[0]), atol=1e-3)
    text = report(result, 2)
    assert re.search(r"^tapegrad +\d", text, re.MULTILINE)
    assert re.search(r"^PyTorch, .+ +\d", text, re.MULTILINE)


def test_a_wrong_gradient_stops_the_benchmark(monkeypatch):
    from bench.common import sides

    @tg.op(input=lambda g, out: g * out)  # off by the factor (1 - out)
    def sigmoid(input):
        return torch.sigmoid(input)

    class Wrong(tg.nn.Module):
        def forward(self, x):
            return sigmoid(x)

    monkeypatch.setattr(tg.nn, "Sigmoid", Wrong)
    task = tiny("autoencoder")
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RuntimeError, match=r"autoencoder: the gradients of the first step differ from PyTorch's by"):
        sides.check_gradients(task, sides.initial_weights(task), x, x)


def test_psnr_and_accuracy():
    from bench.common.tasks import accuracy, psnr

    assert psnr(torch.full((2, 2), 0.1), torch.zeros(2, 2)) == pytest.approx(20)
    assert accuracy(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([1, 1])) == 50


def test_a_run_writes_json_and_pictures(monkeypatch, tmp_path, capsys):
    from bench import cli
    from bench.train import suite as train

    monkeypatch.setattr(train, "TASKS", [tiny(name) for name in ("disk", "digits", "autoencoder")])
    assert cli.main(["--quick", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "train.json").read_text())
    assert [r["name"] for r in result["results"]] == ["disk", "digits", "autoencoder"]
    assert result["environment"]["threads"] == torch.get_num_threads()
    assert result["results"][2]["input"] == [10, 3, 32, 32]
    for name in ("curves.png", "denoised.png"):
        assert (tmp_path / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    printed = capsys.readouterr()
    assert "noisy input" in printed.out
    assert printed.err == ""  # no progress bar where there is no terminal
