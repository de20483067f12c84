"""The temporary files of large bodies.

:func:`append` waits for a disk: it is called on a file thread.
"""

import os
import tempfile
from typing import BinaryIO

LEAST = 65_536
"""Bytes of a body that stay in memory even where the worker has too many in memory: a file for less
would cost more than it spares."""


def append(spool: BinaryIO | None, pieces: list[bytes], directory: str | None) -> BinaryIO:
    """On a file thread; leaves the file at its beginning, for whoever reads it."""
    if spool is None:
        spool = tempfile.TemporaryFile(  # noqa: SIM115 - closed by the exchange
            prefix="gpulse-body-", dir=directory
        )
    try:
        spool.seek(0, os.SEEK_END)
        spool.writelines(pieces)
        spool.seek(0)
    except OSError:
        spool.close()
        raise
    return spool
