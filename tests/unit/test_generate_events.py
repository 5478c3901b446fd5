"""The generator's file, and the truth beside it, recomputed by other code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import pytest

from etl.core.event import EventError, parse_line

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "generate_events.py"
EXACT = Context(prec=60)


def generate(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "ETL_SOURCE"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def truth_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_name(f"{path.name}.truth.json").read_bytes())
    return found


def totals_without(path: Path, bad_lines: list[int]) -> dict[str, Decimal]:
    """The oracle: no code of the pipeline, no code of the generator."""
    totals: dict[str, Decimal] = defaultdict(Decimal)
    bad = set(bad_lines)
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        if number not in bad:
            event = json.loads(line, parse_float=Decimal, parse_int=Decimal)
            sign = {"add_revenue": 1, "subtract_revenue": -1}[event["name"]]
            totals[event["userId"]] = EXACT.add(totals[event["userId"]], sign * event["value"])
    return dict(totals)


def test_default_is_the_original_five_lines_in_their_order(tmp_path: Path) -> None:
    assert generate("2", cwd=tmp_path).returncode == 0
    five = (
        '{"userId":"user1","name":"add_revenue","value":98}\n'
        '{"userId":"user1","name":"subtract_revenue","value":72}\n'
        '{"userId":"user2","name":"add_revenue","value":70}\n'
        '{"userId":"user1","name":"add_revenue","value":1}\n'
        '{"userId":"user2","name":"subtract_revenue","value":12}\n'
    )
    assert (tmp_path / "events.jsonl").read_text() == five * 2
    assert truth_of(tmp_path / "events.jsonl") == {
        "lines": 10,
        "valid": 10,
        "bad": 0,
        "blank": 0,
        "totals": {"user1": "54", "user2": "116"},
        "bad_lines": [],
    }


@pytest.mark.parametrize("rounds", [0, 1, 9_999, 10_000, 25_001])
def test_every_round_is_written_once(tmp_path: Path, rounds: int) -> None:
    generate(str(rounds), cwd=tmp_path)
    data = (tmp_path / "events.jsonl").read_bytes()
    assert len(data) == 264 * rounds
    assert data.count(b"\n") == 5 * rounds


@pytest.mark.parametrize(
    "options",
    [
        ["--users", "50"],
        ["--users", "1", "--decimals"],
        ["--users", "50", "--decimals", "--bad", "3"],
        ["--decimals"],
        ["--bad", "1"],
        ["--bad", "7"],
        ["--users", "50", "--bad", "10000"],
    ],
    ids=" ".join,
)
def test_truth_is_what_other_code_finds(tmp_path: Path, options: list[str]) -> None:
    seed = str(int.from_bytes(os.urandom(4)))
    ran = generate("2500", *options, "--seed", seed, "--output", "made.jsonl", cwd=tmp_path)
    assert ran.returncode == 0
    path = tmp_path / "made.jsonl"
    truth = truth_of(path)
    totals = {user: Decimal(text) for user, text in truth["totals"].items()}
    assert totals == totals_without(path, truth["bad_lines"]), f"seed {seed}"
    assert truth["lines"] == path.read_bytes().count(b"\n") == 12_500
    every = int(options[-1]) if "--bad" in options else 12_501
    assert truth["bad_lines"] == list(range(every, 12_501, every))
    assert truth["valid"] == 12_500 - truth["bad"] == 12_500 - len(truth["bad_lines"])


def test_pipeline_refuses_exactly_the_lines_that_the_truth_calls_bad(tmp_path: Path) -> None:
    generate("300", "--users", "9", "--decimals", "--bad", "2", cwd=tmp_path)
    path = tmp_path / "events.jsonl"
    refused = []
    reasons = set()
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            parse_line(line)
        except EventError as error:
            refused.append(number)
            reasons.add(str(error))
    assert refused == truth_of(path)["bad_lines"]
    assert len(reasons) > 25


def test_values_are_wide_and_have_up_to_six_decimals(tmp_path: Path) -> None:
    generate("2000", "--users", "7", "--decimals", cwd=tmp_path)
    values = [
        json.loads(line, parse_float=str, parse_int=str)["value"]
        for line in (tmp_path / "events.jsonl").read_text().splitlines()
    ]
    assert {len(value.partition(".")[2]) for value in values} == set(range(7))
    assert max(Decimal(value) for value in values) > 2**39
    assert len(truth_of(tmp_path / "events.jsonl")["totals"]) == 7


def test_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        generate("100", "--users", "9", "--seed", seed, "--output", name, cwd=tmp_path)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1] != files[2]


def test_file_is_replaced_by_another_and_not_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("old\n")
    with path.open() as old:
        generate("1", cwd=tmp_path)
        assert old.read() == "old\n"
    assert names_in(tmp_path) == ["events.jsonl", "events.jsonl.truth.json"]


def test_unwritable_place_is_an_error_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    ran = generate("1", "--output", "no/such/place.jsonl", cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (1, "no/such/place.jsonl: No such file or directory\n")
    (tmp_path / "folder").mkdir()
    assert generate("1", "--output", "folder", cwd=tmp_path).returncode == 1
    assert names_in(tmp_path) == ["folder", "folder.truth.json"]


@pytest.mark.parametrize(
    "arguments", [[], ["-1"], ["x"], ["1", "--bad", "0"], ["1", "--users", "0"]]
)
def test_wrong_argument_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    assert generate(*arguments, cwd=tmp_path).returncode == 2
    assert names_in(tmp_path) == []
