"""Suite `growth`: its networks, its count of operations, and what it marks."""

import bench_package  # noqa: F401
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.growth import suite
from bench.growth.axes import AXES, Axis, batch, depth, width
from bench.steps.rows import agree
from bench.steps.sides import FIRST, tapegrad_sides, torch_side


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.name)
def test_all_sides_take_the_same_steps(axis):
    workload, _ = axis.step(axis.values[1])
    (variant,) = workload.variants
    theirs, _ = torch_side(workload, "PyTorch", [1], 0.0)
    assert len(theirs.losses) == FIRST
    agree(workload.name, tapegrad_sides(workload, variant, 1), theirs)


@pytest.mark.parametrize("step", [width, depth, batch])
@pytest.mark.parametrize("n", [4, 8])
def test_the_operations_are_those_that_torch_counts(step, n):
    workload, operations = step(n)
    model = workload.network(torch.nn)
    x, y = workload.arrays(workload.batch)
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.mse_loss(model(x), y).backward()
    assert operations == counter.get_total_flops()


def point(value, operations, run, peer):
    return suite.Point(value, operations, {"tapegrad run": run, suite.TORCH: peer}, 1024, 2048)


def test_a_peer_ahead_and_a_cliff_are_marked():
    axis = Axis("width", "n", (1, 2, 4), lambda n: (None, 0.0))
    text, bad = suite.report(axis, [point(1, 1e6, 1e-5, 2e-5), point(2, 2e6, 2e-5, 4e-5), point(4, 4e6, 5e-5, 1e-4)])
    assert not bad
    assert "BEHIND" not in text
    text, bad = suite.report(axis, [point(1, 1e6, 1e-5, 0.9e-5), point(2, 2e6, 3.1e-5, 1e-4), point(4, 4e9, 1.0, 0.5)])
    assert bad
    lines = text.splitlines()[2:]
    assert lines[0].endswith("BEHIND")
    assert lines[1].endswith("CLIFF")
    assert not lines[2].endswith("BEHIND")  # beyond 1e9 operations


def test_the_picture_shows_every_axis(tmp_path):
    points = [point(1, 1e6, 1e-5, 2e-5), point(2, 2e6, 2e-5, 4e-5)]
    suite.draw(tmp_path / "growth.png", {axis.name: points for axis in AXES}, {"processor": "one", "isa": "none"})
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
