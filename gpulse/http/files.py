"""``wsgi.file_wrapper``: files as response bodies, read in blocks without holding up the hub."""

import io
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

BLOCK = 262_144
"""Bytes read at once: large enough that the switch to a file thread does not matter."""

_BUFFERED = (io.BufferedReader, io.BufferedRandom)
_WRAPPERS = 4  # a field's file of Django's is a File around a File around the file


class FileWrapper:
    """What PEP 3333 calls a file wrapper.

    :param filelike: an object with ``read(size)``; its ``close``, if any, is called at the end.
    :param block_size: the application's suggestion; BLOCK is used where the server drives.
    """

    def __init__(self, filelike: Any, block_size: int = BLOCK) -> None:
        self.filelike = filelike
        self.block_size = block_size

    def __iter__(self) -> Iterator[bytes]:
        while block := self.filelike.read(self.block_size):
            yield block

    def close(self) -> None:
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()

    def plain_file(self) -> Any:
        """The file of the operating system whose bytes these are, None if there is none.

        Not whatever has a ``fileno``: that of a GzipFile is of the compressed file.  Wrappers with
        a ``file`` are looked through if they read by its ``read``, as Django's and tempfile's do.
        """
        found = self.filelike
        for _ in range(_WRAPPERS):
            if type(found) is io.FileIO or (
                type(found) in _BUFFERED and type(found.raw) is io.FileIO
            ):
                return found
            inner = getattr(found, "file", None)
            if type(found) is not tempfile._TemporaryFileWrapper and (
                inner is None or found.read != inner.read
            ):
                return None
            found = inner
        return None

    def remaining(self) -> int | None:
        """Bytes from the file's position to its end; None if it is no regular file."""
        try:
            file = self.plain_file()
            if file is None:
                return None
            status = os.fstat(file.fileno())
            position: int = file.tell()
        except (AttributeError, OSError, ValueError):
            return None
        return max(0, status.st_size - position) if stat.S_ISREG(status.st_mode) else None

    def blocks(self, blocking: Callable[..., Any]) -> Iterator[bytes]:
        """The file's bytes.

        :param blocking: runs a function that may wait for a disk, and waits for its result.
        """
        size = BLOCK if self.remaining() is not None else self.block_size
        while block := blocking(self.filelike.read, size):
            yield block
