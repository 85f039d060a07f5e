"""The pages of docs/: their code runs and what it claims is so, what they take from elsewhere is there, links lead to
pages; the site builds where its tools are, fetches nothing, and finds words from a file.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tapegrad as tg

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def hooks():
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.filterwarnings("default")
def test_a_pages_code_runs_and_what_it_claims_is_so(name, hooks):
    text = (ROOT / "docs" / name).read_text()
    if "```python" in text:
        assert text.count("```python") == len(hooks.BLOCK.findall(text))
        assert "<!-- prints -->" in text
    printed = "\n".join(re.findall(r"```text\n(.*?)```", hooks.with_output(text), re.DOTALL))
    assert printed.count("<!--") == 0
    assert not re.search(r"(^|: )False$", printed, re.MULTILINE), printed


def test_sections_files_and_source_are_there_and_links_lead_to_pages(hooks):
    known = {*PAGES, *(f"api/{name}.md" for name in hooks.API), "assets/tape.html", "assets/step.html"}
    for folder, place in hooks.PICTURES.items():
        known |= {f"{place}/{path.name}" for path in (ROOT / folder).glob("*.png")}
    for name in PAGES:
        text = hooks.expanded((ROOT / "docs" / name).read_text())
        assert not re.search(r"^<!-- (readme|page|source|errors)", text, re.MULTILINE), name
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)\)", prose):
            assert target in known or "://" in target, (name, target)


def test_the_table_of_errors_is_the_tree(hooks):
    table = hooks.errors()
    assert "| `MutationError` | `TapeError` |" in table
    names = {name for name in vars(tg) if name.endswith("Error")}
    assert all(f"| `{name}` |" in table for name in names)


def test_docstrings_become_markdown(hooks):
    assert hooks.as_markdown("Files:\n\n    a   first\n    b   second") == "Files:\n\n    a   first\n    b   second"
    text = "One line.\n\nParameters\n----------\nx, y : what\n    goes on\n*arrays : more\n\n>>> 1 + 1\n2\n\n``code``"
    assert hooks.as_markdown(text).split("\n\n") == [
        "One line.",
        "\n**Parameters**",
        "- `x`, `y`: what\n  goes on\n- `*arrays`: more",
        "\n```pycon\n>>> 1 + 1\n2\n```",
        "\n`code`",
    ]


def test_every_page_is_in_the_navigation(hooks):
    navigation = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(navigation) == sorted([*PAGES, *(f"api/{name}.md" for name in hooks.API)])


# --- the site itself -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for name in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(name, reason='needs pip install ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "PYTHONPATH": str(Path(tg.__file__).parents[1]), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-P"] if sys.version_info >= (3, 11) else [sys.executable]
    command += ["-m", "mkdocs", "build", "--strict", "-q", "-f", str(ROOT / "mkdocs.yml"), "-d", str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_has_the_reference_and_fetches_nothing(site):
    ops = (site / "api" / "ops.html").read_text()
    for name in ("exp", "relu", "conv2d", "logsumexp"):
        assert re.search(rf'<h3 id="[\w.]*\b{name}"', ops), name
    fetched = r"<(?:script|link|img|iframe)[^>]+(?:src|href)=.https?://"
    for page in site.rglob("*.html"):
        assert not re.search(fetched, page.read_text(encoding="utf-8")), page


def test_search_works_from_a_file(site):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "tape.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.set_viewport_size({"width": 1280, "height": 800})
        page.click(".md-search__input")
        page.keyboard.type("gradcheck")
        page.wait_for_selector(".md-search-result__item")
        assert "gradcheck" in page.locator(".md-search-result__list").inner_text()
        assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
        browser.close()
