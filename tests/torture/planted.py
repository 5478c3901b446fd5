"""The eleven planted bugs, as replacements of text, and the rows that should catch each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A text that stands exactly once in a file of `src/etl`, and what takes its place."""

    path: str
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A planted bug; `calm` says that it does no harm while nothing goes wrong."""

    name: str
    changes: tuple[Change, ...]
    rows: tuple[str, ...]
    calm: bool = True
    trials: int = 5


_BELIEVE_THE_MIRROR = """
async def _believe(connection: asyncpg.Connection, log_id: str, directory: Path) -> None:
    import json

    path = directory / mirror.FILE_NAME
    said = json.loads(path.read_bytes()) if path.exists() else {}
    for partition, lines in said.items():
        if is_name(partition):
            place = position_after(directory, partition, lines)
            await connection.execute(
                "UPDATE partition_offsets SET bytes = $3, lines = $4 "
                "WHERE log_id = $1 AND partition = $2 AND NOT done",
                log_id, partition, place.byte, lines,
            )


async def run("""

_COMMIT_AGAIN = '''    async def commit(self, chunk: Chunk) -> None:
        """Apply a chunk, and once more where that failed."""
        import os

        from etl.sink.faults import DatabaseUnavailable

        try:
            await self.commit_once(chunk)
        except DatabaseUnavailable:
            connection = await asyncpg.connect(os.environ["DATABASE_URL"])
            async with connection.transaction():
                await upsert(connection, chunk.deltas)
                for move in chunk.moves.values():
                    await connection.execute(
                        "INSERT INTO partition_offsets (log_id, partition, bytes, lines, done) "
                        "VALUES ($1, $2, $3, $4, $5) ON CONFLICT (log_id, partition) DO UPDATE "
                        "SET bytes = $3, lines = $4, done = $5",
                        self._log_id, move.after.partition, move.after.byte, move.after.line,
                        move.after.done,
                    )
            await connection.close()
            raise

    async def commit_once(self, chunk: Chunk) -> None:
'''

_SAVE_BEFORE_SENDING = '''    async def presume(self, piece: Piece) -> None:
        """Count a piece as acknowledged before it is."""
        after = piece.next
        if not self.known(piece):
            await self._keeper.save(
                msgspec.structs.replace(
                    self.progress, next=after.sequence, byte=after.byte, crc32=after.crc32
                )
            )

    async def acknowledge('''

MUTANTS = (
    Mutant(
        name="no-sync",
        changes=(
            Change(
                path="log/files.py",
                old="            os.fdatasync(fd)\n            if new:",
                new="            if new:",
            ),
        ),
        rows=("unplug",),
    ),
    Mutant(
        name="no-duplicate-check",
        changes=(
            Change(
                path="log/producers.py",
                old="known = min(lines, expected - sent.first)",
                new="known = 0",
            ),
        ),
        rows=("kill-client", "lost-replies", "nemesis"),
    ),
    Mutant(
        name="no-guard",
        changes=(
            Change(
                path="sink/statements.py",
                old="      AND known.bytes = moved.bytes_before\n"
                "      AND known.lines = moved.lines_before\n"
                "      AND NOT known.done\n",
                new="",
            ),
        ),
        rows=("zombie-processor",),
    ),
    Mutant(
        name="progress-too-early",
        changes=(
            Change(
                path="source/delivery.py",
                old="return await self._link.post(piece, self._ledger.producer(piece.first))",
                new="await self._ledger.presume(piece)\n"
                "        return await self._link.post(piece, self._ledger.producer(piece.first))",
            ),
            Change(
                path="source/ledger.py",
                old="    async def acknowledge(",
                new=_SAVE_BEFORE_SENDING,
            ),
        ),
        rows=("kill-client", "nemesis"),
        trials=8,
    ),
    Mutant(
        name="no-torn-tail-repair",
        changes=(
            Change(
                path="log/recovery.py",
                old="                _set_aside(path, byte, size)\n",
                new="                pass\n",
            ),
        ),
        rows=("unplug",),
    ),
    Mutant(
        name="watermark-ignored",
        changes=(
            Change(
                path="log/reader.py",
                old="limit = size if mark is None or sealed else min(mark.bytes, size)",
                new="limit = size",
            ),
        ),
        rows=("past-watermark",),
    ),
    Mutant(
        name="sync-retried",
        changes=(
            Change(
                path="log/files.py",
                old="            os.fdatasync(fd)\n            if new:",
                new="            try:\n                os.fdatasync(fd)\n"
                "            except OSError:\n                os.fdatasync(fd)\n"
                "            if new:",
            ),
        ),
        rows=("unplug-failed-sync",),
    ),
    Mutant(
        name="commit-retried-blind",
        changes=(
            Change(
                path="sink/commit.py",
                old="    async def commit(self, chunk: Chunk) -> None:\n",
                new=_COMMIT_AGAIN,
            ),
        ),
        rows=("lost-commit-replies",),
    ),
    Mutant(
        name="mirror-believed",
        changes=(
            Change(
                path="processor.py",
                old="            known = await offsets.load(connection, log_id)\n",
                new="            await _believe(connection, log_id, self._directory)\n"
                "            known = await offsets.load(connection, log_id)\n",
            ),
            Change(path="processor.py", old="\nasync def run(", new=_BELIEVE_THE_MIRROR),
        ),
        rows=("kill-processor",),
    ),
    Mutant(
        name="local-time-names",
        changes=(
            Change(
                path="log/names.py",
                old="    moment = datetime.fromtimestamp(max(unix_s, _FIRST_S), UTC)\n",
                new="    moment = datetime.fromtimestamp(max(unix_s, _FIRST_S))\n",
            ),
        ),
        rows=("far-east",),
    ),
    Mutant(
        name="float-sums",
        changes=(
            Change(
                path="core/event.py",
                old="event.amount = millionths(value)",
                new="event.amount = int(float(value) * MILLION)",
            ),
        ),
        rows=("kill-processor",),
        calm=False,
    ),
)
