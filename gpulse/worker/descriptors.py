"""The table of a process's descriptors.

Linux doubles it when it is full, and in a process with threads waits meanwhile until no thread can
be reading the old one (``synchronize_rcu`` in fs/file.c): accept(2), which never blocks otherwise,
takes 10 to 20 ms, at the 256th connection, the 512th and so on.  The table never shrinks, so it is
made large before anybody waits.
"""

import fcntl
import os
import resource

SPARE = 256
"""Descriptors for what is no connection: logs, the store, files that are sent."""


def make_room(connections: int) -> None:
    """Have a table for so many connections, at 8 bytes each; for fewer where the process may not
    have as many."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = connections + SPARE - 1
    if most != resource.RLIM_INFINITY:
        last = min(last, most - 1)
    spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(fcntl.fcntl(spare, fcntl.F_DUPFD_CLOEXEC, last))
    except OSError:
        pass  # no memory, or a limit that is not told: then it grows as it is needed
    finally:
        os.close(spare)
