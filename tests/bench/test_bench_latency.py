"""Suite `latency`: its sides answer alike, and what cannot be measured is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bench_checks import bench_package as bench_package
from bench_checks import threads as threads

import tapegrad as tg


@pytest.fixture
def sides():
    from bench.latency import sides

    return sides


@pytest.fixture
def suite():
    from bench.latency import suite

    return suite


def test_our_sides_answer_as_pytorch(sides):
    question = sides.Question()
    with torch.no_grad(), tg.no_grad():
        expected = question.torch_model(question.x).numpy()
        for side in [*sides.ours(question), *sides.numpy(question)]:
            np.testing.assert_allclose(side.answer, expected, atol=1e-6)
            assert side.call() is not None


def test_an_onnx_model_without_the_package(sides):
    pytest.importorskip("onnxruntime")
    question = sides.Question()
    (side,) = sides.onnx_runtime(question)
    with torch.no_grad():
        np.testing.assert_allclose(side.answer, question.torch_model(question.x).numpy(), atol=1e-6)


def test_a_side_that_answers_otherwise_stops_the_suite(sides, suite):
    good = sides.Side("good", np.zeros((1, 6)), lambda: None)
    with pytest.raises(RuntimeError, match="bad: answers"):
        suite.agree([good, sides.Side("bad", np.ones((1, 6)), lambda: None)])


def test_the_parts_of_a_call_add_up(suite):
    step, arguments = suite.training()
    rows = dict(suite.apart(step, arguments, 2))
    whole = rows.pop("whole call")
    assert {"guards", "instructions", "the call itself"} <= set(rows)
    assert sum(rows.values()) == pytest.approx(whole, abs=len(rows))
