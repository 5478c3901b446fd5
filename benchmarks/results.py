"""What a row found, as a table for people and as JSON for comparisons.

Format of the JSON: `{"format": 1, "machine": {…}, "rows": [{"name", "work", "figures": {name:
{"median", "min", "max", "samples"}}, "processes": {name: {"cpu_s", "peak_mb"}}, "bars": [{"text",
"value", "limit", "met"}], "faults": […], "notes": […]}]}`. The name of a figure ends in its unit
(`_s`, `_ms`, `_per_s`); one without is a ratio or a count.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.usage import Use

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a row should reach: at most the limit, or at least."""

    text: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Say whether it is reached."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        verdict = "met" if self.met else "MISSED"
        return f"{self.text} {self.value:.3g} {sign} {self.limit:g}: {verdict}"


@dataclass(slots=True, kw_only=True)
class Result:
    """What came of one row; with a fault its figures are worth nothing."""

    row: str
    work: str
    figures: dict[str, list[float]] = field(default_factory=dict)
    uses: list[Mapping[str, Use]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, **figures: float) -> None:
        """Keep the figures of one run."""
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)

    def median(self, figure: str) -> float:
        """Return the median of a figure; not a number where no run came to an end."""
        samples = self.figures.get(figure)
        return statistics.median(samples) if samples else float("nan")

    def processes(self) -> dict[str, Use]:
        """Return the use of each process: the median CPU time, the largest peak."""
        names = list(dict.fromkeys(name for use in self.uses for name in use))
        return {
            name: Use(
                cpu_s=statistics.median(use[name].cpu_s for use in self.uses if name in use),
                peak_mb=max(use[name].peak_mb for use in self.uses if name in use),
            )
            for name in names
        }


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile; not a number of nothing."""
    if not samples:
        return float("nan")
    rank = max(1, -(-len(samples) * percent // 100))  # rounded up
    return sorted(samples)[int(rank) - 1]


def as_json(machine: Mapping[str, object], results: Sequence[Result]) -> str:
    """Return the results for programs."""
    rows = [
        {
            "name": result.row,
            "work": result.work,
            "figures": {
                name: {
                    "median": result.median(name),
                    "min": min(samples),
                    "max": max(samples),
                    "samples": samples,
                }
                for name, samples in result.figures.items()
            },
            "processes": {
                name: {"cpu_s": round(use.cpu_s, 2), "peak_mb": round(use.peak_mb, 1)}
                for name, use in result.processes().items()
            },
            "bars": [_bar(bar) for bar in result.bars],
            "faults": result.faults,
            "notes": result.notes,
        }
        for result in results
    ]
    found = {"format": FORMAT, "machine": machine, "rows": rows}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _bar(bar: Bar) -> dict[str, object]:
    value = None if math.isnan(bar.value) else bar.value  # JSON knows no NaN
    return {"text": bar.text, "value": value, "limit": bar.limit, "met": bar.met}


def table(results: Sequence[Result]) -> str:
    """Return the results for people."""
    return "\n".join(line for result in results for line in _lines(result))


def _lines(result: Result) -> list[str]:
    verdict = "FAILED" if result.faults else "exact"
    lines = [f"{result.row}: {result.work}: {verdict}"]
    lines += [f"    FAULT {fault}" for fault in result.faults]
    for name, samples in result.figures.items():
        spread = f"{_short(min(samples))} to {_short(max(samples))}, n = {len(samples)}"
        lines.append(f"    {name:28} {_short(result.median(name)):>10}   ({spread})")
    uses = result.processes()
    if uses:
        lines.append("    CPU s, peak MB: " + ", ".join(f"{n} {u}" for n, u in uses.items()))
    lines += [f"    bar: {bar}" for bar in result.bars]
    lines += [f"    {note}" for note in result.notes]
    return lines


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


class CompareError(Exception):
    """A file can't be compared; the message says why."""


def compare(before: Path, after: Path) -> str:
    """Return the medians of two JSON files side by side.

    Raises:
        CompareError: one of them is not a result of this program.
    """
    old, new = _rows(before), _rows(after)
    lines = [f"{'row':8} {'figure':28} {'before':>12} {'after':>12} {'after/before':>13}"]
    for name in [name for name in old if name in new]:
        ours, theirs = old[name]["figures"], new[name]["figures"]
        for figure in [figure for figure in ours if figure in theirs]:
            a, b = ours[figure]["median"], theirs[figure]["median"]
            ratio = f"{b / a:.3f}" if a else "-"
            lines.append(f"{name:8} {figure:28} {_short(a):>12} {_short(b):>12} {ratio:>13}")
    lines += [f"{name:8} only before" for name in old if name not in new]
    lines += [f"{name:8} only after" for name in new if name not in old]
    lines += [
        f"{name:8} FAILED {where}"
        for where, rows in (("before", old), ("after", new))
        for name, row in rows.items()
        if row["faults"]
    ]
    return "\n".join(lines)


def _rows(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(path.read_bytes())
        if found["format"] != FORMAT:
            raise CompareError(f"{path} has format {found['format']}, not {FORMAT}")
        return {row["name"]: row for row in found["rows"]}
    except OSError as error:
        raise CompareError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CompareError(f"{path} is not a result of this program") from error
