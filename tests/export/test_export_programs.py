"""Exported files as a program of its own: plain, under sanitizers, and on a 32-bit ARM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from export_checks import CASES, STRICT, compiler, program, ready, run

import tapegrad as tg

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C compiler (cc)")
NAMES = ("adamw", "images", "words")  # own mathematics, convolutions and resampling, indices and random numbers
STEPS = 3
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
ARM, QEMU = "arm-linux-gnueabihf-gcc", "qemu-arm"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, np.ndarray]]:
    """By name: the folder of the files, and what the program must print."""
    found = {}
    for name in NAMES:
        folder = tmp_path_factory.mktemp(name)
        one = ready(CASES[name], STEPS)
        x, y = one.batches[0]
        tg.export_c(one.step, x, y, path=folder, name=name, math=one.case.math)
        tg.export_c(one.model, x, path=folder, name=f"{name}_net", math=one.case.math)
        with tg.no_grad():
            out = one.model.eval()(x).data.clone()
        one.model.train()
        losses = [one.step(*batch).item() for batch in one.batches]
        (folder / "main.c").write_text(program(name, one.batches, out.numel()))
        found[name] = folder, np.array([*out.flatten().tolist(), *losses])
    return found


def printed(folder: Path, compile_with: list[str], run_with: list[str]) -> np.ndarray:
    to = folder / f"program-{compile_with[0]}"
    math = ["-lm"] if any("math.h" in path.read_text() for path in folder.glob("*.c")) else []
    run([*compile_with, *sorted(folder.glob("*.c")), "-o", to, *math])
    return np.array([float.fromhex(line) for line in run([*run_with, to]).split()])


def check(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "cc"), [("adamw", "gcc"), ("images", "gcc"), ("words", "clang")])
def test_a_program_is_clean_under_sanitizers(written, name, cc):
    if compiler(cc) is None:
        pytest.skip(f"there is no {cc}")
    folder, want = written[name]
    flags = [f for f in STRICT if f != "-O2"]
    check(printed(folder, [cc, *flags, *SANITIZE], []), want)


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_32_bit_arm_gives_the_same(written, name):
    if compiler(ARM) is None or compiler(QEMU) is None:
        pytest.skip(f"{ARM} and {QEMU} are not installed")
    folder, want = written[name]
    check(printed(folder, [ARM, *STRICT, "-static"], [QEMU]), want)


def test_own_mathematics_needs_no_library(written):
    folder, want = written["adamw"]
    check(printed(folder, ["cc", *STRICT], []), want)
    assert "math.h" not in (folder / "adamw.c").read_text() + (folder / "adamw_net.c").read_text()


def test_nothing_is_allocated_and_no_other_header_is_used(written):
    for name in NAMES:
        folder, _ = written[name]
        for path in (*folder.glob(f"{name}*.c"), *folder.glob(f"{name}*.h")):
            text = path.read_text()
            assert "alloc(" not in text
            used = {line.split()[1] for line in text.splitlines() if line.startswith("#include <")}
            assert used <= {"<math.h>", "<string.h>", "<stdint.h>"}


def test_the_program_is_what_python_computed(written):
    """The reference is not empty: the loss moves from step to step."""
    for _, want in written.values():
        assert len(set(want[-STEPS:])) == STEPS
        assert np.isfinite(want).all()
        assert torch.tensor(want).abs().max() > 1e-3
