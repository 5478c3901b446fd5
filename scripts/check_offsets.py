#!/usr/bin/env python3
"""Print how many events were applied: the sum of the offsets in `processor_offset.json`.

    python3 scripts/check_offsets.py                            Total offset: 2000000
    python3 scripts/check_offsets.py --watch --expect 2000000   progress, until it is reached

Exit codes: 0 done, or as expected; 1 no usable offsets, or not as expected; 2 wrong arguments;
130 interrupted. While it watches, a file that is not there yet counts as 0.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

FILE_NAME = "processor_offset.json"
LOOK_INTERVAL_S = 0.1
REPORT_INTERVAL_S = 1.0


class OffsetsError(Exception):
    """The offsets can't be read."""


def read_total(path: Path, *, missing: int | None) -> int:
    """Return the sum of all offsets, or `missing` where there is no file.

    Raises:
        OffsetsError: the file is no mirror of offsets, or there is none and `missing` is None.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        if missing is not None:
            return missing
        raise OffsetsError(
            f"{path}: not there; nothing was applied yet, or --data-dir is another"
        ) from None
    except OSError as error:
        raise OffsetsError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise OffsetsError(f"{path}: not JSON") from None
    counts = found if isinstance(found, dict) else {"": None}
    usable = [count for count in counts.values() if type(count) is int and count >= 0]
    if len(usable) < len(counts):
        raise OffsetsError(f"{path}: not an object of numbers of lines")
    return sum(usable)


def watch(path: Path, expected: int | None) -> int:
    """Report the total until it reaches what is expected, or for ever; return it."""
    began = moved = time.monotonic()
    first = total = read_total(path, missing=0)
    report_at = began
    while expected is None or total < expected:
        now = time.monotonic()
        if now >= report_at:
            rate = (total - first) / (moved - began) if moved > began else 0.0
            print(progress(total, expected, rate), flush=True)
            report_at = now + REPORT_INTERVAL_S
        time.sleep(LOOK_INTERVAL_S)
        latest = read_total(path, missing=0)
        if latest != total:
            if total == first:  # the rate counts from the last look at which nothing had moved
                began = now
            moved = time.monotonic()
        total = latest
    return total


def progress(total: int, expected: int | None, rate: float) -> str:
    """Return one line of progress."""
    parts = [f"{total:,} events", f"{rate:,.0f} a second"]
    if expected is not None:
        parts[0] += f" of {expected:,} ({total / expected:.1%})"
        if rate > 0:
            parts.append(f"{(expected - total) / rate:,.0f} s left")
    return ", ".join(parts)


def count(text: str) -> int:
    """Read a number of events."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is less than 0")
    return value


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Print how many events were applied.")
    data = Path(os.environ.get("ETL_DATA_DIR") or "data")
    parser.add_argument(
        "--data-dir", metavar="DIR", type=Path, default=data, help=f"default: {data}"
    )
    parser.add_argument("--watch", action="store_true", help="report until N, or until Ctrl-C")
    parser.add_argument("--expect", metavar="N", type=count, help="how many it should be")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Do what the command line asks for."""
    options = parse(arguments)
    path = options.data_dir / FILE_NAME
    try:
        total = watch(path, options.expect) if options.watch else read_total(path, missing=None)
    except OffsetsError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"Total offset: {total}")
    if options.expect is None or total == options.expect:
        return 0
    print(f"{total} is not {options.expect}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
