"""Places in the log and offsets in the database, each told in the words of the other."""

from __future__ import annotations

from pathlib import Path

from etl.log.names import is_name
from etl.log.position import Position
from etl.log.reader import Block, LogReader, position_after
from etl.sink import mirror
from etl.sink.offsets import Move, Offset
from etl.sink.original import TakeoverError, read_counts


def original_offsets(directory: Path) -> list[Offset] | None:
    """Return how far the original program was, by its own file, or None where there is none.

    Raises:
        EtlError: the file does not fit the partitions.
    """
    counts = read_counts(directory)
    if counts is None:
        return None
    found: list[Offset] = []
    for partition, lines in sorted(counts.items()):
        if not is_name(partition):
            raise TakeoverError(
                f"{directory / mirror.FILE_NAME} names {partition!r}, which is no partition",
                hint="remove that member if it stands for nothing that was applied",
            )
        if not (directory / partition).exists():
            # Deleted by hand: what was applied stays applied, and nothing can follow.
            found.append(Offset(partition=partition, byte=0, line=lines, done=True))
            continue
        place = position_after(directory, partition, lines)
        found.append(Offset(partition=partition, byte=place.byte, line=lines, done=False))
    return found


def count_lag(directory: Path, undone: list[Offset], newest: str) -> int:
    """Return at least how many events lie between offsets and the watermark."""
    reader = LogReader(
        directory, undone=[position_of(offset) for offset in undone], newest=newest or None
    )
    try:
        return reader.lag_events()
    finally:
        reader.close()


def position_of(offset: Offset) -> Position:
    """Return where in the log an offset stands."""
    return Position(partition=offset.partition, byte=offset.byte, line=offset.line)


def move_of(block: Block) -> Move:
    """Return the move of the offset that applying a block makes."""
    start, end = block.start, block.end
    return Move(
        before=Offset(partition=start.partition, byte=start.byte, line=start.line, done=False),
        after=Offset(partition=end.partition, byte=end.byte, line=end.line, done=block.done),
    )
