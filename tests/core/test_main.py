"""``python -m tapegrad`` says what is there and checks it."""

import re

import tapegrad.__main__ as report


def test_the_report_names_versions_and_checks_values(capsys, monkeypatch):
    monkeypatch.setattr(report, "SECONDS", 0.05)
    assert report.main() == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == ["tapegrad", "torch", "python", "processor", "threads", "optional", "check", "speed"]
    assert lines["check"].endswith(": good")
    assert float(re.search(r"by (\S+) of", lines["check"])[1]) < 1e-5
    number = r"[\d.]+"
    forward = f"PyTorch {number}, tapegrad {number}, compiled {number}"
    assert re.search(f"forward {forward}; step of SGD tapegrad {number}, compiled {number}$", lines["speed"])


def test_a_wrong_gradient_is_said(capsys, monkeypatch):
    monkeypatch.setattr(report, "SECONDS", 0.01)
    original = report.nn.functional.cross_entropy
    monkeypatch.setattr(report.nn.functional, "cross_entropy", lambda *args: original(*args) * 2)
    assert report.main() == 1
    assert ": WRONG" in capsys.readouterr().out
