"""The pid file: written whole or not at all, never over a living master's, removed at the end.

Only the master writes it.  Refused: a path where it cannot be written, and a file that holds the
number of another living process.
"""

import os
import tempfile
from pathlib import Path

from gpulse.errors import FileError


class PidFile:
    """The file at ``path`` while this process holds it.

    :raises FileError: in one line, from ``__init__``.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path).absolute()
        self._pid = os.getpid()
        holder = _read(self._path)
        if holder != self._pid and _is_alive(holder):
            raise FileError(
                f"pid file {path} belongs to the living process {holder}; stop that one first, or "
                "remove the file if it is no gpulse"
            )
        try:
            _write(self._path, f"{self._pid}\n")
        except OSError as error:
            raise FileError(
                f"cannot write pid file {path}: {error.strerror}; make its directory writable or "
                "choose another --pid-file"
            ) from None

    def close(self) -> None:
        """Remove the file if it is still ours."""
        if _read(self._path) == self._pid:
            self._path.unlink()


def _read(path: Path) -> int:
    """The number in the file, 0 if there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read(32).strip()
    except OSError:
        return 0
    return int(text) if text.isdecimal() else 0


def _is_alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # the latter: no pid can be that large
        return False
    except PermissionError:
        return True
    return True


def _write(path: Path, text: str) -> None:
    """Write beside the path and rename: a reader sees the old number or the new one, no half."""
    fd, beside = tempfile.mkstemp(prefix=".gpulse-", dir=path.parent)
    try:
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        Path(beside).rename(path)
    except OSError:
        Path(beside).unlink()
        raise
