"""Nested dicts of tensors as safetensors files; and torch's own files, to be read.

The package ``safetensors`` writes and reads the file: tensors by name, and metadata, text by name. There `save` puts
how the tensors are nested and what lies between them. A flat dict of tensors needs none of that: its file is what any
safetensors reader expects, and `load` reads theirs.

Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, TensorSpec, deserialize, serialize

from ..core import ArgumentError, DTypeError, ShapeError, StateError, Tensor, on_cpu, plain
from ..nn import Parameter
from . import atomic
from .packing import Packer, Unpacker

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


# --- files -------------------------------------------------------------------------------------------------------


def save(obj: Any, f: str | os.PathLike[str] | IO[bytes], *torchs: Any, **options: Any) -> None:
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
    obj : a state dict, or any nesting of dicts, lists, tuples and sets of tensors, numbers, str, None, dtypes and NumPy
        arrays; or a whole module whose class a module has, and whose attributes are such things, modules, and functions
        of tapegrad
    f : the path of the file, or a file open for writing bytes (``io.BytesIO``). A regular file is whole or, if anything
        fails, as it was (`atomic.write`); pipes, devices and files with several names are written in place
    torchs, options : what ``torch.save`` takes about its pickles (``pickle_protocol``, ...) changes nothing

    Raises
    ------
    TypeError
        naming what cannot be saved. OSError where the file cannot be written.
    """
    packer = Packer()
    try:
        tree = json.dumps(packer.pack(obj))
    except RecursionError as error:
        raise ArgumentError("save: obj is nested too deeply, or contains itself") from error
    tensors = packer.tensors
    flat = isinstance(obj, dict) and all(isinstance(v, Tensor | torch.Tensor) and k in tensors for k, v in obj.items())
    flat = flat and type(obj) is dict
    ours = {f"{_KEY}.order": json.dumps(list(tensors))} if flat else {_KEY: tree}  # the package sorts
    specs = {name: _spec(name, tensor) for name, tensor in tensors.items()}
    data = serialize(specs, {"format": "pt", **ours})
    if hasattr(f, "write"):
        f.write(data)
    else:
        atomic.write(f, data)


def _spec(name: str, tensor: torch.Tensor) -> TensorSpec:
    """Where the package finds a tensor's bytes: it reads memory, so that must be there."""
    end, size = tensor.storage_offset() * tensor.element_size() + tensor.nbytes, tensor.untyped_storage().nbytes()
    if tensor.nbytes and end > size:
        raise ShapeError(f"save: {name} of shape {list(tensor.shape)} needs {end} bytes of storage; it has {size}")
    dtype = str(tensor.dtype).removeprefix("torch.")
    return TensorSpec(dtype=dtype, shape=tensor.shape, data_ptr=tensor.data_ptr(), data_len=tensor.nbytes)


def load(
    f: str | os.PathLike[str] | IO[bytes],
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **options: Any,
) -> Any:
    """Read what `save` or ``torch.save`` wrote, with `Tensor` for every tensor; or any safetensors file: a flat dict.

    Parameters
    ----------
    f : the path of the file, or a file open for reading bytes
    map_location : the CPU, or None, a function or a dict that would tell where tensors go
    weights_only : True to refuse whole modules; else one is made anew, of a class that is there, without calling its
        code. A file of torch's is read as with True whatever is said: state dicts and checkpoints, and no pickle
    pickle_module, mmap, options : taken because torch takes them

    Raises
    ------
    StateError
        for a file that is damaged or none of these, saying where. DTypeError for a tensor of a dtype that tapegrad
        does not have, or a place other than the CPU. OSError where the file cannot be read.
    """
    if isinstance(map_location, str | torch.device):
        on_cpu(map_location, "load: map_location")
    if hasattr(f, "read"):
        data, name = f.read(), getattr(f, "name", type(f).__name__)
        left = len(data) - _length(data)
        if left > 0 and hasattr(f, "seek"):  # another object follows
            f.seek(-left, os.SEEK_CUR)
            data = data[: len(data) - left]
    else:
        data, name = Path(f).read_bytes(), os.fspath(f)
    if data[8:9] != b"{" and (data[:4] == b"PK\x03\x04" or data[:1] == b"\x80"):  # a zip archive, or a pickle
        return _torchs(data, repr(name))
    return _ours(data, repr(name), whole=weights_only is not True)


def _length(data: bytes) -> int:
    """Of the safetensors file that the bytes begin with; all of them where they begin with none."""
    header = 8 + int.from_bytes(data[:8], "little")
    if data[8:9] != b"{" or header > len(data):
        return len(data)
    try:
        ends = [entry["data_offsets"][1] for key, entry in json.loads(data[8:header]).items() if key != "__metadata__"]
    except (ValueError, KeyError, TypeError, IndexError):
        return len(data)
    return header + max(ends, default=0)


def _torchs(data: bytes, name: str) -> Any:
    """What ``torch.save`` wrote, with `Tensor` for every tensor."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's about pickle's protocols
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        says = str(error).strip().split("\n")[0]
        raise StateError(
            f"load: {name} is damaged, or holds more than tensors, numbers, text and containers: torch.load with "
            f"weights_only=True says {says!r}; save a state dict"
        ) from error
    return _wrapped(found, "")


def _wrapped(value: Any, path: str) -> Any:
    below = f"{path}." if path else ""
    if isinstance(value, torch.Tensor):
        kept = plain(value.detach(), f"load: tensor {path!r}")
        if isinstance(value, torch.nn.Parameter):
            return Parameter(kept, value.requires_grad)
        return Tensor(kept, requires_grad=value.requires_grad)
    if isinstance(value, dict):
        items = [(key, _wrapped(item, f"{below}{key}")) for key, item in value.items()]
        return OrderedDict(items) if isinstance(value, OrderedDict) else dict(items)
    if type(value) in (list, tuple):
        return type(value)([_wrapped(item, f"{below}{i}") for i, item in enumerate(value)])
    return value


def _ours(data: bytes, file: str, whole: bool) -> Any:
    """What `save` wrote, or any other safetensors file."""
    try:
        entries = deserialize(data)  # type: ignore[no-untyped-call]
        # that has checked all of the file, and answers without its metadata
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header.get("__metadata__") or {}
        del data
        tensors = {name: _tensor(name, entry) for name, entry in entries}
        if _KEY in metadata:
            return Unpacker(tensors, whole).unpack(json.loads(metadata[_KEY]))
        order = json.loads(metadata[f"{_KEY}.order"]) if f"{_KEY}.order" in metadata else list(tensors)
        return {name: tensors[name] for name in order} if sorted(order) == sorted(tensors) else tensors
    except (DTypeError, StateError):
        raise
    except (SafetensorError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        what = str(error) if isinstance(error, SafetensorError) else f"{type(error).__name__}: {error}"
        raise StateError(f"load: {file} is damaged or not a safetensors file: {what}") from error


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
