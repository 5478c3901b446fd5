"""A small ext4 file system in a file of its own, whose power can be cut; needs root.

`cut_power` is EXT4_IOC_SHUTDOWN without a flush of the journal: from that instant nothing reaches
the image any more, as when the machine loses power. Mounted again, it holds what was synced and
whatever else the kernel happened to have written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_EXT4_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_BALLAST = "ballast"


class Image:
    """The image, and the directory it is mounted on."""

    def __init__(self, directory: Path, *, megabytes: int) -> None:
        self.path = directory / "disk.img"
        self.mounted_on = directory / "disk"
        self.mounted_on.mkdir()
        with self.path.open("wb") as file:
            file.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(self.path))

    @property
    def data(self) -> Path:
        """The data directory on it."""
        return self.mounted_on / "data"

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self.path), str(self.mounted_on))

    def unmount(self) -> None:
        _run("umount", str(self.mounted_on))

    def cut_power(self) -> None:
        """From now on nothing reaches the disk."""
        fd = os.open(self.mounted_on, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def fill(self, *, leave: int = 0) -> None:
        """Take all the space there is, but for so many bytes."""
        ballast = self.mounted_on / _BALLAST
        fd = os.open(ballast, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            end = 0
            for size in (1 << 20, 64 << 10, 4 << 10):
                end = _take(fd, end, size)
            os.ftruncate(fd, max(0, end - leave))
            os.fsync(fd)
        finally:
            os.close(fd)

    def free(self) -> None:
        """Give back the space that `fill` took."""
        (self.mounted_on / _BALLAST).unlink(missing_ok=True)


@contextmanager
def mounted(directory: Path, *, megabytes: int = 64) -> Iterator[Image]:
    """An image, mounted; whatever happens, nothing stays mounted."""
    image = Image(directory, megabytes=megabytes)
    image.mount()
    try:
        yield image
    finally:
        if image.mounted_on.is_mount():
            try:
                image.unmount()
            except subprocess.CalledProcessError:
                _run("umount", "--lazy", str(image.mounted_on))


def _take(fd: int, end: int, size: int) -> int:
    """Lengthen the file as long as there is room for `size` bytes more; return where it ends."""
    while True:
        try:
            os.posix_fallocate(fd, end, size)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return end
        end += size


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
