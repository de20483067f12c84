"""HTTPS and wss over a real master: boot, renewal of certificates, and what can go wrong."""

import contextlib
import http.client
import json
import pwd
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import test_operations
from certificates import Certificates
from pulse import DEADLINE, Pulse, until
from test_operations import GREENLETS, SITE, run_manage, uids
from websockets.sync.client import ClientConnection, connect

# Fixtures of tests that run workers as another user.
nobody_can = test_operations.nobody_can
open_folder = test_operations.open_folder

Start = Callable[..., "TlsPulse"]
PROGRAMS = {"manage.py": (), "gpulse": ("--settings", "mysite.settings")}


class TlsPulse(Pulse):
    """A pulse whose port speaks TLS.

    :param certificates: who signs its certificate, and what its clients trust.
    """

    def __init__(
        self, folder: Path, *options: str, certificates: Certificates, **keywords: Any
    ) -> None:
        self.context = certificates.client()
        super().__init__(folder, *options, **keywords)

    @property
    def port(self) -> int:
        if not self._port:
            self.logged("listening on ")
            self._port = int(re.findall(r"listening on https?://127\.0\.0\.1:(\d+)", self.log)[0])
        return self._port

    def connect(self) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=DEADLINE, context=self.context
        )
        connection.connect()
        return connection

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        with contextlib.closing(self.connect()) as connection:
            return ask(connection, path)

    def serial(self) -> str:
        """The number of the certificate that a new connection is shown."""
        with contextlib.closing(self.connect()) as connection:
            return serial(connection)

    def socket(self, path: str, **options: Any) -> ClientConnection:
        client = connect(
            f"wss://127.0.0.1:{self.port}{path}",
            open_timeout=DEADLINE,
            proxy=None,
            ssl=self.context,
            **options,
        )
        return client.__enter__()


def ask(connection: http.client.HTTPSConnection, path: str) -> tuple[int, str]:
    """One request; the connection stays open if the server lets it."""
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read().decode()


def serial(connection: http.client.HTTPSConnection) -> str:
    """The number of the certificate that the server showed."""
    certificate = connection.sock.getpeercert()
    assert certificate
    return str(certificate["serialNumber"])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


class Pair:
    """A certificate and its key on disk, as options, to be replaced by others."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self.certificate, self.key = folder / "site.pem", folder / "site.key"
        self.certificates = certificates
        self.options = ("--tls-certificate", str(self.certificate), "--tls-key", str(self.key))
        self.renew()

    def renew(self) -> None:
        """As a client of an authority does it: new files in the place of the old ones."""
        leaf = self.certificates.issue("127.0.0.1", "localhost")
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        for path, data in ((self.certificate, chain), (self.key, leaf.private_key_pem.bytes())):
            new = path.with_suffix(".new")
            new.write_bytes(data)
            new.chmod(0o600)
            new.replace(path)


@pytest.fixture
def pair(tmp_path: Path, certificates: Certificates) -> Pair:
    return Pair(tmp_path, certificates)


@pytest.fixture
def start_tls(tmp_path: Path, pair: Pair) -> Iterator[Start]:
    """Start a pulse with ``pair`` and the given options."""
    started: list[TlsPulse] = []

    def start_pulse(*options: str, **keywords: Any) -> TlsPulse:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        pulse = TlsPulse(
            folder, *pair.options, *options, certificates=pair.certificates, **keywords
        )
        started.append(pulse)
        return pulse

    yield start_pulse
    for pulse in started:
        pulse.close()


# -- serving


@pytest.mark.parametrize("program", PROGRAMS)
def test_pages_are_served(start_tls: Start, mode: list[str], program: str) -> None:
    pulse = start_tls(*PROGRAMS[program], *mode, program=program).ready()
    url = f"https://127.0.0.1:{pulse.port}"
    assert f"listening on {url}" in pulse.log
    assert json.loads(pulse.text("/scheme")) == {
        "is_secure": True,
        "url": f"{url}/scheme",
        "protocol": "TLSv1.3",
    }
    connection = pulse.connect()
    for size in (0, 70_000, 3_000_000):
        body = bytes(range(256)) * (size // 256)
        connection.request("POST", "/body", body)
        assert connection.getresponse().read() == body
    assert ask(connection, "/stream?count=10&repeat=100000")[1].count("\n") == 1_000_000
    assert "One view for each thing" in ask(connection, "/file")[1]
    connection.close()
    assert pulse.stop() == 0


def test_websockets_are_served(start_tls: Start, mode: list[str]) -> None:
    pulse = start_tls(*mode, "-w", "2").ready()
    with pulse.socket("/echo") as client:
        for message in ("hello", "x" * 100_000, b"\0" * 100_000):
            client.send(message)
            assert client.recv(DEADLINE) == message
    with pulse.socket("/room/lobby") as one, pulse.socket("/room/lobby") as other:
        one.recv(DEADLINE), other.recv(DEADLINE)
        one.send("to all")
        assert one.recv(DEADLINE) == other.recv(DEADLINE) == "to all"
    assert pulse.stop() == 0


def test_plain_http_is_told_that_the_port_speaks_tls(start_tls: Start) -> None:
    pulse = start_tls(*GREENLETS).ready()
    assert Pulse.get(pulse, "/version") == (
        400,
        "This port speaks TLS. Use an address that begins with https:// here.\n",
    )
    assert pulse.text("/version") == "one"
    assert pulse.stop() == 0


def test_a_unix_socket_stays_plain(start_tls: Start, tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    pulse = start_tls(*GREENLETS, "-b", f"unix:{path}").ready()
    connection = pulse.connect_unix(path)
    connection.request("GET", "/scheme")
    assert json.loads(connection.getresponse().read())["is_secure"] is False
    connection.close()
    assert pulse.text("/version") == "one"
    assert pulse.stop() == 0


# -- renewal


class Visitor:
    """Asks for a page again and again, until it is told to stop.

    :param keeps: keeps its connection as long as the server does.
    """

    def __init__(self, pulse: TlsPulse, *, keeps: bool) -> None:
        self.serials: list[str] = []
        """Of each connection, in order."""
        self.answers = 0
        self.failures: list[object] = []
        self._ends = False
        self._pulse = pulse
        self._keeps = keeps
        self._thread = threading.Thread(target=self._visit)

    def __enter__(self) -> "Visitor":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()

    def _visit(self) -> None:
        connection = None
        while not self._ends:
            try:
                if connection is None:
                    connection = self._pulse.connect()
                    self.serials.append(serial(connection))
                answer = ask(connection, "/version")
                if answer != (200, "one"):
                    self.failures.append(answer)
                self.answers += 1
                if not self._keeps or connection.sock is None:  # "Connection: close" came
                    connection.close()
                    connection = None
            except Exception as error:
                self.failures.append(error)
                connection = None
        if connection is not None:
            connection.close()


def test_a_renewed_certificate_is_served_after_hup_and_no_request_fails(
    start_tls: Start, mode: list[str], pair: Pair
) -> None:
    pulse = start_tls(*mode, "-w", "2").ready()
    old_workers = pulse.workers()
    old = pulse.serial()
    with (
        Visitor(pulse, keeps=False) as passing,
        Visitor(pulse, keeps=True) as staying,
        ThreadPoolExecutor(1) as threads,
        contextlib.closing(pulse.connect()) as busy,
    ):
        visitors = (passing, staying)
        slept = threads.submit(ask, busy, "/sleep?seconds=3")
        until(lambda: all(visitor.answers for visitor in visitors), "the visitors are there")
        pair.renew()
        pulse.send_signal("HUP")
        pulse.logged("reloaded: generation 2 serves")
        new = pulse.serial()
        assert new != old
        then = [visitor.answers for visitor in visitors]
        until(
            lambda: all(
                visitor.answers > n + 10 for visitor, n in zip(visitors, then, strict=True)
            ),
            "the visitors go on",
        )
        assert slept.result(DEADLINE) == (200, "slept")
        until(lambda: not set(old_workers) & set(pulse.workers()), "the old workers are gone")
    for visitor in visitors:
        assert visitor.failures == []
        assert set(visitor.serials) == {old, new}
    # Its connections are one after another; the other's may come to any worker.
    assert staying.serials == sorted(staying.serials, key=[old, new].index)
    assert pulse.stop() == 0


def test_an_idle_connection_of_the_old_worker_is_answered_once_more(
    start_tls: Start, pair: Pair
) -> None:
    pulse = start_tls(*GREENLETS).ready()
    (old_worker,) = pulse.workers()
    with contextlib.closing(pulse.connect()) as idle:
        assert ask(idle, "/version") == (200, "one")
        old = serial(idle)
        pair.renew()
        pulse.send_signal("HUP")
        until(lambda: pulse.serial() != old, "the new worker serves")
        assert ask(idle, "/pid") == (200, str(old_worker))
    pulse.logged("reloaded: generation 2 serves")
    assert pulse.stop() == 0


def spoil_certificate(pair: Pair) -> str:
    pair.certificate.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    return f"OpenSSL cannot use the TLS certificate {pair.certificate} with the key {pair.key}: "


def remove_key(pair: Pair) -> str:
    pair.key.unlink()
    return f"cannot read the TLS key {pair.key}: No such file or directory"


def exchange_key(pair: Pair) -> str:
    pair.key.write_bytes(pair.certificates.issue("127.0.0.1").private_key_pem.bytes())
    return f"the TLS key {pair.key} does not belong to the certificate {pair.certificate}; "


SPOILERS = [spoil_certificate, remove_key, exchange_key]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_reload_with_broken_files_is_abandoned(
    start_tls: Start, pair: Pair, spoil: Callable[[Pair], str]
) -> None:
    pulse = start_tls("-w", "2", *GREENLETS).ready()
    workers = pulse.workers()
    with contextlib.closing(pulse.connect()) as connection:
        old = serial(connection)
        reason = spoil(pair)
        pulse.send_signal("HUP")
        pulse.logged("reload abandoned, 2 workers with the old code go on serving: ")
        assert pulse.log.count(reason) == 1, pulse.log
        assert "Traceback" not in pulse.log
        assert ask(connection, "/version") == (200, "one")
    for _ in range(5):
        assert (pulse.serial(), pulse.text("/version")) == (old, "one")
    assert sorted(pulse.workers()) == sorted(workers)

    pair.renew()
    pulse.send_signal("HUP")
    until(lambda: pulse.serial() != old, "the mended files are served")
    pulse.logged("reloaded: generation 3 serves")
    assert pulse.stop() == 0


# -- boot


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_boot_with_broken_files_is_one_line(
    start_tls: Start, mode: list[str], pair: Pair, spoil: Callable[[Pair], str]
) -> None:
    reason = spoil(pair)
    pulse = start_tls(*mode, "-w", "2")
    assert pulse.process.wait(DEADLINE) == 7, pulse.log
    assert pulse.log.count(reason) == 1, pulse.log
    assert "Traceback" not in pulse.log
    pulse.assert_gone()


@pytest.mark.parametrize("spoil", [remove_key, exchange_key])
def test_check_config_looks_at_the_files(pair: Pair, spoil: Callable[[Pair], str]) -> None:
    done = run_manage(SITE, "--check-config", *pair.options)
    assert (done.returncode, done.stderr) == (0, "")
    reason = spoil(pair)
    done = run_manage(SITE, "--check-config", *pair.options)
    assert done.returncode == 7
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"gpulse: {reason}")


def test_a_key_that_only_root_may_read_is_served_by_another_users_workers(
    open_folder: Path, certificates: Certificates, nobody_can: dict[str, Any]
) -> None:
    nobody = pwd.getpwnam("nobody")
    secrets, folder = open_folder / "secrets", open_folder / "pulse"
    for path in (secrets, folder):
        path.mkdir()
    pair = Pair(secrets, certificates)
    secrets.chmod(0o700)
    assert (pair.key.stat().st_uid, pair.key.stat().st_mode & 0o777) == (0, 0o600)
    pulse = TlsPulse(
        folder,
        *("-w", "2", *GREENLETS, "-u", "nobody", *pair.options),
        certificates=certificates,
        copied=True,
        **nobody_can,
    )
    try:
        pulse.ready()
        old_workers = pulse.workers()
        assert [uids(pid) for pid in old_workers] == [{nobody.pw_uid}] * 2
        assert pulse.text("/version") == "one"
        # The next workers read it, too: the master is still root.
        pair.renew()
        pulse.send_signal("HUP")
        pulse.logged("reloaded: generation 2 serves")
        assert not set(old_workers) & {int(pulse.text("/pid")) for _ in range(5)}
        assert pulse.stop() == 0
    finally:
        pulse.close()
