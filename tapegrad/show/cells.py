"""What a notebook shows: `_repr_html_` of `Tensor`, `Tape`, `Module` and `Compiled`. Nothing is recorded, and the
pictures need nothing but the standard library.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Sequence
from html import escape

import torch

from ..core import Tape, Tensor, bytes_text, describe
from ..nn import Module

_FEW = 256  # elements that are shown as numbers
_LEAST = 8  # rows and columns of a picture
_SIDE = 256  # pixels of a picture's longer side, at most
_PICTURES = 16  # of a batch
_BARS = 40
_ROWS = 60  # of a table; the middle of a longer one is left out
_STYLE = (
    "<style>.tg{font:12px/1.45 ui-monospace,monospace;overflow-x:auto}.tg table{border-collapse:collapse;font:inherit}"
    ".tg td,.tg th{text-align:left!important;padding:1px 10px 1px 0;white-space:pre}.tg .bad{color:#e5534b}"
    ".tg img{image-rendering:pixelated;margin:2px 4px 2px 0}.tg .pale{opacity:.65}.tg pre{margin:2px 0}</style>"
)


def _cell(*parts: str) -> str:
    return f'{_STYLE}<div class="tg">{"".join(parts)}</div>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"<td>{escape(text)}</td>" for text in row) for row in rows]
    if len(lines) > _ROWS:
        left_out = len(lines) - _ROWS
        lines[_ROWS // 2 : -(_ROWS // 2)] = [f'<td class="pale">... {left_out} more ...</td>']
    titles = "".join(f"<th>{escape(text)}</th>" for text in head)
    return f"<table><tr>{titles}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


# --- tensors -------------------------------------------------------------------------------------------------------


def cell_of_tensor(t: Tensor) -> str:
    """Its type; the values of a small one, a picture of what may be an image, else how the values are spread."""
    value = t._data
    facts = [type(t).__name__, describe(value), bytes_text(value.numel() * value.itemsize)]
    facts += ["requires_grad"] if t.requires_grad else []
    head = f"<div><b>{escape(facts[0])}</b> {escape('  '.join(facts[1:]))}</div>"
    pictures = _pictures(value)
    if pictures:
        return _cell(head, _summary(value), f"<div>{''.join(map(_image, pictures))}</div>")
    if value.numel() > _FEW and not value.is_complex():
        return _cell(head, _summary(value), _histogram(value))
    return _cell(head, f"<pre>{escape(repr(t))}</pre>")


def _summary(value: torch.Tensor) -> str:
    """``mean 0.01  std 1.2  from -3 to 4``; what is not finite in red."""
    flat = value.to(torch.float64).flatten()
    finite = flat[flat.isfinite()]
    bad = len(flat) - len(finite)
    text = "no finite value"
    if len(finite):
        numbers = (finite.mean(), finite.std(correction=0), finite.min(), finite.max())
        text = "mean {:.4g}  std {:.4g}  from {:.4g} to {:.4g}".format(*map(float, numbers))
    red = f'<div class="bad">{bad} not finite</div>' if bad else ""
    return f'<div class="pale">{text}</div>{red}'


def _pictures(value: torch.Tensor) -> list[torch.Tensor]:
    """[H, W, 3] each, between 0 and 1: of [H, W], [C, H, W], [H, W, C] or [N, C, H, W] with C = 1 or 3; what is not
    finite is red."""
    if value.is_complex() or value.numel() <= _FEW:
        return []
    if value.ndim == 2:
        images = value[None, None]
    elif value.ndim == 3 and value.shape[0] in (1, 3):
        images = value[None]
    elif value.ndim == 3 and value.shape[2] in (1, 3):
        images = value.permute(2, 0, 1)[None]
    elif value.ndim == 4 and value.shape[1] in (1, 3):
        images = value[:_PICTURES]
    else:
        return []
    if min(images.shape[2:]) < _LEAST:
        return []
    step = -(-max(images.shape[2:]) // _SIDE)
    images = images[:, :, ::step, ::step].to(torch.float64)
    good = images.isfinite()
    finite = images[good]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    images = (images / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)  # halved: the difference of huge values is finite
    images = images.where(good, torch.zeros((), dtype=torch.float64)).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).clone()
    images[~good.all(1)] = torch.tensor([0.85, 0.2, 0.2], dtype=torch.float64)
    return list(images)


def _image(image: torch.Tensor) -> str:
    """A PNG in the page."""
    height, width = image.shape[:2]
    scale = max(1, 96 // max(height, width))
    data = base64.b64encode(png(image)).decode()
    return f'<img width="{width * scale}" height="{height * scale}" src="data:image/png;base64,{data}">'


def png(image: torch.Tensor) -> bytes:
    """An image [H, W, 3] of numbers between 0 and 1 as a PNG file."""
    height, width = image.shape[:2]
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).reshape(height, 3 * width)
    rows = torch.cat([torch.zeros(height, 1, dtype=torch.uint8), pixels], 1)  # before each row its filter: none
    data = zlib.compress(bytes(rows.flatten().tolist()))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    framed = [struct.pack(">I", len(c)) + name + c + struct.pack(">I", zlib.crc32(name + c)) for name, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def _histogram(value: torch.Tensor) -> str:
    """How many values lie in each of `_BARS` equal parts of their range, as SVG."""
    flat = value.to(torch.float64).flatten()
    finite = flat[flat.isfinite()]
    if not len(finite):
        return ""
    low, high = float(finite.min()), float(finite.max())
    place = (finite / 2 - low / 2) / ((high / 2 - low / 2) or 1.0) * _BARS
    counts = torch.bincount(place.long().clamp(0, _BARS - 1), minlength=_BARS).tolist()
    most = max(counts)
    bars = [
        f'<rect x="{8 * i}" y="{60 - 60 * n / most:.1f}" width="7" height="{60 * n / most:.1f}">'
        f"<title>{n} values from {low + (high - low) * i / _BARS:.4g}</title></rect>"
        for i, n in enumerate(counts)
        if n
    ]
    marks = f'<text x="0" y="74">{low:.4g}</text><text x="{8 * _BARS}" y="74" text-anchor="end">{high:.4g}</text>'
    return (
        f'<svg width="{8 * _BARS}" height="78" fill="currentColor" font-size="11">'
        f'<g opacity=".55">{"".join(bars)}</g>{marks}</svg>'
    )


# --- tapes, models, steps ------------------------------------------------------------------------------------------


def cell_of_tape(tape: Tape) -> str:
    """The list, with times."""
    seconds = sum(note.forward for note in tape.notes.of)
    size = sum(entry.nbytes for entry in tape.entries)
    head = f"<div><b>Tape</b> {len(tape)} entries  {bytes_text(size)}  {1e6 * seconds:,.0f} us forward</div>"
    return _cell(head, _table(("", "type", "size", "source"), tape._rows()))


def cell_of_module(module: Module) -> str:
    """Its layers, how deep they lie, and their parameters."""
    count = sum(p.numel() for p in module.parameters())
    size = sum(p.numel() * p.dtype.itemsize for p in module.parameters())
    mode = "training" if module.training else "evaluation"
    head = f"<b>{escape(type(module).__name__)}</b> {count:,} parameters  {bytes_text(size)}  {mode}"
    rows = []
    for name, layer in module.named_modules():
        own = list(layer.parameters(recurse=False))
        deep = "  " * name.count(".") if name else ""
        extra = layer.extra_repr().replace("\n", " ")
        text = f"{type(layer).__name__}({extra})" if extra else type(layer).__name__
        shapes = ", ".join(str(list(p.shape)) for p in own)
        rows.append((f"{deep}{name or '(itself)'}", text, shapes, f"{sum(p.numel() for p in own):,}" if own else ""))
    return _cell(f"<div>{head}</div>", _table(("layer", "", "parameters", ""), rows))


def cell_of_step(title: str, programs: list[list[tuple[str, str, str, str]]], notes: list[str]) -> str:
    """A compiled step's programs, the one used last first: rows of (by, instruction, size, source)."""
    parts = [f"<div><b>compiled {escape(title)}</b> {len(programs)} programs</div>"]
    for i, (rows, note) in enumerate(zip(programs, notes, strict=True)):
        opened = " open" if i == 0 else ""
        table = _table(("", "instruction", "size", "source"), rows)
        parts.append(f"<details{opened}><summary>{escape(note)}</summary>{table}</details>")
    return _cell(*parts)
