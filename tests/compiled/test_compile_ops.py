"""Every op of the table, compiled: values, first and second derivatives have the bits of the plain call."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compile_checks import bits
from optable import rows
from optable.check import Call, failures
from optable.check import one_thread as one_thread
from optable.spec import Sample

import tapegrad as tg
from tapegrad.core import CompileError

# Samples that are refused, by row, with the reason that the error gives.
REFUSED = {
    "getitem": "boolean mask",
    "index_put": "boolean mask",
    "masked_select": "shape depends on values",
    "one_hot": "one_hot reads a value into Python",  # where num_classes is not given
    "repeat_interleave": "output whose shape depends on values",  # where repeats is a tensor
    "setitem": "boolean mask",
}


TWICE = 2  # samples of a row whose second derivatives are compiled, too: recording them takes a while


def derivatives(call: Call) -> Callable[..., Any]:
    """A step of the sample's arrays: outputs, gradients by fused kernels and by recorded rules, second derivatives."""
    twice = call.sample in call.row.samples[:TWICE] and call.sample.order == 2

    def step(*leaves: Any) -> Any:
        outputs = call.run(call.row.function, leaves)
        inputs = [leaf for leaf in leaves if leaf.requires_grad]
        followed = [out for out in outputs if out.requires_grad]
        results = [out.detach() for out in outputs]
        if not followed or call.sample.order == 0:
            return results
        seeds = [tg.full(out.shape, 0.5, dtype=out.dtype) for out in followed]
        results += tg.grad(followed, inputs, seeds, retain_graph=twice, allow_unused=True)
        if twice:
            first = tg.grad(followed, inputs, seeds, create_graph=True, allow_unused=True)
            known = [(g * g).sum() for g in first if g is not None and g.requires_grad]
            if known:
                results += tg.grad(known, inputs, allow_unused=True)
            results += [None if g is None else g.detach() for g in first]
        return results

    return step


@pytest.mark.parametrize("name", list(rows))
def test_compiled_is_eager(name: str) -> None:
    refused = []

    def check(sample: Sample) -> None:
        call = Call(rows[name], sample, torch.float32)
        step = derivatives(call)
        compiled = tg.compile(step)

        def leaves(values: list[torch.Tensor]) -> list[tg.Tensor]:
            return [tg.Tensor(v.clone(), n) for v, n in zip(values, call.needs, strict=True)]

        other = [v.flip(0) if n and v.ndim else v for v, n in zip(call.values, call.needs, strict=True)]
        try:
            recorded = [bits(compiled(*leaves(call.values))) for _ in range(2)]
        except CompileError as error:
            if not re.search(REFUSED.get(name, "nothing is refused"), str(error)):
                raise
            refused.append(sample)
            return
        assert recorded == [bits(step(*leaves(call.values)))] * 2
        assert len(compiled.programs) == 1
        assert bits(compiled(*leaves(other))) == bits(step(*leaves(other))), "replayed"

    failures(rows[name], check)
    assert bool(refused) == (name in REFUSED)
