"""The op table: one row per public function, walked by the tests."""

from __future__ import annotations

from . import elementwise, linalg, losses, networks, reductions, shapes
from .spec import Row

rows: dict[str, Row] = {
    row.name: row for family in (elementwise, reductions, shapes, linalg, networks, losses) for row in family.rows
}
