"""Tapes, steps and models as pages: what the data say, and what a browser shows."""

import json
import re
import shutil
from pathlib import Path

import compile_checks
import pytest
import torch
from compile_checks import training_step

import tapegrad as tg
from tapegrad import nn


def network():
    tg.manual_seed(0)
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), nn.Linear(8, 3))
    model.names = "outer"
    return model


def data_of(path):
    page = path.read_text(encoding="utf-8")
    assert "http://www.w3.org/2000/svg" in page
    assert not re.search(r"(src|href)\s*=", page)  # nothing is fetched
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[1])


def taped(tmp_path, backward=True):
    model, x, y = network(), tg.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])
    with tg.Tape() as tape:
        hidden = model[0](x)
        loss = nn.functional.cross_entropy(model[1](hidden), y)
    if backward:
        loss.backward()
    return tape, hidden, tape.show(tmp_path / "tape.html")


def test_a_tapes_rows_are_its_lines(tmp_path):
    tape, hidden, path = taped(tmp_path)
    data = data_of(tmp_path / "tape.html")
    assert path == str(tmp_path / "tape.html")
    printed = [line.split("  ")[0].strip() for line in str(tape).splitlines()]
    assert [row["text"] for row in data["rows"]] == printed
    entries = [row for row in data["rows"] if row["op"] not in ("leaf", "value")]
    assert (
        [row["op"] for row in entries]
        == [entry.op.name for entry in tape]
        == ["linear", "relu", "linear", "cross_entropy"]
    )
    for row, entry in zip(entries, tape, strict=True):
        assert (row["bytes"], row["source"]) == (entry.nbytes, entry.source)
    here = data["sources"][tape[0].source]
    assert here == ["hidden = model[0](x)", Path(__file__).as_uri()]
    relu = entries[1]
    assert data["rows"][relu["reads"][0]] is data["rows"][data["rows"].index(entries[0])]
    mean, std, low, high, zeros, bad = relu["stats"][0]
    value = hidden.data
    expected = [value.mean(), value.std(correction=0), value.min(), value.max(), (value == 0).double().mean(), 0]
    assert [mean, std, low, high, zeros, bad] == pytest.approx([float(v) for v in expected], rel=1e-5, abs=1e-7)
    assert entries[3]["grads"][0][:4] == [1.0, 0.0, 1.0, 1.0]
    assert all(row["forward"] > 0 for row in entries)
    assert all(row["backward"] > 0 for row in entries[1:])


def test_gradients_are_those_of_backward(tmp_path):
    model, x = network(), tg.randn(5, 4)
    with tg.Tape() as tape:
        h = model[0][0](x)
        r = nn.functional.relu(h)
        loss = (r * r).sum()
    h.retain_grad()
    loss.backward()
    tape.show(tmp_path / "t.html")
    row = next(row for row in data_of(tmp_path / "t.html")["rows"] if row["op"] == "linear")
    g = h.grad.data
    assert row["grads"][0][:4] == pytest.approx(
        [float(g.mean()), float(g.std(correction=0)), float(g.min()), float(g.max())]
    )


def test_module_paths_and_parameter_names(tmp_path):
    model = network()
    model.show(tg.randn(2, 4), path=tmp_path / "m.html")
    assert all(p.grad is None for p in model.parameters())
    data = data_of(tmp_path / "m.html")
    by_op = [(row["op"], row["path"]) for row in data["rows"]]
    assert ("leaf", ["0", "0.0", "0.0.weight"]) in by_op
    assert ("relu", ["0", "0.1"]) in by_op
    assert ("linear", ["1"]) in by_op
    assert data["title"] == "Sequential"


def test_memory_is_what_rules_hold(tmp_path):
    x = tg.randn(1000, requires_grad=True)  # 4,000 bytes
    with tg.Tape() as tape:
        y = x * 2  # saves nothing
        z = tg.exp(y)  # saves its output
        w = z + 1  # saves nothing
        loss = w.sum()
    loss.backward()
    tape.show(tmp_path / "t.html")
    memory = data_of(tmp_path / "t.html")["memory"]
    assert memory["curve"][:4] == [4000, 8000, 8000, 8004]  # y; y, z; z, w; z, w, loss
    assert memory["curve"][4:] == [4000, 4000, 4000, 0]  # z until the rule of exp has run


def test_nan_is_marked_and_text_is_escaped(tmp_path):
    class Sneaky(nn.Module):
        def forward(self, x):
            return self.inner(x)

    Sneaky.__name__ = "</script><script>alert(1)</script>"
    model = Sneaky()
    model.inner = nn.Linear(1, 1)
    model.inner.weight.data.fill_(float("nan"))
    model.show(tg.ones(2, 1), path=tmp_path / "s.html")
    data = data_of(tmp_path / "s.html")
    assert data["title"] == Sneaky.__name__
    assert "<script>alert" not in (tmp_path / "s.html").read_text()
    assert next(row for row in data["rows"] if row["op"] == "linear")["stats"][0][5] == 2


def test_a_steps_page(tmp_path):
    model, x, y = network(), tg.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])
    optimizer = tg.optim.Adam(model.parameters())

    @tg.compile
    def step(x, y):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    before = model[1].weight.clone()
    step.show(x, y, path=tmp_path / "step.html")
    assert torch.equal(before.data, model[1].weight.data)
    data = data_of(tmp_path / "step.html")
    assert data["entries"] == sum(row["path"][0] != "once" for row in data["rows"])
    assert data["guards"]
    assert all(p.grad is None for p in model.parameters())
    texts = [row["text"] for row in data["rows"]]
    assert "%4 f32[5, 8] = linear(x, 0.0.weight, 0.0.bias)" in texts
    assert next(t for t in texts if t.startswith("adam_(")).startswith("adam_([0.0.weight ... 1.bias: 4], lr, ")
    timed = [row for row in data["rows"] if row["path"][0] != "once"]
    assert all(row["ns"] > 0 and 0 <= row["share"] <= 1 for row in timed)
    times = dict(data["sides"])
    assert list(times) == ["eager", "call", "run", "instructions alone"]
    assert times["instructions alone"] == pytest.approx(sum(row["ns"] for row in timed))
    assert all(ns > 0 for ns in times.values())
    ends = {offset + size for _, offset, size, _, _ in data["arena"]}
    assert max(ends) == data["arenaBytes"]
    for a in data["arena"]:
        for b in data["arena"]:
            if a is not b and a[3] <= b[4] and b[3] <= a[4]:  # both alive
                assert a[1] + a[2] <= b[1] or b[1] + b[2] <= a[1]


def test_showing_a_step_changes_nothing_that_it_left(tmp_path):
    model, x, y = network(), tg.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])
    model.append(nn.Dropout(0.5))
    optimizer = tg.optim.Adam(model.parameters())
    step = tg.compile(training_step(model, optimizer, nn.functional.cross_entropy))
    for _ in range(4):
        step(x, y)
    before, replays = compile_checks.state([model], [optimizer]), step._bound
    stream = tg.get_rng_state().tolist()
    step.show(x, y, path=tmp_path / "step.html")
    step.profile(x, y)
    assert compile_checks.state([model], [optimizer]) == before
    assert tg.get_rng_state().tolist() == stream
    assert step._bound is replays


def test_what_has_no_run_says_so(tmp_path):
    step = tg.compile(lambda x: tg.flip(x * 2, (0,)))
    step.show(tg.ones(3, 2), path=tmp_path / "step.html")
    data = data_of(tmp_path / "step.html")
    assert dict(data["sides"])["run"] is None
    flip = next(row for row in data["rows"] if "flip" in row["op"])
    assert (flip["path"], flip["why"]) == (["torch"], "tapegrad has no kernel of it")


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    tape = taped(tmp_path, backward=False)[0]
    with pytest.raises(tg.ArgumentError, match="cannot be written: No such file"):
        tape.show(tmp_path / "missing" / "t.html")


def test_without_a_path_it_is_a_temporary_file(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with tg.Tape() as tape:
        (tg.ones(2, requires_grad=True) * 2).sum()
    path = tape.show()
    assert path.endswith(".html")
    assert "tapegrad" in Path(path).read_text()
    Path(path).unlink()


# --- in a browser --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser, path, **options):
    page = browser.new_page(**options)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(path.as_uri())
    return page


def test_the_list_filters_and_lights_up(browser, tmp_path):
    taped(tmp_path)
    page = opened(browser, tmp_path / "tape.html", viewport={"width": 1200, "height": 800})
    assert page.locator(".row").count() == 8
    page.select_option("#op", "linear")
    assert page.locator("#count").inner_text() == "2 of 8"
    page.select_option("#op", "")
    page.fill("#find", "relu(")
    assert page.locator(".row").count() == 1
    page.fill("#find", "")
    page.get_by_text("relu(").hover()
    assert "= relu(" in page.locator(".row.here").inner_text()
    assert "= linear(" in page.locator(".row.read").inner_text()
    assert "= linear(" in page.locator(".row.user").inner_text()
    assert page.locator(".row.user").count() == 1
    assert page.locator("#code").inner_text().endswith("hidden = model[0](x)")
    link = page.locator(".row.here a")
    assert (link.get_attribute("href"), link.get_attribute("title")) == (
        Path(__file__).as_uri(),
        "hidden = model[0](x)",
    )
    page.click("[data-tab=graph]")
    assert page.locator("#graph rect").count() > 2
    page.click("[data-tab=memory]")
    assert "peak" in page.locator("#memory").inner_text()
    assert page.errors == []


def test_ten_thousand_lines_stay_a_few_elements(browser, tmp_path):
    y = tg.ones(2, requires_grad=True)
    with tg.Tape() as tape:
        for _ in range(5000):
            y = y * 1.0001 + 0.1
    tape.show(tmp_path / "long.html")
    page = opened(browser, tmp_path / "long.html", viewport={"width": 390, "height": 800})
    assert page.locator("#count").inner_text() == "10001 of 10001"
    assert page.locator(".row").count() < 120
    page.evaluate("document.getElementById('scroll').scrollTop = 1e9")
    page.wait_for_function("[...document.querySelectorAll('.row')].some(e => e.dataset.row === '10000')")
    assert page.errors == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_sneaky_name_does_nothing(browser, tmp_path):
    test_nan_is_marked_and_text_is_escaped(tmp_path)
    page = opened(browser, tmp_path / "s.html")
    assert page.locator("h1").inner_text() == "</script><script>alert(1)</script>"
    assert "2 bad" in page.locator(".bad").all_inner_texts()
    assert page.errors == []
