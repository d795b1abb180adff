"""A small file system of its own that can be filled to the last byte and emptied. Needs the right to mount."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SmallDisk:
    """A mounted tmpfs; `mounted` makes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """Take all the space there is, whoever else is writing."""
        with self._filler.open("ab", buffering=0) as file:
            for piece_bytes in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        file.write(bytes(piece_bytes))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def fill_but(self, bytes_left: int) -> None:
        """Take all the space but so much; nobody else may be writing."""
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.free_bytes - bytes_left)

    def empty(self) -> None:
        """Give the space back."""
        self._filler.unlink()


@contextmanager
def mounted(path: Path, *, size_bytes: int) -> Iterator[SmallDisk]:
    """A small disk at `path`, which must not exist yet; unmounted afterwards."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(path)], check=True)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def may_mount(path: Path) -> bool:
    """Whether this process may mount; tries it at `path`."""
    path.mkdir()
    tried = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(path)], check=False, capture_output=True)
    if tried.returncode == 0:
        subprocess.run(["umount", str(path)], check=True)
    path.rmdir()
    return tried.returncode == 0
