"""The programs of examples/ in their short form: what they find, beside PyTorch's, and their pictures."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from optable.check import one_thread as one_thread

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def example(tmp_path, capsys):
    """Runs one; (what its `main` returns, what it printed), after a look at its picture."""

    def run(name):
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found = module.main(["--quick", "--out", str(tmp_path)])
        printed = capsys.readouterr().out
        assert {"tapegrad", "PyTorch"} <= {line.split()[0] for line in printed.splitlines() if line.strip()}
        picture = matplotlib.image.imread(tmp_path / f"{name}.png")
        assert min(picture.shape[:2]) > 200
        assert picture[..., :3].std() > 0.05  # something is drawn
        return found, printed

    return run


def test_every_example_is_run_and_listed():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    here = Path(__file__).read_text()
    page = (EXAMPLES / "README.md").read_text()
    assert len(names) == 8
    assert all(f'example("{name}")' in here and f"({name}.py)" in page for name in names)


def test_digits(example):
    found, _ = example("digits")
    assert min(found["right"].values()) > 0.85  # three epochs


def test_denoise(example):
    found, _ = example("denoise")
    assert min(found["psnr"].values()) > found["noisy"] + 0.5  # after 16 steps, in other orders


def test_burgers(example):
    found, _ = example("burgers")
    ours, torchs = found["losses"]["tapegrad"], found["losses"]["PyTorch"]
    assert ours[:20] == pytest.approx(torchs[:20], rel=1e-3)  # the same steps, to rounding that grows
    assert ours[-1] < 0.7 * ours[0]


def test_cartpole(example):
    found, _ = example("cartpole")
    ours, torchs = found["lengths"]["tapegrad"], found["lengths"]["PyTorch"]
    assert ours[:8] == torchs[:8]  # before the first update every action is the same
    assert np.mean(ours[-8:]) > np.mean(ours[:8])


def test_ensemble(example):
    found, _ = example("ensemble")
    assert all(np.isfinite(list(side.values())).all() for side in found["found"].values())
    assert found["found"]["tapegrad"]["outside"] > found["found"]["tapegrad"]["inside"]


def test_gaussian_process(example):
    found, _ = example("gaussian_process")
    assert found["tapegrad"]["losses"] == pytest.approx(found["PyTorch"]["losses"], rel=1e-9)
    assert found["tapegrad"]["values"] == pytest.approx(found["PyTorch"]["values"], rel=1e-9)


def test_characters(example):
    found, printed = example("characters")
    assert found["losses"]["tapegrad"] == pytest.approx(found["losses"]["PyTorch"], rel=1e-4)
    assert found["losses"]["tapegrad"][-1] < found["losses"]["tapegrad"][0]
    assert found["sample"].startswith("The statement ")
    assert "bits a character" in printed


def test_pendulum(example):
    found, _ = example("pendulum")
    assert found["tapegrad"]["losses"] == pytest.approx(found["PyTorch"]["losses"], rel=1e-9)
    assert found["tapegrad"]["losses"][-1] < found["tapegrad"]["losses"][0]


def test_examples_leave_torchs_settings_alone(example):
    before = torch.get_num_threads(), torch.get_default_dtype()
    example("gaussian_process")
    assert (torch.get_num_threads(), torch.get_default_dtype()) == before
