"""Suite `reports`: its command line, data, training loop on both sides, workers, tables and page."""

import dataclasses
import functools
import json
import math
from pathlib import Path

import pytest
import torch
from bench_checks import bench_package as bench_package
from bench_checks import threads as threads

import tapegrad as tg

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _one_thread(threads):
    """The networks are small: a second thread only waits."""
    torch.set_num_threads(1)


class InProcess:
    """What `Workers` does, without processes."""

    processes = 2

    def map(self, function, jobs, steps, label):
        assert len(jobs) == len(steps)
        return [function(*job) for job in jobs]


@pytest.fixture
def few_points(monkeypatch):
    """Fifty points instead of a thousand."""
    from bench.reports import points, r4

    monkeypatch.setattr(points, "N", 50)
    monkeypatch.setattr(points, "VALIDATION", 10)
    monkeypatch.setattr(r4, "N", 50)


# --- the command line --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reports", "--only", "r1,r9"], "--only: unknown report 'r9'; known: r1, r2, r3, r4, r5"),
        (["kernels", "--only", "r1"], "--only chooses reports of suite 'reports'; the suite is 'kernels'"),
    ],
)
def test_a_wrong_choice_of_reports_is_refused(arguments, message, capsys):
    from bench import cli

    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unwritable_folder_is_refused_before_anything_runs(tmp_path, capsys):
    from bench import cli

    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        cli.main(["reports", "--quick", "--out", str(tmp_path / "file" / "x")])
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert "Not a directory" in printed.err
    assert printed.out == ""


def test_a_report_that_fails_does_not_lose_the_others(monkeypatch, tmp_path, capsys):
    from bench import cli
    from bench.reports import r1, r2
    from bench.reports.record import add_table, result

    def fails(options, workers):
        raise RuntimeError("no luck")

    def works(options, workers):
        one = result("r2", "A title", ["one condition"])
        add_table(one, "A caption", ["", "time in s"], [["tapegrad", "1.5"]])
        return one

    monkeypatch.setattr(r1, "run", fails)
    monkeypatch.setattr(r2, "run", works)
    threads = torch.get_num_threads()
    assert cli.main(["reports", "--only", "r1,r2", "--out", str(tmp_path)]) == 1
    assert torch.get_num_threads() == threads
    assert json.loads((tmp_path / "r2.json").read_text())["title"] == "A title"
    assert "| tapegrad | 1.5 |" in (tmp_path / "README.md").read_text()
    printed = capsys.readouterr()
    assert "RuntimeError: no luck" in printed.err
    assert "FAILED: r1" in printed.out


# --- points ------------------------------------------------------------------------------------------------------


def test_balanced_accuracy_is_the_mean_over_classes():
    from bench.reports.points import balanced_accuracy

    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    output = torch.eye(2)[torch.tensor([0, 0, 0, 1, 1, 0])]
    assert balanced_accuracy(output, labels) == pytest.approx(100 * (3 / 4 + 1 / 2) / 2)
    constant = torch.eye(2)[torch.zeros(6, dtype=torch.long)]
    assert balanced_accuracy(constant, labels) == pytest.approx(50)


def test_psnr_is_that_of_the_plain_formula():
    from bench.common.tasks import psnr

    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 3, 4, 4, generator=generator), torch.rand(2, 3, 4, 4, generator=generator)
    squares = [(p - q) ** 2 for p, q in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)]
    assert psnr(a, b) == pytest.approx(10 * math.log10(1 / (sum(squares) / len(squares))))


def test_validation_points_are_training_points_left_out():
    from bench.reports.points import Problem, split

    problem = Problem("disk", low=-1)
    whole, part = split(problem, 3), split(problem, 3, validate=True)
    points, labels = tg.data.disk(1000, seed=7)
    unseen, unseen_labels = tg.data.disk(1000, seed=8)
    assert torch.equal(part.points_test, points[800:])
    assert torch.equal(part.labels_test, labels[800:])
    assert torch.equal(whole.points_test, unseen)
    assert torch.equal(whole.labels_test, unseen_labels)
    mean, sd = points[:800].double().mean(0), points[:800].double().std(0, correction=0)
    torch.testing.assert_close(part.x_test, ((points[800:] - mean) / sd).float())
    assert torch.equal(whole.y[labels == 1], torch.tensor([[-1.0, 1.0]]).expand(int(labels.sum()), 2))
    assert torch.equal(Problem("disk").targets(labels), torch.eye(2)[labels])


def test_folds_of_report_4_use_the_training_points_alone():
    from bench.reports.r4 import FOLDS, folded

    points, _ = tg.data.quarter_circle(1000, seed=1)
    held_out = torch.cat([folded(0, fold).points_test for fold in range(FOLDS)])
    assert torch.equal(held_out.sort(0).values, points.sort(0).values)
    assert len(folded(0, 0).x) == 800


def test_the_learning_rate_is_the_best_of_the_validation_split(monkeypatch):
    from bench.common.networks import mlp
    from bench.reports import points
    from bench.reports.training import Recipe

    def scores(jobs, problem, validate=False):
        assert validate
        return [{0.1: 90.0, 0.2: 95.0, 0.4: 95.0}[recipe.rate] + (0.5 if seed else -0.5) for recipe, seed in jobs]

    monkeypatch.setattr(points, "scores", scores)
    recipe = Recipe(mlp, "MSELoss", "SGD", 0.0, batch_size=25, epochs=2)
    chosen, found = points.choose_rates(InProcess(), [recipe], points.Problem("disk"), (0.4, 0.1, 0.2), range(2))
    assert chosen == [dataclasses.replace(recipe, rate=0.2)]
    assert found == [{0.4: 95.0, 0.1: 90.0, 0.2: 95.0}]


def test_trainings_together_are_those_of_each_alone(few_points):
    from bench.common.networks import mlp
    from bench.reports import points, r2
    from bench.reports.training import Recipe

    recipe = Recipe(mlp, "MSELoss", "Adam", 0.01, batch_size=25, epochs=3)
    problem = points.Problem("disk")
    alone = [points.score("tapegrad", recipe, problem, seed) for seed in range(3)]
    assert points.scores([(recipe, seed) for seed in range(3)], problem) == alone
    assert [one["accuracy"] for one in r2.rounds_of("tapegrad", recipe, range(3))] == alone


# --- the training loop -------------------------------------------------------------------------------------------


def recipes():
    from bench.common.networks import autoencoder, mlp
    from bench.reports.r3 import recipe_of as of_r3
    from bench.reports.r4 import THREE
    from bench.reports.r4 import recipe_of as of_r4
    from bench.reports.training import Recipe

    return {
        "r2": Recipe(mlp, "MSELoss", "SGD", 0.1, 25, 2),
        "r3": dataclasses.replace(of_r3("cross-entropy", "Adam", "LeakyReLU", 2), rate=0.003),
        "r4": dataclasses.replace(of_r4(THREE[2], 2), batch_size=10, rate=0.01),
        "r5": Recipe(autoencoder, "MSELoss", "Adam", 0.002, 4, 2, channels_last=True),
    }


@pytest.mark.parametrize("name", ["r2", "r3", "r4", "r5"])
def test_both_sides_have_the_same_losses(name):
    from bench.reports.points import Problem, split
    from bench.reports.training import Training

    recipe = recipes()[name]
    if name == "r5":
        x, y, _ = tg.data.noisy_patches(12, seed=0)
    else:
        points = split(Problem("disk"), 0)
        x, y = points.x[:110], points.y[:110]  # the last batch is smaller
    sides = {side: Training(side, recipe, seed=0) for side in ("tapegrad", "torch")}
    rates = []
    after = [lambda epoch: rates.append(sides["torch"].optimizer.param_groups[0]["lr"]), None]
    losses = [side.fit(x, y, each) for side, each in zip((sides["torch"], sides["tapegrad"]), after, strict=True)]
    assert losses[0].shape == (2, recipe.steps(len(x)) // 2)
    # a few float32 updates let rounding grow a little
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses[1][0, 0], losses[0][0, 0], rtol=1e-6, atol=0)
    torch.testing.assert_close(sides["tapegrad"].predict(x), sides["torch"].predict(x), rtol=1e-3, atol=1e-4)
    assert rates == [recipe.rate / 2, 0]
    assert sides["tapegrad"].optimizer.param_groups[0]["lr"] == 0


def test_the_eager_run_takes_the_batches_of_the_seed():
    from bench.reports.training import run_eagerly

    x, y = torch.arange(10.0), torch.arange(10.0) * 2
    seen, epochs = [], []

    def step(x, y):
        seen.append((x, y))
        return x.sum()

    losses = run_eagerly(step)(x, y, batch_size=4, epochs=2, seed=5, on_epoch=lambda e, losses: epochs.append(e))
    expected = [batch for epoch in range(2) for batch in tg.data.batches(x, y, batch_size=4, seed=5, epoch=epoch)]
    assert all(torch.equal(a, b) for got, want in zip(seen, expected, strict=True) for a, b in zip(got, want))  # noqa: B905
    assert torch.equal(losses.flatten(), torch.stack([batch[0].sum() for batch in expected]))
    assert epochs == [0, 1]


def test_initial_weights_of_report_3_have_the_sd_of_equation_5():
    from bench.reports.r3 import xavier

    model = torch.nn.Sequential(torch.nn.Linear(400, 600), torch.nn.ReLU(), torch.nn.Linear(600, 400))
    torch.manual_seed(0)
    xavier(model, gain=math.sqrt(2))
    # 240,000 draws: the SD of the sample is within 0.2 % of the true one (1 / sqrt(2 n) = 0.14 %, fixed seed)
    assert model[0].weight.std().item() == pytest.approx(math.sqrt(2) * math.sqrt(2 / 1000), rel=5e-3)
    assert model[2].weight.std().item() == pytest.approx(math.sqrt(2 / 1000), rel=5e-3)
    assert model[0].bias.std().item() == pytest.approx(math.sqrt(2) * math.sqrt(2 / 1000), rel=0.1)  # 600 draws


def test_initial_weights_of_report_4_lie_within_kaimings_bounds():
    from bench.reports.r4 import kaiming

    model = torch.nn.Sequential(torch.nn.Linear(50, 200), torch.nn.ReLU(), torch.nn.Linear(200, 50))
    kaiming(model, "ReLU")
    for layer, bound in ((model[0], math.sqrt(2) * math.sqrt(3 / 50)), (model[2], 5 / 3 * math.sqrt(3 / 200))):
        assert 0.99 * bound < layer.weight.abs().max().item() <= bound
        assert not layer.bias.any()


# --- workers -----------------------------------------------------------------------------------------------------


def test_jobs_run_in_processes_and_come_back_in_order():
    from bench.reports.workers import Workers, advance

    with Workers(1) as workers:
        assert workers.map(math.sqrt, [(4,), (9,), (16,)], [1, 1, 1], "roots") == [2, 3, 4]
        with pytest.raises(ValueError, match="math domain error"):
            workers.map(math.sqrt, [(-1,), (4,)], [1, 1], "roots")
        workers.map(advance, [(3,), (4,)], [3, 4], "steps")  # the pool is still there
        assert workers.counter.value == 7


# --- report 5's modules ------------------------------------------------------------------------------------------


def test_differences_are_the_largest_of_each_run():
    from bench.reports.modules import COMPARED, SHAPE, differences, pair, summed_up

    found = differences("Conv2d", 5, 2)
    assert list(found) == ["output", "input", "weight", "bias"]
    _, theirs = pair("Conv2d", 5)
    x = torch.randn(SHAPE)
    exact = torch.nn.functional.conv2d(x.double(), theirs.weight.double(), theirs.bias.double())
    difference = (theirs(x) - exact).abs().max().item()
    assert found["output"]["PyTorch - float64"][0] == pytest.approx(difference)
    for part in found.values():
        assert list(part) == list(COMPARED)
        assert all(0 <= value < 1e-5 for values in part.values() for value in values)
    summed = summed_up([{"x": {what: list(runs) for what in COMPARED}} for runs in ((1.0, 2.0), (6.0,))])
    assert summed["x"][COMPARED[0]] == {"mean": 3.0, "sd": pytest.approx(math.sqrt(7)), "largest": 6.0}


def test_the_sigmoids_gradient_is_right():
    from bench.reports.modules import differences

    found = differences("Sigmoid", 0, 1)
    assert found["input"]["tapegrad - float64"][0] < 1e-6  # the report's is off by 0.25


def test_times_have_both_sides():
    from bench.reports.modules import times

    row = times("MSE", 3)
    assert row["runs"] == 3
    assert 10 <= row["calls"] <= 1000
    assert row["layout"] in ("contiguous", "channels_last")
    assert all(row[side][0] > 0 for side in ("tapegrad", "torch"))


def test_the_photograph_left_out_is_not_trained_on():
    from bench.reports.autoencoder import patches

    first, _, _, clean = patches(validate=True)
    whole, _, all_clean = tg.data.noisy_patches(4000, sigma=0.2, seed=0)
    assert (len(first), len(clean)) == (3200, 800)
    assert torch.equal(clean, all_clean[4::5])  # of five photographs in turn
    assert torch.equal(first[3], whole[3])
    assert torch.equal(first[4], whole[5])


# --- tables and page ---------------------------------------------------------------------------------------------


def test_figures_carry_their_spread():
    from bench.reports.record import mean_sd, scientific

    assert mean_sd([97.0, 98.0, 99.0]) == "98.00 ± 1.00"
    assert mean_sd([0.95], 3) == "0.950"
    assert scientific(3.77e-7, 1.08e-7) == "(3.77 ± 1.08)e-7"
    assert scientific(1e-9, 2e-8) == "(0.10 ± 2.00)e-8"
    assert scientific(0.0, 0.0) == "0 ± 0"


def test_the_page_has_tables_goals_and_pictures():
    from bench.reports.page import page
    from bench.reports.record import add_goal, add_picture, add_table, result, text

    one = result("r3", "Twelve rows", ["disk of 1000 points"])
    add_table(one, "Accuracy", ["", "printed", "here"], [["MSE, SGD", "96.7", 98.5]])
    add_goal(one, "at least printed", "12 of 12", True)
    add_goal(one, "faster", "0.9x", False)
    add_picture(one, "r3_rows.png", "All rows")
    machine = {"processor": "A processor", "isa": "avx2", "threads": 2, "python": "3.11", "torch": "2", "tapegrad": "0"}
    one |= {"environment": machine, "quick": False, "seconds": 90.0}
    written = page([one])
    assert "`python bench reports --out bench/results`" in written
    assert "- A processor (avx2), 2 processes of one thread, Python 3.11, torch 2, tapegrad 0\n" in written
    assert "r3 in 1.5 minutes" in written
    assert "|  | printed | here |\n| --- | ---: | ---: |\n| MSE, SGD | 96.7 | 98.5 |\n" in written
    assert "| at least printed | 12 of 12 | yes |\n| faster | 0.9x | **no** |\n" in written
    assert "![All rows](r3_rows.png)" in written
    assert "a quick run" in page([{**one, "quick": True}])
    assert "MISSED" in text(one)


def test_report_1_compares_all_methods(few_points, monkeypatch, tmp_path):
    from bench.cli import Options
    from bench.reports import r1

    monkeypatch.setattr(r1, "GRID", (0.1,))
    one = r1.run(Options(True, tmp_path, 1), InProcess())
    names = ["logistic regression", "k-NN", "random forest", "SVM", "PyTorch", "tapegrad"]
    assert [row[0] for row in one["tables"][0]["rows"]] == names
    scores = one["data"]["scores"]
    # 60 float32 updates: a point of 50 near the boundary may fall on the other side
    assert scores["tapegrad"] == pytest.approx(scores["PyTorch"], abs=2)
    assert (tmp_path / "r1_comparison.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    json.dumps(one)


def test_report_4_draws_curves_of_both_sides(few_points, monkeypatch, tmp_path):
    from bench.cli import Options
    from bench.reports import r4

    monkeypatch.setattr(r4, "GRID", (0.003,))
    one = r4.run(Options(True, tmp_path, 1), InProcess())
    assert [len(table["rows"]) for table in one["tables"]] == [8, 4]
    equal = [goal for goal in one["goals"] if "first 100 losses" in goal["goal"]]
    assert len(equal) == 3
    assert all(goal["met"] for goal in equal)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r4_activations.png", "r4_curves.png"]
    json.dumps(one)


def test_report_2s_picture_marks_wrong_points(tmp_path):
    from bench.reports import drawing

    points, labels = tg.data.disk(50, seed=0)
    drawing.predictions(
        tmp_path / "p.png", points, labels, {"tapegrad": (1 - labels).tolist(), "PyTorch": labels.tolist()}
    )
    assert (tmp_path / "p.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_networks_are_built_as_told():
    from bench.common.networks import mlp

    model = functools.partial(mlp, hidden=2, activation=("LeakyReLU", 0.05), last="Tanh", dropout=0.1)(torch.nn)
    names = [type(layer).__name__ for layer in model]
    assert names == ["Linear", "LeakyReLU", "Dropout", "Linear", "LeakyReLU", "Dropout", "Linear", "Tanh"]
    assert [tuple(p.shape) for p in model.parameters()] == [(25, 2), (25,), (25, 25), (25,), (2, 25), (2,)]
    assert model[1].negative_slope == 0.05
