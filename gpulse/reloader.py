"""The reloader of ``--reload``: watches source files and sends HUP to the master.

Run by the master as ``python -m gpulse.reloader MASTER_PID DIRECTORY...``, a process of its own so
that the master stays without threads.  Uses watchfiles where it is installed, else looks at the
modification times once a second.  For development: a HUP in production belongs to the deploy.

Ends when the master, its parent, is gone.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

try:
    import watchfiles
except ImportError:  # an extra
    watchfiles = None  # type: ignore[assignment]

SUFFIXES = (".py", ".html", ".txt", ".toml", ".po", ".mo")
"""What a change of is worth a reload: code, templates, translations."""
SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})
"""Directories never looked into, as are those whose name starts with a dot."""
POLL_SECONDS = 1.0
_DEBOUNCE_MS = 300


def main(arguments: Sequence[str]) -> int:
    """Watch until the master is gone.

    :param arguments: the master's process id, then the directories.
    """
    master, directories = int(arguments[0]), list(arguments[1:])
    changes = _watch_events(directories) if watchfiles is not None else _watch_times(directories)
    for changed in changes:
        if os.getppid() != master:
            break
        if changed:
            sys.stdout.write(f"{changed} changed: reloading\n")
            sys.stdout.flush()
            os.kill(master, signal.SIGHUP)
    return 0


def is_watched(path: str, directories: Sequence[str]) -> bool:
    """Whether a change of this file below one of the directories is worth a reload."""
    file = Path(path)
    # Only what lies below counts: the site itself may well live under ~/.local.
    below = [file.relative_to(base) for base in directories if file.is_relative_to(base)]
    return file.suffix in SUFFIXES and any(
        not any(_is_skipped(name) for name in relative.parts[:-1]) for relative in below
    )


def scan(directories: Sequence[str]) -> dict[str, float]:
    """Modification time of each watched file below the directories."""
    times: dict[str, float] = {}
    for directory in directories:
        for folder, names, files in os.walk(directory):
            names[:] = [name for name in names if not _is_skipped(name)]
            for file in files:
                path = Path(folder, file)
                if path.suffix in SUFFIXES:
                    try:
                        times[str(path)] = path.stat().st_mtime
                    except FileNotFoundError:
                        continue  # removed between the listing and the look
    return times


def _is_skipped(name: str) -> bool:
    return name in SKIPPED or name.startswith(".")


def _watch_times(directories: Sequence[str]) -> Iterator[str]:
    """Yield a changed path, or an empty string after each look that found none."""
    before = scan(directories)
    while True:
        time.sleep(POLL_SECONDS)
        now = scan(directories)
        changed = sorted(path for path, _ in before.items() ^ now.items())
        before = now
        yield changed[0] if changed else ""


def _watch_events(directories: Sequence[str]) -> Iterator[str]:
    """The same from the kernel's notifications."""
    for changes in watchfiles.watch(
        *directories,
        watch_filter=lambda _, path: is_watched(path, directories),
        debounce=_DEBOUNCE_MS,
        rust_timeout=int(POLL_SECONDS * 1000),
        yield_on_timeout=True,
        raise_interrupt=False,
    ):
        yield min((path for _, path in changes), default="")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
