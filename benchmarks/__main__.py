"""`python3 run.py bench`: measures the pipeline, and prints what it found.

    python3 run.py bench                       every row; some twenty minutes
    python3 run.py bench seed users --runs 3   these rows, so often
    python3 run.py bench seed --scale 10       ten times the events
    python3 run.py bench --json after.json     keeps the results
    python3 run.py bench --compare before.json after.json

Exit codes: 0 all totals exact, 1 a row failed, 2 wrong arguments. A bar that is missed is no
failure: on another machine, or a busy one, it says nothing about the code.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# In place of this directory itself, whose modules are no top-level ones.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import uvloop

from benchmarks import facts
from benchmarks.bench import Options, opened
from benchmarks.results import CompareError, Result, as_json, compare, table
from benchmarks.rows import all_families


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    names = [row.name for family in all_families() for row in family.rows]
    parser = argparse.ArgumentParser(prog="run.py bench", description="Measure etl.")
    add = parser.add_argument
    add("rows", nargs="*", metavar="NAME", help=f"one of {', '.join(names)}; all by default")
    add("--runs", type=int, metavar="N", help="how often each row is done")
    add("--scale", type=float, default=1.0, metavar="F", help="multiplies the events")
    add("--json", type=Path, metavar="PATH", help="write the results there")
    add("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"), help="two such files")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.rows) - set(names))
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(names)}")
    if options.scale <= 0 or (options.runs is not None and options.runs < 1):
        parser.error("--runs and --scale have to be more than 0")
    options.rows = options.rows or names
    return options


async def run(options: argparse.Namespace) -> list[Result]:
    """Do the rows, family by family; print each as soon as it is known."""
    results: list[Result] = []
    async with opened(Options(runs=options.runs, scale=options.scale)) as bench:
        connection = await bench.connect()
        machine = await facts.machine(bench.directory, connection)
        await connection.close()
        machine |= {"scale": options.scale}
        print(facts.lines(machine), flush=True)
        for family in all_families():
            names = [row.name for row in family.rows if row.name in options.rows]
            if names:
                found = await family.measure(bench, names)
                print(table(found), flush=True)
                results += found
                if options.json:  # after each family: what was measured is kept whatever follows
                    options.json.write_text(as_json(machine, results), encoding="utf-8")
    return results


def main(arguments: list[str]) -> int:
    """Do what the command line asks for; return the exit code."""
    options = parse(arguments)
    if options.compare:
        try:
            print(compare(*options.compare))
        except CompareError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
        return 0
    results = uvloop.run(run(options))
    return 1 if any(result.faults for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
