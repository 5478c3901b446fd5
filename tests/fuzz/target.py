"""The server that is fuzzed: a real process, on a directory of its own, without a database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from fuzz.making import PRODUCERS_MAX, TOKEN

_ROOT = Path(__file__).parents[2]
_PATIENCE_S = 60.0


class Target:
    """A server process; its log is read as it comes, and only what no run may log is kept."""

    def __init__(self, directory: Path, source: Path = _ROOT / "src") -> None:
        self.data = directory / "data"
        env = {k: v for k, v in os.environ.items() if not k.startswith("ETL_")}
        env |= {
            "ETL_DATA_DIR": str(self.data),
            "ETL_PORT": "0",
            "ETL_TOKEN": TOKEN.decode(),
            "ETL_PRODUCERS_MAX": str(PRODUCERS_MAX),
            "DATABASE_URL": "postgresql://127.0.0.1:9/nobody",
            "PYTHONPATH": str(source),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "etl.server"], cwd=directory, env=env, stderr=subprocess.PIPE
        )
        self.port = 0
        self.log_lines = 0
        self.faults: list[str] = []
        self._tail: list[str] = []
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._listening.wait(_PATIENCE_S) or not self.port:
            self.stop()
            raise AssertionError("the server does not listen:\n" + "".join(self._tail))

    def _read(self) -> None:
        assert self._process.stderr is not None
        after_fault = 0
        for raw in self._process.stderr:
            line = raw.decode(errors="replace")
            self.log_lines += 1
            self._tail = [*self._tail[-50:], line]
            if "listening" in line and not self.port:
                self.port = int(line.rpartition("port=")[2])
                self._listening.set()
            if "Traceback" in line or "nothing answered" in line or " ERROR " in line:
                after_fault = 40
            if after_fault and len(self.faults) < 400:
                after_fault -= 1
                self.faults.append(line)
            if TOKEN.decode() in line and len(self.faults) < 400:
                self.faults.append(f"the token is in the log: {line}")
        self._listening.set()

    def rss_bytes(self) -> int:
        """Return how much memory the process holds now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def stop(self) -> int:
        """Ask for the end, and return the exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._reader.join(_PATIENCE_S)
        if self._process.stderr is not None:
            self._process.stderr.close()
        return code

    def partitions(self) -> list[Path]:
        """Return the partitions, oldest first."""
        return sorted(self.data.glob("server_events_*.jsonl"))
