#!/usr/bin/env python3
"""Write an events file for the client, and beside it the truth about its totals.

    python3 scripts/generate_events.py 400000                 2,000,000 lines, the original's five
    python3 scripts/generate_events.py 400000 --users 100000 --seed 1 --decimals --bad 1000

N is a number of rounds of five lines, whatever the lines are. The file is replaced by a rename, so
the client never sees half of it; the truth, `OUTPUT.truth.json`, is in place before:

    {"lines": 2000000, "valid": 1998000, "bad": 2000, "blank": 0,
     "totals": {"user1": "10800000", ...}, "bad_lines": [1000, 2000, ...]}

Line numbers count from 1, as in `dead_letters.jsonl`. Totals are exact decimals, in millionths
inside: no binary fraction is ever summed. The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import cycle, repeat
from pathlib import Path
from typing import BinaryIO

FIVE_LINES = (
    ("user1", "add_revenue", 98),
    ("user1", "subtract_revenue", 72),
    ("user2", "add_revenue", 70),
    ("user1", "add_revenue", 1),
    ("user2", "subtract_revenue", 12),
)
MILLION = 1_000_000
VALUE_BITS = 40
LINE_BYTES_MAX = 64 * 1024
BLOCK_LINES = 10_000

_SOUND = b'{"userId":"user1","name":"add_revenue","value":7}'


def _with(user: str = '"user1"', name: str = '"add_revenue"', value: str = "7") -> bytes:
    return f'{{"userId":{user},"name":{name},"value":{value}}}'.encode()


UNUSABLE: dict[str, bytes] = {
    # not JSON
    "cut short": _SOUND[:-1],
    "cut at the start": _SOUND[1:],
    "cut inside a string": _SOUND[:14],
    "comma after the last member": _SOUND[:-1] + b",}",
    "no comma": _SOUND.replace(b',"name"', b' "name"'),
    "no colon": _SOUND.replace(b'"value":', b'"value" '),
    "single quotes": _SOUND.replace(b'"', b"'"),
    "members without quotes": b'{userId:"user1",name:"add_revenue",value:7}',
    "comment": _SOUND + b" // one",
    "words": b"user1 add_revenue 7",
    "garbage behind": _SOUND + b"}",
    "raw tab in a string": _with(user='"us\ter"'),
    "raw NUL": _SOUND.replace(b",", b",\0", 1),
    "unknown escape": _with(user=r'"us\x41er"'),
    "cut escape": _with(user=r'"user\u12"'),
    "form feed as space": b"\f" + _SOUND,
    "no-break space as space": b"\xc2\xa0" + _SOUND,
    "byte order mark": b"\xef\xbb\xbf" + _SOUND,
    "not UTF-8": _SOUND.replace(b"user1", b"us\xffer"),
    "UTF-8 cut": _SOUND.replace(b"user1", b"user\xc3"),
    "UTF-8 overlong": _SOUND.replace(b"user1", b"us\xc1\xa5r"),
    "surrogate in UTF-8": _SOUND.replace(b"user1", b"user\xed\xa0\x80"),
    # not one object
    "two objects": _SOUND + _SOUND,
    "two objects and a space": _SOUND + b" " + _SOUND,
    "two objects and a comma": _SOUND + b"," + _SOUND,
    "array of events": b"[" + _SOUND + b"]",
    "array": b"[]",
    "string": b'"user1"',
    "number": b"42",
    "true": b"true",
    "null": b"null",
    "object without members": b"{}",
    # members
    "no userId": b'{"name":"add_revenue","value":7}',
    "no name": b'{"userId":"user1","value":7}',
    "no value": b'{"userId":"user1","name":"add_revenue"}',
    "userId in another case": _SOUND.replace(b"userId", b"userid"),
    "userId null": _with(user="null"),
    "userId number": _with(user="1"),
    "userId boolean": _with(user="true"),
    "userId array": _with(user='["user1"]'),
    "userId object": _with(user='{"id":"user1"}'),
    "userId empty": _with(user='""'),
    "userId too long": _with(user='"' + "u" * 256 + '"'),
    "userId too long, wide": _with(user='"' + "é" * 256 + '"'),
    "userId with NUL": _with(user=r'"user\u0000"'),
    "userId with lone high surrogate": _with(user=r'"user\ud83d"'),
    "userId with lone low surrogate": _with(user=r'"user\ude00"'),
    "name unknown": _with(name='"multiply_revenue"'),
    "name in another case": _with(name='"Add_revenue"'),
    "name with a space": _with(name='"add_revenue "'),
    "name empty": _with(name='""'),
    "name null": _with(name="null"),
    "name number": _with(name="1"),
    "value string": _with(value='"7"'),
    "value empty string": _with(value='""'),
    "value null": _with(value="null"),
    "value true": _with(value="true"),
    "value false": _with(value="false"),
    "value array": _with(value="[7]"),
    "value object": _with(value='{"amount":7}'),
    "value given twice, the last a string": _with(value='7,"value":"7"'),
    "batch header forged": _SOUND[:-1] + b',"_batch":{"lines":1,"bytes":49,"crc32":"00000000"}}',
    "batch header forged, escaped": _SOUND[:-1] + rb',"\u005fbatch":{"lines":1}}',
    "batch header forged, first": b'{"_batch":null,' + _SOUND[1:],
    # numbers
    "NaN": _with(value="NaN"),
    "Infinity": _with(value="Infinity"),
    "minus Infinity": _with(value="-Infinity"),
    "1e400": _with(value="1e400"),
    "exponent of a million": _with(value="1E+1000000"),
    "exponent of twenty digits": _with(value="1e" + "9" * 20),
    "exponent of minus twenty digits": _with(value="1e-" + "9" * 20),
    "seven decimals": _with(value="1.0000001"),
    "seventh decimal by exponent": _with(value="1e-7"),
    "seventh decimal of a large number": _with(value="123456789012345678.0000001"),
    "10^18": _with(value="1000000000000000000"),
    "minus 10^18": _with(value="-1000000000000000000"),
    "10^18 by exponent": _with(value="1e18"),
    "2^64": _with(value="18446744073709551616"),
    "hundred digits": _with(value="9" * 100),
    "zero in front": _with(value="07"),
    "plus": _with(value="+7"),
    "point in front": _with(value=".5"),
    "point behind": _with(value="7."),
    "exponent without digits": _with(value="7e"),
    "hexadecimal": _with(value="0x7"),
    "underscore": _with(value="1_000"),
    # sizes
    "one byte over 64 KiB": _SOUND[:-1]
    + b',"note":"%s"}' % (b"x" * (LINE_BYTES_MAX - len(_SOUND) - 9)),
    "spaces up to over 64 KiB": _SOUND + b" " * LINE_BYTES_MAX,
}


class Truth:
    """What a file means: kept while it is written."""

    def __init__(self) -> None:
        self.lines = 0
        self.totals: dict[str, int] = {}
        self.bad_lines: list[int] = []

    def as_json(self) -> bytes:
        """Return the content of the truth file."""
        bad = len(self.bad_lines)
        found = {
            "lines": self.lines,
            "valid": self.lines - bad,
            "bad": bad,
            "blank": 0,
            "totals": {user: decimal(self.totals[user]) for user in sorted(self.totals)},
            "bad_lines": self.bad_lines,
        }
        return json.dumps(found, indent=1).encode() + b"\n"


def decimal(millionths: int) -> str:
    """Return an amount of millionths as an exact decimal without trailing zeros."""
    whole, part = divmod(abs(millionths), MILLION)
    text = f"{whole}.{part:06}".rstrip("0").rstrip(".")
    return f"-{text}" if millionths < 0 else text


def five_line_blocks(rounds: int, truth: Truth) -> Iterator[bytes]:
    """Yield the original's five lines, `rounds` times."""
    truth.lines = rounds * len(FIVE_LINES)
    for user, name, value in FIVE_LINES if rounds else ():
        signed = value if name == "add_revenue" else -value
        truth.totals[user] = truth.totals.get(user, 0) + signed * rounds * MILLION
    five = b"".join(
        b'{"userId":"%s","name":"%s","value":%d}\n' % (user.encode(), name.encode(), value)
        for user, name, value in FIVE_LINES
    )
    block = five * BLOCK_LINES
    for _ in range(rounds // BLOCK_LINES):
        yield block
    yield five * (rounds % BLOCK_LINES)


def draws(users: int | None, chance: random.Random) -> Iterator[tuple[str, str, int]]:
    """Yield user, name and whole value of one event after the other, without end."""
    if users is None:
        yield from cycle(FIVE_LINES)
    bits, names = chance.getrandbits, ("add_revenue", "subtract_revenue")
    labels = [f"user{number}" for number in range(1, (users or 1) + 1)]
    below = len(labels)
    width = below.bit_length() + 16  # so that the bias of the remainder is under 1 : 65536
    while True:
        drawn = bits(VALUE_BITS + 1)
        yield labels[bits(width) % below], names[drawn & 1], drawn >> 1


def drawn_blocks(options: argparse.Namespace, truth: Truth) -> Iterator[bytes]:
    """Yield lines that are drawn one by one."""
    chance = random.Random(options.seed)  # noqa: S311  no secret, and the same on every machine
    truth.lines = options.rounds * len(FIVE_LINES)
    events = draws(options.users, chance)
    parts = fractions(chance) if options.decimals else repeat(("", 0))
    unusable = cycle(line.decode(errors="surrogateescape") for line in UNUSABLE.values())
    for first in range(1, truth.lines + 1, BLOCK_LINES):
        block = []
        after = min(first + BLOCK_LINES, truth.lines + 1)
        for line, event, part in zip(range(first, after), events, parts, strict=False):
            if options.bad and line % options.bad == 0:
                truth.bad_lines.append(line)
                block.append(next(unusable))
            else:
                block.append(_counted(event, part, truth.totals))
        block.append("")
        yield "\n".join(block).encode(errors="surrogateescape")


def _counted(event: tuple[str, str, int], part: tuple[str, int], totals: dict[str, int]) -> str:
    """Return the line of one event, and add it to the totals."""
    user, name, value = event
    digits, millionths = part
    amount = value * MILLION + millionths
    totals[user] = totals.get(user, 0) + (amount if name == "add_revenue" else -amount)
    return f'{{"userId":"{user}","name":"{name}","value":{value}{digits}}}'


def fractions(chance: random.Random) -> Iterator[tuple[str, int]]:
    """Yield fractions of up to 6 decimals, as text and in millionths; half of them are none."""
    scales = [(10**digits, 10 ** (6 - digits), f".%0{digits}d") for digits in range(1, 7)]
    bits = chance.getrandbits
    while True:
        drawn = bits(48)
        if drawn & 1:
            yield "", 0
        else:
            below, scale, form = scales[(drawn >> 1) % 6]
            part = (drawn >> 8) % below
            yield form % part, part * scale


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under another name beside `path`, then give it this name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def generate(options: argparse.Namespace) -> Truth:
    """Write the file and its truth; the truth first, since the file's arrival starts a run."""
    truth = Truth()
    plain = options.users is None and not options.decimals and not options.bad
    blocks: Iterable[bytes] = (
        five_line_blocks(options.rounds, truth) if plain else drawn_blocks(options, truth)
    )

    def write(file: BinaryIO) -> None:
        file.writelines(blocks)
        file.flush()
        beside = options.output.with_name(f"{options.output.name}.truth.json")
        write_atomically(beside, lambda other: other.write(truth.as_json()))

    write_atomically(options.output, write)
    return truth


def at_least(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from `least` on."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Write an events file, and the truth about it.")
    add = parser.add_argument
    add("rounds", metavar="N", type=at_least(0), help="rounds of five lines")
    add("--users", metavar="U", type=at_least(1), help="random events of user1 to userU")
    add("--seed", metavar="S", type=int, default=0, help="where chance begins (default: 0)")
    add("--decimals", action="store_true", help="give half of the values up to 6 decimals")
    add("--bad", metavar="K", type=at_least(1), help="make every K-th line unusable")
    source = Path(os.environ.get("ETL_SOURCE") or "events.jsonl")
    add("--output", metavar="PATH", type=Path, default=source, help=f"default: {source}")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Write what the command line asks for."""
    options = parse(arguments)
    try:
        truth = generate(options)
    except OSError as error:
        print(f"{options.output}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{options.output}: {truth.lines} lines, {len(truth.bad_lines)} of them unusable")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
