#!/usr/bin/env python3
"""Print the address of the database, or run a command that uses it.

    psql "$(python3 scripts/database_url.py)"             beside a running pipeline
    python3 scripts/database_url.py psql -c 'TABLE …'     also without one
    python3 scripts/database_url.py pg_dump > backup.sql

The address is `DATABASE_URL`, or that of the embedded server in `$ETL_DATA_DIR/postgres`, which is
started if need be. The embedded server lives as long as someone uses it: the pipeline, or the
command given here, but not whoever merely was told its address. A command finds the address in
`DATABASE_URL`; for the embedded server, PostgreSQL's own programs are on its path and know where to
connect.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

PYTHON = Path(__file__).resolve().parents[1] / ".venv" / "bin" / "python"


def main(command: list[str]) -> int:
    """Become the command, or print the address."""
    url = os.environ.get("DATABASE_URL")
    try:
        if url and command:
            become(command[0], command)
        if not url:
            data = Path(os.environ.get("ETL_DATA_DIR") or "data", "postgres")
            become(str(PYTHON), [str(PYTHON), "-m", "etl.sink.embedded", str(data), *command])
    except FileNotFoundError as error:
        hint = "; run.py makes it" if error.filename == str(PYTHON) else ""
        print(f"{command[0] if url else PYTHON}: not there{hint}", file=sys.stderr)
        return 1
    print(url)
    return 0


def become(program: str, arguments: list[str]) -> NoReturn:
    """Run a program in place of this one."""
    os.execvp(program, arguments)  # noqa: S606  what the user asked for


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
