"""Nested dicts of tensors as safetensors files.

The format: 8 bytes, little-endian, giving the length of a JSON header; the header,
``{name: {"dtype": ..., "shape": ..., "data_offsets": [begin, end]}}``; the tensors' bytes, without gaps. Other text
belongs under the header's key ``__metadata__``, and there `save` puts how the tensors are nested and what lies between
them. A flat dict of tensors needs none of that: its file is what any safetensors reader expects, and `load` reads
theirs.

Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import torch

from .border import plain
from .errors import DTypeError, StateError
from .tensor import Tensor

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_KEY = "tapegrad"  # of our entry in the metadata
_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit

assert sys.byteorder == "little"  # files hold little-endian numbers, and are written and read as they lie in memory


# --- nesting -----------------------------------------------------------------------------------------------------


def _pack(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` as JSON, its tensors moved to `tensors` under names made of their keys."""
    if isinstance(value, Tensor | torch.Tensor):
        data = value.data if isinstance(value, Tensor) else plain(value, f"save: {path}")
        name = path
        while name in tensors or name in ("", "__metadata__"):
            name += "_"
        tensors[name] = data.detach().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise TypeError(f"save: {path or 'obj'}: keys must be str or int; got {key!r}")
        below = f"{path}." if path else ""
        return {"dict": [[key, _pack(item, f"{below}{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        below = f"{path}." if path else ""
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_pack(item, f"{below}{i}", tensors) for i, item in enumerate(value)]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(
        f"save: {path or 'obj'} must be a tensor, number, str, None, or a dict, list or tuple of them; "
        f"got {type(value).__name__}"
    )


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `_pack`."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in content}
    items = [_unpack(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else {"list": items}[kind]


# --- files -------------------------------------------------------------------------------------------------------


def save(obj: Any, path: str | os.PathLike[str]) -> None:
    """Write tensors, and what surrounds them, as a safetensors file.

    >>> import os, tempfile
    >>> import tapegrad as tg
    >>> path = os.path.join(tempfile.mkdtemp(), "run.safetensors")
    >>> model = tg.nn.Linear(2, 1)
    >>> optimizer = tg.optim.Adam(model.parameters())
    >>> tg.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, path)
    >>> tg.load(path)["epoch"]
    3

    Parameters
    ----------
    obj : a state dict, or any nesting of dicts (str or int keys), lists and tuples of tensors, numbers, str and None
    path : of the file; it is written beside its place first and then moved there, so that it is whole or not there

    Raises
    ------
    TypeError
        naming what cannot be saved. OSError where the file cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _pack(obj, "", tensors)
    flat = isinstance(obj, dict) and all(isinstance(v, Tensor | torch.Tensor) and k in tensors for k, v in obj.items())
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    if not flat:
        header["__metadata__"][_KEY] = json.dumps(tree)
    begin = 0
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())  # so that every tensor lies aligned
    for name in order:
        tensor = tensors[name]
        end = begin + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        begin = end
    if flat:
        header["__metadata__"][f"{_KEY}.order"] = json.dumps(list(tensors))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    target = Path(path)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with open(beside, "xb") as file:
            file.write(len(text).to_bytes(8, "little"))
            file.write(text)
            for name in order:
                tensor = tensors[name]
                size = tensor.numel() * tensor.element_size()
                if size:
                    file.write((ctypes.c_char * size).from_address(tensor.data_ptr()))
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> Any:
    """Read what `save` wrote, with `Tensor` for every tensor; or any other safetensors file, as a flat dict.

    Raises
    ------
    StateError
        for a file that is damaged or no safetensors file, saying where. DTypeError for a tensor of a dtype that
        tapegrad does not have. OSError where the file cannot be read.
    """
    data = bytearray(Path(path).read_bytes())
    try:
        header, start = _header(data)
        metadata = header.pop("__metadata__", {})
        tensors = _tensors(header, data, start)
        if _KEY in metadata:
            return _unpack(json.loads(metadata[_KEY]), tensors)
        order = json.loads(metadata[f"{_KEY}.order"]) if f"{_KEY}.order" in metadata else list(tensors)
        return {name: tensors[name] for name in order} if sorted(order) == sorted(tensors) else tensors
    except DTypeError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        what = str(error) if isinstance(error, StateError) else f"{type(error).__name__}: {error}"
        raise StateError(f"load: {os.fspath(path)!r} is damaged or not a safetensors file: {what}") from error


def _header(data: bytearray) -> tuple[dict[str, Any], int]:
    """(the JSON header, where the tensors begin)."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, _LONGEST_HEADER):
        raise StateError(f"its first 8 bytes announce a header of {length} bytes, the file has {len(data)}")
    header = json.loads(data[8 : 8 + length].decode())
    if not isinstance(header, dict):
        raise StateError(f"its header is a {type(header).__name__}; expected a dict")
    return header, 8 + length


def _tensors(header: dict[str, Any], data: bytearray, start: int) -> dict[str, Tensor]:
    """Every tensor that the header names, with storage of its own."""
    size = len(data) - start
    tensors: dict[str, Tensor] = {}
    at = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        shape = [int(n) for n in entry["shape"]]
        if entry["dtype"] not in _DTYPES:
            known = ", ".join(_DTYPES)
            raise DTypeError(f"load: tensor {name!r} has dtype {entry['dtype']}; expected one of {known}")
        dtype = _DTYPES[entry["dtype"]]
        if begin != at or end > size or min(shape, default=1) < 0:
            raise StateError(f"tensor {name!r} lies at bytes {begin} to {end}; expected {at} and at most {size}")
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise StateError(f"tensor {name!r} of shape {shape} has {end - begin} bytes of {entry['dtype']}")
        values = torch.empty(math.prod(shape), dtype=dtype)
        if end > begin:
            part = torch.frombuffer(data, dtype=torch.uint8, count=end - begin, offset=start + begin)
            values.view(torch.uint8).copy_(part)
        tensors[name] = Tensor(values.reshape(shape))
        at = end
    if at != size:
        raise StateError(f"{size - at} bytes behind its last tensor belong to nothing")
    return tensors
