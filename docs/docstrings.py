"""Our docstrings as Markdown: sections become bold lines, ``name : text`` an item of a list, doctests code."""

from __future__ import annotations

import re
from typing import Any

try:
    from griffe import Extension
except ImportError:  # `as_markdown` alone needs none
    Extension = object

_ITEM = re.compile(r"^(\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*) : (.*)")


class Markdown(Extension):
    """Rewrites every docstring that is found."""

    def on_instance(self, *, obj: Any, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """The text of a docstring, its indentation taken off."""
    lines, result, i, in_item = text.split("\n"), [], 0, False
    while i < len(lines):
        line = lines[i]
        following = lines[i + 1] if i + 1 < len(lines) else ""
        item = _ITEM.match(line)
        if line.strip() and re.fullmatch(r"-{3,}", following):
            result += ["", f"**{line.strip()}**", ""]
            i += 2
            continue
        if line.startswith(">>> "):
            block = []
            while i < len(lines) and lines[i].strip():
                block.append(lines[i])
                i += 1
            result += ["", "```pycon", *block, "```", ""]
            continue
        if item:
            names = ", ".join(f"`{name}`" for name in item[1].split(", "))
            result.append(f"- {names}: {item[2].strip()}")
            in_item = True
        elif line.startswith("    ") and in_item:
            result.append("  " + line.strip())
        else:
            in_item = False
            result.append(line)
        i += 1
    return re.sub(r"(?<!`)``([^`]+)``(?!`)", r"`\1`", "\n".join(result))
