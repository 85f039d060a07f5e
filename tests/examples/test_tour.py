"""The notebook of the quick tour runs from the first cell to the last, and shows what it speaks of."""

import os
from pathlib import Path

import pytest

import tapegrad as tg

TOUR = Path(__file__).resolve().parents[2] / "examples" / "tour.ipynb"


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """(source, {mime type: text}, what was printed) of every executed cell of code."""
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient")
    pytest.importorskip("ipykernel", reason="needs ipykernel")
    notebook = nbformat.read(TOUR, as_version=4)
    nbformat.validate(notebook)
    folder = tmp_path_factory.mktemp("tour")
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "IPYTHONDIR")}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(tg.__file__).parents[1]), before["PYTHONPATH"] or ""])
    os.environ["IPYTHONDIR"] = str(folder / "ipython")
    try:
        client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
        client.execute()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = [output.data for output in cell.outputs if output.output_type == "execute_result"]
            printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
            found.append((cell.source, shown[-1] if shown else {}, printed))
    return found


pytestmark = pytest.mark.filterwarnings("default")


def shown(cells, start):
    """What the cell that contains a line shows as HTML, and what it printed."""
    ((data, printed),) = [(data, printed) for source, data, printed in cells if start in source]
    return data.get("text/html", ""), data.get("text/plain", ""), printed


def test_values_have_their_cells(cells):
    assert shown(cells, "load_digits()")[0].count("data:image/png") == 12
    assert "= sin(" in shown(cells, "with tg.Tape()")[0]
    assert "1.3818" in shown(cells, "a.grad")[0]
    assert "2,730 parameters" in shown(cells, "tg.nn.MaxPool2d(2)")[0]
    assert shown(cells, "model.fit(")[0].count("<tr>") == 9
    assert "compiled step" in shown(cells, "def step(")[0]


def test_what_is_printed(cells):
    text = shown(cells, "def step(")[2]
    assert "program: " in text
    assert "0.weight.grad" in text
    assert "of the peak" in shown(cells, "step.profile(")[2]
    assert shown(cells, "tg.grad(first")[1] == "(12.0, 12.0)"


def test_it_is_kept_without_outputs():
    assert '"outputs": []' in TOUR.read_text()
    assert '"execution_count": null' in TOUR.read_text()
    assert "output_type" not in TOUR.read_text()
