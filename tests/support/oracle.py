"""Expected totals, recomputed from the source by other code than ours."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal


def random_source(seed: int, *, events: int, users: int) -> bytes:
    """Return random events with values of 40 bits and decimals; print the seed to replay."""
    print(f"seed {seed}")  # noqa: T201  shown when a test fails
    chance = random.Random(seed)  # noqa: S311  no secret
    lines = []
    for _ in range(events):
        name = chance.choice(("add_revenue", "subtract_revenue"))
        value = f"{chance.getrandbits(40)}.{chance.randrange(100):02d}"
        lines.append(
            f'{{"userId":"user{chance.randrange(users)}","name":"{name}","value":{value}}}\n'
        )
    return "".join(lines).encode()


def totals(lines: Iterable[bytes]) -> dict[str, Decimal]:
    """Return every user's revenue."""
    found: defaultdict[str, Decimal] = defaultdict(Decimal)
    for line in lines:
        event = json.loads(line, parse_float=Decimal, parse_int=Decimal)
        sign = 1 if event["name"] == "add_revenue" else -1
        found[event["userId"]] += sign * event["value"]
    return dict(found)
