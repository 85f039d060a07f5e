"""What `export_c` takes and refuses, and what the files look like."""

from __future__ import annotations

import os
from pathlib import Path

import bench_package  # noqa: F401  (before bench)
import numpy as np
import pytest
import torch
from export_checks import Step, compiler, library, pointer

import tapegrad as tg
from bench.common.exported import ExportedForward
from tapegrad.core import ArgumentError, CompileError, DTypeError, TapegradError

F, nn = tg.nn.functional, tg.nn
cc = pytest.mark.skipif(compiler() is None, reason="there is no C compiler (cc)")


def network():
    tg.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 2))


def training(model):
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)

    @tg.compile
    def step(x, y):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def test_exporting_changes_nothing(tmp_path):
    model = network()
    step = training(model)
    before = {k: v.data.clone() for k, v in model.state_dict().items()}
    generator = tg.default_generator.get_state()
    tg.export_c(step, torch.ones(4, 3), torch.ones(4, 2), path=tmp_path)
    tg.export_c(model, torch.ones(4, 3), path=tmp_path, name="other")
    assert all(torch.equal(before[k], v.data) for k, v in model.state_dict().items())
    assert tg.default_generator.get_state() == generator
    assert model.training
    assert model[2].training
    assert all(p.grad is None for p in model.parameters())


def test_what_is_returned_is_what_the_header_declares(tmp_path):
    made = tg.export_c(network(), torch.ones(4, 3), path=tmp_path)
    header = made.header.read_text()
    assert all(function in header for function in made.functions)
    assert f"NET_PARAMETER_BYTES {made.parameter_bytes}\n" in header
    assert f"NET_ARENA_BYTES {made.arena_bytes}\n" in header
    assert made.parameter_bytes == 4 * sum(p.numel() for p in network().parameters())
    assert made.functions[0] == "void net_forward(const float *x, float *y);"
    assert made.state_bytes == 0
    step = tg.export_c(training(network()), torch.ones(4, 3), torch.ones(4, 2), path=tmp_path, name="train")
    assert step.functions[1] == "float train_step(struct train *s, const float *x, const float *y);"
    assert step.state_bytes > 0


def test_layers_keep_their_names_and_instructions_their_shapes(tmp_path):
    text = tg.export_c(network(), torch.ones(4, 3), path=tmp_path).source.read_text()
    assert "0.weight [5, 3]" in text
    assert "linear(x [4, 3], 0.weight [5, 3], 0.bias [5])" in text
    assert "3.bias [2]" in text


@pytest.mark.parametrize("path", ["", "sub/", "file", "file.c", "file.h"])
def test_path_is_a_directory_or_a_file(tmp_path, path):
    (tmp_path / "sub").mkdir()
    made = tg.export_c(network(), torch.ones(1, 3), path=os.path.join(tmp_path, path))
    stem = "file" if "file" in path else "net"
    folder = tmp_path / "sub" if path == "sub/" else tmp_path
    assert (made.source, made.header) == (folder / f"{stem}.c", folder / f"{stem}.h")
    assert f'#include "{stem}.h"' in made.source.read_text()


@pytest.mark.parametrize("name", ["", "1net", "my net", "net-2", "int", "float", "é", "a\n", 3])
def test_a_name_that_is_none_in_c_is_refused(tmp_path, name):
    with pytest.raises(ArgumentError, match="name must be an identifier"):
        tg.export_c(network(), torch.ones(1, 3), path=tmp_path, name=name)
    assert not list(tmp_path.iterdir())


def test_bad_arguments_are_refused_and_nothing_is_written(tmp_path):
    x = torch.ones(1, 3)
    with pytest.raises(ArgumentError, match="what must be a module or a compiled step"):
        tg.export_c(lambda x: x, x, path=tmp_path)
    with pytest.raises(ArgumentError, match="math must be 'libm' or 'own'"):
        tg.export_c(network(), x, path=tmp_path, math="fast")
    with pytest.raises(ArgumentError, match="an example of every argument"):
        tg.export_c(network(), path=tmp_path)
    with pytest.raises(DTypeError, match="float16"):
        tg.export_c(network(), x.half(), path=tmp_path)
    with pytest.raises(TapegradError, match="linear"):
        tg.export_c(network(), torch.ones(1, 4), path=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_leaves_what_was_there(tmp_path):
    x = torch.ones(1, 3)
    with pytest.raises(OSError, match="directory that exists") as caught:
        tg.export_c(network(), x, path=tmp_path / "none" / "net.c")
    assert isinstance(caught.value, TapegradError)
    (tmp_path / "net.h").write_text("before")
    (tmp_path / "net.c").mkdir()  # the second file cannot be written
    with pytest.raises(OSError, match="path") as caught:
        tg.export_c(network(), x, path=tmp_path)
    assert isinstance(caught.value, TapegradError)
    assert (tmp_path / "net.h").read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.c", "net.h"]


def test_what_has_no_form_in_c_is_named_with_its_line(tmp_path):
    class Middle(nn.Module):
        def forward(self, x):
            return tg.median(x, 1)[0]

    with pytest.raises(CompileError, match=r"test_export_c.py:\d+: aten.median.*cannot be exported: there is no sel"):
        tg.export_c(Middle(), torch.ones(2, 3), path=tmp_path)
    with pytest.raises(CompileError, match="shape depends on values"):
        tg.export_c(tg.compile(lambda x: x[x > 0]), tg.ones(3), path=tmp_path)
    assert not list(tmp_path.iterdir())


@cc
def test_the_benchmarks_side_computes_what_python_does():
    model, x = network(), torch.randn(2, 3)
    side = ExportedForward(model, x)
    torch.testing.assert_close(side(-x), model.predict(-x).data)
    assert 0 < side.seconds(10) < 1


@cc
def test_several_inputs_and_outputs(tmp_path):
    class Two(nn.Module):
        def forward(self, left, right):
            return left @ right, (left.sum(1, keepdim=True) > 0).long(), left[:, ::2].mT

    left, right = torch.randn(3, 4), torch.randn(4, 5)
    made = tg.export_c(Two(), left, right, path=tmp_path)
    assert "net_forward(const float *left, const float *right, float *y0, int64_t *y1, float *y2)" in made.functions[0]
    want = [t.data for t in Two()(left, right)]
    got = [torch.zeros(t.shape, dtype=t.dtype) for t in want]
    library([made.source], tmp_path / "net.so").net_forward(*map(pointer, [left, right, *got]))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@cc
def test_gradients_that_no_update_reads_are_members_of_the_struct(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2))

    @tg.compile
    def gradient(x):
        model.zero_grad()
        loss = (model(x) ** 2).sum()
        loss.backward()
        return loss

    x = torch.randn(4, 3)
    made = tg.export_c(gradient, x, path=tmp_path)
    in_c = Step(library([made.source], tmp_path / "net.so"), made, "net")
    assert in_c(x) == pytest.approx(gradient(x).item(), rel=1e-5)
    np.testing.assert_allclose(in_c["layer0_weight_grad"], model[0].weight.grad.data.flatten(), rtol=1e-5)


@cc
def test_a_step_of_two_networks_names_both(tmp_path):
    actor, critic = nn.Linear(3, 2), nn.Linear(3, 1)
    first, second = tg.optim.SGD(actor.parameters(), 0.1), tg.optim.Adam(critic.parameters(), 0.01)

    @tg.compile
    def step(x):
        first.zero_grad()
        second.zero_grad()
        loss = (actor(x) ** 2).mean() + (critic(x) ** 2).mean()
        loss.backward()
        first.step()
        second.step()
        return loss

    x = torch.randn(4, 3)
    made = tg.export_c(step, x, path=tmp_path)
    header = made.header.read_text()
    assert "float actor_weight[6]; /* actor.weight [2, 3] */" in header
    assert "float critic_bias_exp_avg[1]; /* critic.bias.exp_avg [1] */" in header
    assert "double lr_0;" in header
    in_c = Step(library([made.source], tmp_path / "net.so"), made, "net")
    for _ in range(5):
        assert in_c(x) == pytest.approx(step(x).item(), rel=1e-5)


@cc
def test_a_training_goes_on_in_c_with_other_results_and_gradients_that_add_up(tmp_path):
    """Five steps in Python, then five in C: a step that returns several things, and keeps its gradients."""
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = tg.optim.Adam(model.parameters(), 0.01)
    model(torch.ones(2, 3)).sum().backward()
    average = tg.Tensor(model[0].weight.data.clone())

    @tg.compile
    def step(x, y):
        out = model(x)
        loss = F.cross_entropy(out, y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        with tg.no_grad():
            average.mul_(0.9).add_(model[0].weight.detach(), alpha=0.1)
        return loss, out.detach().argmax(1)

    batches = [(torch.randn(6, 3), torch.randint(2, (6,))) for _ in range(10)]
    for batch in batches[:5]:
        step(*batch)
    made = tg.export_c(step, *batches[0], path=tmp_path)
    assert made.functions[1].endswith("(struct net *s, const float *x, const int64_t *y, int64_t *out);")
    in_c = Step(library([made.source], tmp_path / "net.so"), made, "net")
    for x, y in batches[5:]:
        classes = torch.zeros(6, dtype=torch.int64)
        loss, want = step(x, y)
        assert in_c(x, y, classes) == pytest.approx(loss.item(), rel=1e-5)
        assert torch.equal(classes, want.data)
    np.testing.assert_allclose(in_c["average"], average.data.flatten(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(in_c["layer2_bias_grad"], model[2].bias.grad.data, rtol=1e-4, atol=1e-6)


@cc
def test_examples_may_lie_anyhow(tmp_path):
    """C gets rows one after another, whatever the strides of the example."""
    model, x = network(), torch.randn(3, 4).t()
    made = tg.export_c(model, x, path=tmp_path)
    got, rows = torch.zeros(4, 2), x.contiguous()
    library([made.source], tmp_path / "net.so").net_forward(pointer(rows), pointer(got))
    torch.testing.assert_close(got, model.eval()(x).data)


def test_a_header_is_also_c_plus_plus(tmp_path):
    header = tg.export_c(network(), torch.ones(1, 3), path=tmp_path).header.read_text()
    assert 'extern "C"' in header
    assert Path(tmp_path / "net.h").exists()
