"""Nested dicts of tensors as safetensors files.

The package ``safetensors`` writes and reads the file: tensors by name, and metadata, text by name. There `save` puts
how the tensors are nested and what lies between them. A flat dict of tensors needs none of that: its file is what any
safetensors reader expects, and `load` reads theirs.

Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, TensorSpec, deserialize, serialize

from ..core import ArgumentError, DTypeError, ShapeError, StateError, Tensor, plain
from . import atomic

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
_KEY = "tapegrad"  # of our entry in the metadata


# --- nesting -----------------------------------------------------------------------------------------------------


def _pack(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` as JSON, its tensors moved to `tensors` under names made of their keys."""
    if isinstance(value, Tensor | torch.Tensor):
        data = value.data if isinstance(value, Tensor) else plain(value.detach(), f"save: {path}")
        name = path.encode(errors="replace").decode()  # half of a surrogate pair is no text for a file
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
    path : of the file. A regular file is whole or, if anything fails, as it was (`atomic.write`); pipes, devices and
        files with several names are written in place

    Raises
    ------
    TypeError
        naming what cannot be saved. OSError where the file cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    try:
        tree = json.dumps(_pack(obj, "", tensors))
    except RecursionError as error:
        raise ArgumentError("save: obj is nested too deeply, or contains itself") from error
    flat = isinstance(obj, dict) and all(isinstance(v, Tensor | torch.Tensor) and k in tensors for k, v in obj.items())
    ours = {f"{_KEY}.order": json.dumps(list(tensors))} if flat else {_KEY: tree}  # the package sorts
    specs = {name: _spec(name, tensor) for name, tensor in tensors.items()}
    atomic.write(path, serialize(specs, {"format": "pt", **ours}))


def _spec(name: str, tensor: torch.Tensor) -> TensorSpec:
    """Where the package finds a tensor's bytes: it reads memory, so that must be there."""
    end, size = tensor.storage_offset() * tensor.element_size() + tensor.nbytes, tensor.untyped_storage().nbytes()
    if tensor.nbytes and end > size:
        raise ShapeError(f"save: {name} of shape {list(tensor.shape)} needs {end} bytes of storage; it has {size}")
    dtype = str(tensor.dtype).removeprefix("torch.")
    return TensorSpec(dtype=dtype, shape=tensor.shape, data_ptr=tensor.data_ptr(), data_len=tensor.nbytes)


def load(path: str | os.PathLike[str]) -> Any:
    """Read what `save` wrote, with `Tensor` for every tensor; or any other safetensors file, as a flat dict.

    Raises
    ------
    StateError
        for a file that is damaged or no safetensors file, saying where. DTypeError for a tensor of a dtype that
        tapegrad does not have. OSError where the file cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        entries = deserialize(data)  # type: ignore[no-untyped-call]
        # that has checked all of the file, and answers without its metadata
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header.get("__metadata__") or {}
        del data
        tensors = {name: _tensor(name, entry) for name, entry in entries}
        if _KEY in metadata:
            return _unpack(json.loads(metadata[_KEY]), tensors)
        order = json.loads(metadata[f"{_KEY}.order"]) if f"{_KEY}.order" in metadata else list(tensors)
        return {name: tensors[name] for name in order} if sorted(order) == sorted(tensors) else tensors
    except DTypeError:
        raise
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        what = str(error) if isinstance(error, SafetensorError) else f"{type(error).__name__}: {error}"
        raise StateError(f"load: {os.fspath(path)!r} is damaged or not a safetensors file: {what}") from error


def _tensor(name: str, entry: dict[str, Any]) -> Tensor:
    """A tensor with storage of its own."""
    if entry["dtype"] not in _DTYPES:
        raise DTypeError(f"load: tensor {name!r} has dtype {entry['dtype']}; expected one of {', '.join(_DTYPES)}")
    dtype, data = _DTYPES[entry["dtype"]], entry.pop("data")
    if not data:
        return Tensor(torch.empty(entry["shape"], dtype=dtype))
    if dtype is torch.bool:  # any byte but 0 is True, which memory holds as 1
        values = torch.frombuffer(data, dtype=torch.uint8) != 0
    else:
        values = torch.frombuffer(data, dtype=dtype).clone()
    return Tensor(values.reshape(entry["shape"]))
