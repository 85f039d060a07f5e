"""Data and template become a page; the page becomes a file, and is opened if there is a screen."""

from __future__ import annotations

import json
import math
import os
import string
import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import Any

from ..core import ArgumentError


class _Template(string.Template):
    delimiter = "@@"


def render(data: dict[str, Any]) -> str:
    """The page. The data are JSON in which no character can end the script they stand in."""
    template = _Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    text = json.dumps(_plain(data), separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return template.substitute(data=text)


def _plain(value: Any) -> Any:
    """NaN and infinities as text, which JSON has no numbers for."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def publish(page: str, path: str | os.PathLike[str] | None) -> str:
    """Write the page and open it if there is a screen; the path of the file."""
    if path is None:
        handle, name = tempfile.mkstemp(suffix=".html", prefix="tapegrad-")
        os.close(handle)
    else:
        name = os.fspath(path)
    try:
        Path(name).write_text(page, encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"show: path = {name!r} cannot be written: {error.strerror or error}") from error
    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(Path(name).absolute().as_uri())
    return name
