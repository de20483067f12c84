"""The private directory of a running site, and how the site's other processes find it.

The master makes one directory for its embedded store (0700, owned by the user that the workers run
as) and removes it at the end.  A worker leaves a *record* in it: which site this is, and where its
store answers.  A management command or a task queue's worker of the same site, user and machine
looks through the places where such directories lie and takes the record that is its site's.

The record lives in the directory and nowhere else, so it goes when the store goes, and nobody can
prepare one in advance for somebody else: what is believed is only a directory that this user owns
and nobody else can enter, and a file in it.  Root is no exception, for a directory of another user
says what that user likes: run the command as the user of the site.

Standard library only; the cold master imports the names.
"""

import contextlib
import json
import os
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpulse.errors import StoreError

PREFIX = "gpulse-"
"""What the names of these directories begin with."""
RECORD_BYTES = 65_536
"""The longest record that is read."""
DIRECTORIES = 1_000
"""Directories of one place that are looked at."""
CONNECT = 0.25
"""Seconds for a store to take a connection, or it counts as gone."""

_RECORD = "site.json"


@dataclass(frozen=True, slots=True)
class Site:
    """What the record says."""

    url: str
    """Of the store; its socket lies in the directory."""
    app_name: str
    settings_file: str
    """The file of Django's settings module; empty without one."""
    history: tuple[tuple[str, int, float], ...] = ()
    """As :class:`gpulse.config.Config` has it: whoever publishes has to know what is kept."""


def bases(environ: Mapping[str, str]) -> list[str]:
    """Where the master may make its directory, the best place first."""
    # systemd separates several runtime directories by colons.
    named = [environ.get("RUNTIME_DIRECTORY", "").partition(":")[0], environ.get("XDG_RUNTIME_DIR")]
    return [base for base in (*named, tempfile.gettempdir(), "/tmp") if base]


def announce(directory: str, site: Site) -> None:
    """In a worker: leave the record, in place of an earlier one.

    :raises OSError: it cannot be written.
    """
    draft = Path(directory, f"{_RECORD}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(site), file)
    draft.replace(Path(directory, _RECORD))


def find(app_name: str, settings_file: str, environ: Mapping[str, str]) -> Site | None:
    """The running site of this user that has this name and these settings; None without one.

    :param settings_file: empty in a process without Django: then the name alone decides.
    :raises StoreError: several sites fit.
    """
    found = {
        site.url: site
        for site in _sites(environ)
        if site.app_name == app_name and settings_file in ("", site.settings_file)
    }
    running = [site for site in found.values() if _answers(site)]
    if len(running) > 1:
        raise StoreError(
            f"{len(running)} sites named {app_name!r} run here with an embedded store each: set "
            "GPULSE_DATA_STORE to the URL of the one that is meant, or give each a "
            "--pulse-app-name of its own"
        )
    return running[0] if running else None


def read(directory: str) -> Site | None:
    """The record of a directory; None if there is none that makes sense."""
    try:
        fd = os.open(f"{directory}/{_RECORD}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            content: Any = json.loads(file.read(RECORD_BYTES))
        history = tuple(
            (str(name), int(size), float(age)) for name, size, age in content["history"]
        )
        site = Site(str(content["url"]), content["app_name"], content["settings_file"], history)
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return site if Path(socket_path(site)).parent == Path(directory) else None


def socket_path(site: Site) -> str:
    """The socket of the site's store."""
    return site.url.removeprefix("unix://").partition("?")[0]


def _sites(environ: Mapping[str, str]) -> Iterator[Site]:
    for base in dict.fromkeys([*bases(environ), f"/run/user/{os.geteuid()}", *_services()]):
        with contextlib.suppress(OSError), os.scandir(base) as entries:
            for number, entry in enumerate(entries):
                if number >= DIRECTORIES:
                    break
                if entry.name.startswith(PREFIX) and _is_ours(entry.stat(follow_symlinks=False)):
                    site = read(entry.path)
                    if site is not None:
                        yield site


def _services() -> list[str]:
    """What systemd made for services of this user (``RuntimeDirectory=``)."""
    try:
        with os.scandir("/run") as entries:
            return [
                entry.path
                for entry in entries
                if entry.is_dir(follow_symlinks=False)
                and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            ]
    except OSError:
        return []


def _is_ours(found: os.stat_result) -> bool:
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.geteuid()
        and not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    )


def _answers(site: Site) -> bool:
    """Whether somebody listens there: a master that was killed leaves its directory behind."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT)
        try:
            probe.connect(socket_path(site))
        except OSError:
            return False
    return True
