"""The op table: one row per public function, walked by the tests."""

from __future__ import annotations

from . import composed, elementwise, factor, further, linalg, losses, networks, order, reductions, shapes, special
from .spec import Row

_FAMILIES = (elementwise, special, reductions, shapes, linalg, networks, losses, composed, factor, order, further)
rows: dict[str, Row] = {row.name: row for family in _FAMILIES for row in family.rows}
