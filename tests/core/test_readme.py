"""Every Python block of the README runs, and prints the text block that follows it."""

import contextlib
import io
import re
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\s*```text\n(.*?)```)?", README, re.DOTALL)
COMMANDS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=lambda i: re.sub(r"\W+", "-", BLOCKS[i][0].split("\n")[-2]))
def test_block_prints_what_the_readme_says(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a block's files go
    code, expected = BLOCKS[number]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "example.py", "exec"), {"__name__": "example"})
    assert printed.getvalue() == expected


def test_no_block_is_missed():
    assert len(BLOCKS) == README.count("```python") > 0


def test_the_two_commands_are_one_line_each():
    assert [command.count("\n") for command in COMMANDS] == [1, 1]
    assert COMMANDS[0].rstrip().endswith("bench --quick")
    assert COMMANDS[1].rstrip().endswith("pytest -q")
