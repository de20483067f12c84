"""The servers that gpulse is compared with, and the options that choose them.

They run in an interpreter of their own choice (``--peers-python``), so that they need not be
installed beside gpulse.  A peer that is not there ends the benchmark, unless it is left out by
name: a table without it would say nothing about it.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from servers import DEADLINE, HERE, HOST, Server


@dataclass(frozen=True)
class Peer:
    """A server to compare with.

    :param name: for tables.
    :param modules: what its interpreter must be able to import, besides the application.
    :param start: application, interpreter, whether it writes an access log -> the server.
    """

    name: str
    modules: tuple[str, ...]
    start: Callable[[str, str, bool], Server]


def _gunicorn(application: str, python: str, access_log: bool) -> Server:
    """One gevent worker with keep-alive."""
    log = ("--access-logfile", "{folder}/access") if access_log else ()
    return Server(
        *("gunicorn gevent", "-m", "gunicorn", application, "-w", "1", "-k", "gevent"),
        *("--keep-alive", "5", "-b", f"{HOST}:{{port}}", *log),
        python=python,
    )


def _granian(application: str, python: str, access_log: bool) -> Server:
    """One worker with one thread for Python and one for the network; its access log goes to
    standard output, which is a file."""
    return Server(
        *("granian", "-m", "granian", application, "--interface", "wsgi", "--workers", "1"),
        *("--blocking-threads", "1", "--runtime-threads", "1", "--host", HOST, "--port", "{port}"),
        "--access-log" if access_log else "--no-access-log",
        python=python,
    )


def _bjoern(application: str, python: str, access_log: bool) -> Server:
    """One process; it has no access log and no limits."""
    return Server("bjoern", "bjoern_site.py", "{port}", application, python=python)


GUNICORN = "gunicorn gevent"
GRANIAN = "granian"
BJOERN = "bjoern"

PEERS = {
    "gunicorn": Peer(GUNICORN, ("gunicorn", "gevent", "packaging"), _gunicorn),
    "granian": Peer(GRANIAN, ("granian",), _granian),
    "bjoern": Peer(BJOERN, ("bjoern",), _bjoern),
}
"""By the name that ``--without`` takes."""


@dataclass(frozen=True)
class SocketPeer:
    """A server of WebSockets to compare with; none of them writes an access log.

    :param start: interpreter, environment of its own -> the server.
    :param layer: class of its channel layer, where it has one.
    """

    name: str
    modules: tuple[str, ...]
    start: Callable[[str, Mapping[str, str]], Server]
    layer: str = ""


def _script(name: str, script: str, python: str, environ: Mapping[str, str]) -> Server:
    return Server(name, script, "{port}", python=python, environ=environ)


def _uvicorn(name: str, python: str, environ: Mapping[str, str]) -> Server:
    """One process with what its ``standard`` extra brings: uvloop, httptools, websockets."""
    return Server(
        *(name, "-m", "uvicorn", "channelsite.asgi:application", "--log-level", "warning"),
        *("--ws-ping-interval", "600", "--no-access-log", "--host", HOST, "--port", "{port}"),
        python=python,
        environ=environ,
    )


def _channels(name: str, *modules: str, layer: str = "") -> SocketPeer:
    needs = ("uvicorn", "uvloop", "httptools", "websockets", "channels", *modules)
    return SocketPeer(name, needs, partial(_uvicorn, name), layer)


GEVENT_WEBSOCKET = "gevent-websocket"
CHANNELS = "uvicorn + Channels"
CHANNELS_LISTS = "Channels, RedisChannelLayer"
CHANNELS_PUBSUB = "Channels, RedisPubSubChannelLayer"
PICOWS = "picows"

ECHOES = {
    "gevent-websocket": SocketPeer(
        GEVENT_WEBSOCKET,
        ("geventwebsocket",),
        partial(_script, GEVENT_WEBSOCKET, "gevent_echo.py"),
    ),
    "channels": _channels(CHANNELS),
    "picows": SocketPeer(PICOWS, ("picows", "uvloop"), partial(_script, PICOWS, "picows_echo.py")),
}
"""The peers of ``echo.py``."""

ROOMS = {
    "gevent-websocket": SocketPeer(
        GEVENT_WEBSOCKET,
        ("geventwebsocket",),
        partial(_script, GEVENT_WEBSOCKET, "gevent_room.py"),
    ),
    "channels": _channels(
        CHANNELS_LISTS, "channels_redis", layer="channels_redis.core.RedisChannelLayer"
    ),
    "channels-pubsub": _channels(
        CHANNELS_PUBSUB, "channels_redis", layer="channels_redis.pubsub.RedisPubSubChannelLayer"
    ),
}
"""The peers of ``broadcast.py``."""

AnyPeer = TypeVar("AnyPeer", bound=Peer | SocketPeer)


def add_peer_options(
    parser: argparse.ArgumentParser, names: Sequence[str], *, access_log: bool = True
) -> None:
    """``--peers-python``, ``--without`` and ``--no-access-log``.

    :param names: those that the benchmark compares with.
    :param access_log: whether its servers can have one.
    """
    parser.add_argument(
        "--peers-python",
        default=sys.executable,
        metavar="PATH",
        help="the interpreter that has the peers installed (this one)",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=names,
        help="leave a peer out; its targets are not measured; may be repeated",
    )
    if access_log:
        parser.add_argument(
            "--no-access-log",
            dest="access_log",
            action="store_false",
            help="no server writes an access log, as bjoern never does; not what the targets are "
            "for",
        )


def chosen_peers(
    options: argparse.Namespace, table: Mapping[str, AnyPeer], names: Sequence[str], *also: str
) -> list[AnyPeer]:
    """The peers to compare with, in the order of ``names``.

    :param table: that has these names: PEERS, ECHOES or ROOMS.
    :param also: modules that the applications need.
    :raises SystemExit: some are not installed; all of them are named.
    """
    peers: list[AnyPeer] = [table[name] for name in names if name not in options.without]
    missing = [
        f"{peer.name} ({module} cannot be imported)"
        for peer in peers
        for module in (*peer.modules, *also)
        if not _has(options.peers_python, module)
    ]
    if missing:
        raise SystemExit(
            f"{options.peers_python} lacks: {', '.join(missing)}\n"
            "Install what is missing (see README.rst), name an interpreter that has it by "
            "--peers-python, or leave a peer out by --without."
        )
    return peers


def _has(python: str, module: str) -> bool:
    try:
        run = subprocess.run(
            [python, "-c", f"import {module}"],
            capture_output=True,
            timeout=DEADLINE,
            check=False,
            cwd=HERE / "apps",  # where the server will import it
        )
    except OSError as error:
        raise SystemExit(f"cannot run {python}: {error.strerror}") from None
    return run.returncode == 0
