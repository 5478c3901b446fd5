"""What the original program left behind: its `processor_offset.json`.

Read once, when the schema is first applied to a database that holds the original's table, and at
no other time: `{"server_events_….jsonl": lines processed}`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from etl.runtime.errors import EtlError
from etl.sink.mirror import FILE_NAME

_Counts = dict[str, Annotated[int, msgspec.Meta(ge=0)]]


class TakeoverError(EtlError):
    """The original's progress can't be taken over; nothing was changed."""


def read_counts(directory: Path) -> dict[str, int] | None:
    """Return the lines processed by partition, or None where there is no such file.

    Raises:
        TakeoverError: the file does not say how far the original was.
    """
    path = directory / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Counts)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise TakeoverError(
            f"{path} does not say how far the original program was: {error}",
            hint="repair it, or remove it to apply the whole log to the totals that are there",
        ) from error
