"""`python3 run.py fuzz`: fuzzed lines and requests, beside an independent reader.

    python3 run.py fuzz                                  1,000,000 lines and 1,000,000 requests
    python3 run.py fuzz --lines 50000 --requests 0 --seed 7

Exit codes: 0 all laws hold, 1 one is broken, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz import campaign, lines

_SHARE = 50_000  # lines of one seed; the next share has the next seed
_ENOUGH = 100_000  # requests from which on memory has to be flat
_GROWTH_BYTES_MAX = 8 * 1024 * 1024


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py fuzz", description="Fuzz lines and requests.")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--source", type=Path, help="another copy of src/ for the server")
    return parser.parse_args()


def _fuzz_lines(total: int, seed: int) -> None:
    began = time.monotonic()
    seeds = range(seed, seed + -(-total // _SHARE))
    sizes = [min(_SHARE, total - number * _SHARE) for number in range(len(seeds))]
    counts: Counter[str] = Counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=context) as pool:
        for found in pool.map(lines.run, sizes, seeds):
            counts += found
    seconds = time.monotonic() - began
    _say(f"lines: {_shown(counts)}; {counts['lines'] / seconds:,.0f} lines/s")


def _fuzz_requests(total: int, seed: int, source: Path | None) -> bool:
    def runner() -> asyncio.Runner:
        return asyncio.Runner(loop_factory=uvloop.new_event_loop)

    with tempfile.TemporaryDirectory(prefix="etl-fuzz-") as directory:
        result = campaign.run(
            Path(directory), requests=total, seed=seed, source=source, runner=runner
        )
    _say(f"requests: {result.requests:,}; {result.requests / result.seconds:,.0f} requests/s")
    _say(f"answers: {_shown(result.kinds)}")
    _say(f"statuses: {_shown(result.statuses)}")
    _say(f"events acknowledged, and in the log: {result.acknowledged.lines:,}")
    rss = ", ".join(f"{size / 2**20:.1f}" for size in result.rss_bytes)
    _say(f"server's memory at 10 %, 50 %, 100 %: {rss} MiB; log lines: {result.log_lines:,}")
    grown = result.rss_bytes[-1] - result.rss_bytes[0]
    if total >= _ENOUGH and grown > _GROWTH_BYTES_MAX:
        _say(f"fuzz: the server's memory has grown by {grown} bytes")
        return False
    return True


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _shown(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))


def main() -> int:
    """Fuzz, and return the exit code."""
    arguments = _arguments()
    seed = arguments.seed
    _say(f"seed {seed}")
    try:
        if arguments.lines:
            _fuzz_lines(arguments.lines, seed)
        flat = not arguments.requests or _fuzz_requests(arguments.requests, seed, arguments.source)
    except (lines.DisagreementError, campaign.LawError) as error:
        _say("\n".join([f"fuzz: {error}", *getattr(error, "__notes__", [])]))
        return 1
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
