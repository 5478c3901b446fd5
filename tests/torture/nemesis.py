"""Rows to come."""

from __future__ import annotations

from torture.rows import Row

ROWS: list[Row] = []
