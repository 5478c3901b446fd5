"""`python3 run.py torture`: tries to break the pipeline, and prints a table of what came of it.

    python3 run.py torture                         every row once
    python3 run.py torture --long                  every row as often as its long form says
    python3 run.py torture --minutes 30 --row nemesis
    python3 run.py torture --seed 7 --row NAME --first 12 --trials 1     one trial again
    python3 run.py torture --mutants [--only NAME]     plants bugs, which the rows have to catch

Exit codes: 0 no violation, 1 violations or a mutant that survived, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from torture import mutants
from torture.driver import Driver, Result, as_json, embedded_server, table
from torture.rows import Row, all_rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py torture", description="Try to break etl.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--minutes", type=float, help="as many trials as fit in")
    parser.add_argument("--row", action="append", help="only this one; may be repeated")
    parser.add_argument("--trials", type=int, help="of each row")
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--long", action="store_true", help="the long form")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("--mutants", action="store_true", help="plant bugs, and catch them")
    parser.add_argument("--only", action="append", help="only this mutant; may be repeated")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--keep", type=Path, default=Path("torture-failures"))
    return parser.parse_args()


def _chosen(names: list[str] | None) -> list[Row]:
    rows = all_rows()
    unknown = set(names or ()) - {row.name for row in rows}
    if unknown:
        sys.exit(f"torture: no such row: {', '.join(sorted(unknown))}; --list shows them")
    return [row for row in rows if names is None or row.name in names]


async def _run(arguments: argparse.Namespace, rows: list[Row]) -> list[Result]:
    until = time.monotonic() + arguments.minutes * 60 if arguments.minutes else float("inf")
    results = []
    async with embedded_server() as server:
        driver = Driver(server, seed=arguments.seed, keep=arguments.keep)
        for left, row in zip(range(len(rows), 0, -1), rows, strict=True):
            trials = arguments.trials or (row.trials if arguments.long else 1)
            share = until
            if arguments.minutes:
                trials = arguments.trials or 1_000_000
                share = time.monotonic() + (until - time.monotonic()) / left
            result = await driver.run_row(row, trials=trials, first=arguments.first, until=share)
            print(table([result]).partition("\n")[2], flush=True)
            results.append(result)
    return results


async def _hunt(arguments: argparse.Namespace) -> list[mutants.Outcome]:
    chosen = [one for one in mutants.MUTANTS if one.name in (arguments.only or [one.name])]
    outcomes = []
    async with embedded_server() as server:
        for mutant in chosen:
            outcome = await mutants.hunt(mutant, server, seed=arguments.seed)
            print(mutants.line(outcome), flush=True)
            outcomes.append(outcome)
    print(f"{sum(one.caught for one in outcomes)} of {len(outcomes)} mutants caught")
    return outcomes


def _main_mutants(arguments: argparse.Namespace) -> int:
    unknown = set(arguments.only or ()) - {one.name for one in mutants.MUTANTS}
    if unknown:
        sys.exit(f"torture: no such mutant: {', '.join(sorted(unknown))}")
    print(f"seed {arguments.seed}", flush=True)
    try:
        outcomes = asyncio.run(_hunt(arguments))
    except mutants.MutantError as error:
        sys.exit(f"torture: {error}")
    if arguments.json:
        arguments.json.write_text(mutants.as_json(outcomes))
    return 0 if all(one.caught for one in outcomes) else 1


def main() -> int:
    """Run the harness; return its exit code."""
    arguments = _arguments()
    if arguments.mutants:
        return _main_mutants(arguments)
    rows = _chosen(arguments.row)
    if arguments.list:
        print("\n".join(row.name for row in rows))
        return 0
    print(f"seed {arguments.seed}", flush=True)
    results = asyncio.run(_run(arguments, rows))
    print(table(results))
    if arguments.json:
        arguments.json.write_text(as_json(results))
    return 1 if any(result.violations for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
