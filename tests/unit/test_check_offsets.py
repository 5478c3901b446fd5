"""The total of the offsets, read once or watched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_offsets.py"


def start(data: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "ETL_DATA_DIR": str(data)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check(data: Path, *arguments: str) -> tuple[str, str, int]:
    process = start(data, *arguments)
    out, err = process.communicate(timeout=30)
    return out, err, process.returncode


def write(data: Path, text: str) -> None:
    temporary = data / "temporary"
    temporary.write_text(text)
    temporary.replace(data / "processor_offset.json")


def test_total_is_the_sum_of_all_partitions(tmp_path: Path) -> None:
    write(
        tmp_path, '{"server_events_261123080904.jsonl": 5, "server_events_261123080905.jsonl": 7}'
    )
    assert check(tmp_path) == ("Total offset: 12\n", "", 0)


def test_empty_mirror_is_zero(tmp_path: Path) -> None:
    write(tmp_path, "{}")
    assert check(tmp_path) == ("Total offset: 0\n", "", 0)


def test_argument_wins_over_environment(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write(tmp_path / "other", '{"a": 1}')
    assert check(tmp_path, "--data-dir", str(tmp_path / "other"))[0] == "Total offset: 1\n"


def test_missing_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    out, err, code = check(tmp_path)
    assert (out, code) == ("", 1)
    assert "not there" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("text", ["", "{", "[1]", "7", '{"a": "7"}', '{"a": true}', '{"a": -1}'])
def test_unusable_file_is_an_error(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    out, err, code = check(tmp_path)
    assert (out, code) == ("", 1)
    assert str(tmp_path / "processor_offset.json") in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("expected", "code"), [("12", 0), ("11", 1), ("13", 1)])
def test_expectation_decides_the_exit_code(tmp_path: Path, expected: str, code: int) -> None:
    write(tmp_path, '{"a": 12}')
    assert check(tmp_path, "--expect", expected)[2] == code


def test_watch_waits_for_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    with start(tmp_path, "--watch", "--expect", "20") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0 events of 20 (0.0%), 0 a second\n"
        write(tmp_path, '{"a": 5}')
        while not (line := process.stdout.readline()).startswith("5 events of 20 (25.0%)"):
            assert line.startswith("0 events")
        assert " s left" in line
        write(tmp_path, '{"a": 5, "b": 15}')
        assert process.stdout.read().endswith("Total offset: 20\n")
    assert process.returncode == 0


def test_watch_that_finds_more_than_expected_says_so(tmp_path: Path) -> None:
    write(tmp_path, '{"a": 21}')
    assert check(tmp_path, "--watch", "--expect", "20") == (
        "Total offset: 21\n",
        "21 is not 20\n",
        1,
    )
