"""What recording needs to know of torch's operators, read from their schemas once: what they write, make and refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

_UNFILLED = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided"}


class Schema(NamedTuple):
    """What the recorder needs of an operator's schema."""

    names: tuple[str, ...]
    defaults: tuple[Any, ...]
    writes: tuple[int, ...]
    refusal: str | None
    run: Callable[..., Any]
    makes: bool  # a result is memory that it filled
    view: bool  # every result is a view of an argument, it says


class _Schemas(dict[Any, Schema]):
    def __missing__(self, function: Any) -> Schema:
        formal, returned = function._schema.arguments, function._schema.returns
        tags, name = set(function.tags), function._schema.name
        refusal = None
        if name == "aten::_local_scalar_dense" or torch.Tag.data_dependent_output in tags:
            refusal = (
                "reads a value into Python (item(), bool(), float(), print, a branch on it, an index of a torch "
                "tensor); return the tensor and read it after the step, or choose with tg.where"
            )
        elif torch.Tag.dynamic_output_shape in tags and name != "aten::index":
            refusal = "has an output whose shape depends on values; use tg.where, or do this outside the step"
        elif torch.Tag.nondeterministic_seeded in tags:
            refusal = "draws from torch's generator; use tg.rand, tg.randn or tg.nn.functional.dropout"
        elif name == "aten::is_pinned":
            refusal = "is asked for by what takes a value out of the program (DLPack), which a replay cannot follow"
        elif name.startswith(("c10d::", "_c10d_functional::")):
            refusal = (
                "is on its way to other processes when a replay goes on; use tg.distributed.all_reduce or "
                "tg.nn.parallel.DistributedDataParallel"
            )
        elif name in ("aten::set_", "aten::resize_", "aten::resize_as_"):
            refusal = "changes a tensor's storage"
        self[function] = schema = Schema(
            tuple(a.name for a in formal),
            tuple(a.default_value if a.has_default_value() else None for a in formal),
            tuple(i for i, a in enumerate(formal) if a.alias_info is not None and a.alias_info.is_write),
            refusal,
            function._op,
            name not in _UNFILLED,
            refusal is None
            and len(returned) > 0
            and all(r.alias_info is not None and not r.alias_info.is_write for r in returned),
        )
        return schema


schemas = _Schemas()
