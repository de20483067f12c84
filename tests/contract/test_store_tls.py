"""The store behind TLS: one server, sentinels and a cluster, with certificates that are checked;
and what is said where the other side, or its log-in, is not what the URL says.

The server program of the tests cannot do TLS, so each has a front that ends it; see ``tls_front``.
"""

import logging
import socket
import ssl
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import gevent
import pytest
from certificates import Certificates
from contract.store_ground import Ground, eventually
from contract.tls_front import HANDSHAKE, TlsFront
from services import Cluster, Valkey, start_cluster, start_sentinel, start_valkey

from gpulse.errors import PublishError
from gpulse.historyrules import HistoryRules
from gpulse.store import Store, encode, open_store
from gpulse.store.names import Names
from gpulse.store.slots import key_slot

KINDS = ("single", "sentinel", "cluster")
RULES = HistoryRules([("kept:*", 100, 300.0)])
Fronts = Callable[[Valkey], TlsFront]


def server_context(certificates: Certificates, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.issue(name).configure_cert(context)
    return context


class Place:
    """Servers behind fronts.

    :param fronts: what clients are told of first, those of the data nodes after it.
    """

    def __init__(
        self, url: str, fronts: Sequence[TlsFront], sentinel: Valkey | None = None
    ) -> None:
        self.url = url
        self.fronts = fronts
        self.sentinel = sentinel

    def at(self, *options: str) -> str:
        return f"{self.url}?{'&'.join(options)}"

    @property
    def primary(self) -> TlsFront:
        """That of the server that the sentinel names."""
        assert self.sentinel is not None
        _, port = self.sentinel.command("SENTINEL", "get-master-addr-by-name", "site")
        return next(front for front in self.fronts if front.port == int(port))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def other_ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    ca: str = Certificates(tmp_path_factory.mktemp("theirs")).ca
    return ca


@pytest.fixture(scope="module")
def fronts(certificates: Certificates) -> Iterator[Fronts]:
    with ExitStack() as opened:

        def start(server: Valkey) -> TlsFront:
            front = TlsFront(server.directory / "s", server_context(certificates))
            return opened.enter_context(front)

        yield start


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest, fronts: Fronts) -> Iterator[Place]:
    start = {"single": single_server, "sentinel": behind_a_sentinel, "cluster": in_a_cluster}
    with ExitStack() as started:
        yield start[request.param](fronts, started)


def single_server(fronts: Fronts, started: ExitStack) -> Place:
    server = started.enter_context(start_valkey(port=True))
    front = fronts(server)
    return Place(f"rediss://127.0.0.1:{front.port}/3", [front])


def behind_a_sentinel(fronts: Fronts, started: ExitStack) -> Place:
    """A primary and a replica, which are known to the sentinel by their fronts."""
    servers = [started.enter_context(start_valkey(port=True)) for _ in "pr"]
    primary, replica = (fronts(server) for server in servers)
    for server, front in zip(servers, (primary, replica), strict=True):
        server.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        server.command("CONFIG", "SET", "replica-announce-ip", "127.0.0.1")
        server.command("CONFIG", "SET", "replica-announce-port", front.port)
    servers[1].command("REPLICAOF", "127.0.0.1", primary.port)
    sentinel = started.enter_context(start_sentinel(primary.port))
    front = fronts(sentinel)
    url = f"rediss+sentinel://127.0.0.1:{front.port}/site/3"
    eventually(lambda: sentinel.command("SENTINEL", "REPLICAS", "site"), 20.0)
    return Place(url, [front, primary, replica], sentinel)


def in_a_cluster(fronts: Fronts, started: ExitStack) -> Place:
    nodes = with_fronts(started.enter_context(start_cluster()), fronts)
    return Place(f"rediss+cluster://127.0.0.1:{nodes[0].port}", nodes)


def with_fronts(cluster: Cluster, fronts: Fronts) -> list[TlsFront]:
    """The fronts of a cluster's nodes, which now announce these."""
    found = [fronts(node) for node in cluster.nodes]
    for node, front in zip(cluster.nodes, found, strict=True):
        node.command("CONFIG", "SET", "cluster-announce-port", front.port)
        node.port = front.port
    ports = {front.port for front in found}
    for node in cluster.nodes:
        eventually(
            lambda node=node: {each[2][1] for each in node.command("CLUSTER", "SLOTS")} == ports
        )
    return found


@pytest.fixture
def opened() -> Iterator[Callable[[str], Ground]]:
    """``opened(url)`` is where stores of that URL live."""
    grounds: list[Ground] = []

    def start(url: str) -> Ground:
        grounds.append(Ground(url))
        return grounds[-1]

    yield start
    for ground in grounds:
        ground.close()


@pytest.fixture
def with_history() -> Iterator[Callable[[str], Store]]:
    stores: list[Store] = []

    def start(url: str) -> Store:
        stores.append(open_store(url, uuid.uuid4().hex, history=RULES))
        return stores[-1]

    yield start
    for store in stores:
        store.close()


class TestWithTheRightAuthority:
    @pytest.mark.parametrize("checked", [True, False], ids=["checked", "not"])
    def test_messages_travel(
        self,
        place: Place,
        certificates: Certificates,
        opened: Callable[[str], Ground],
        checked: bool,
    ) -> None:
        option = f"ssl_ca_certs={certificates.ca}" if checked else "ssl_cert_reqs=none"
        ground = opened(place.at(option))
        store = ground.open()
        ear = ground.ear(store).listen("a")
        for number in range(200):
            store.publish("a", encode([number, "x" * 5000]))
        assert ear.messages(200) == [[number, "x" * 5000] for number in range(200)]
        assert store.join("k", "ann", "one") == 1
        store.release("one")

    def test_what_was_missed_is_recovered(
        self, place: Place, certificates: Certificates, with_history: Callable[[str], Store]
    ) -> None:
        store = with_history(place.at(f"ssl_ca_certs={certificates.ca}"))
        channels = [f"kept:{number}" for number in range(20)]  # on all nodes of a cluster
        heads = store.recover([(channel, None) for channel in channels])
        for channel in channels:
            store.publish(channel, encode(channel))
        since = [(channel, head.position) for channel, head in zip(channels, heads, strict=True)]
        found = store.recover(since)
        assert [[event.message for event in each.events] for each in found] == [
            [channel] for channel in channels
        ]

    def test_nothing_of_ours_is_sent_in_plain(
        self, place: Place, certificates: Certificates, opened: Callable[[str], Ground]
    ) -> None:
        # The sentinel itself talks to the data nodes in plain.
        ours = place.fronts if place.sentinel is None else place.fronts[:1]
        plain = [front.plain for front in ours]
        used = [*ours] if place.sentinel is None else [*ours, place.primary]
        encrypted = [front.encrypted for front in used]
        ground = opened(place.at(f"ssl_ca_certs={certificates.ca}"))
        store = ground.open()
        channels = [str(number) for number in range(20)]
        ground.ear(store).listen(*channels)
        for channel in channels:
            store.publish(channel, encode(1))
        assert [front.plain for front in ours] == plain
        assert all(front.encrypted > before for front, before in zip(used, encrypted, strict=True))

    @pytest.mark.parametrize("place", ["sentinel"], indirect=True)
    def test_a_new_primary_is_found(
        self, place: Place, certificates: Certificates, opened: Callable[[str], Ground]
    ) -> None:
        ground = opened(place.at(f"ssl_ca_certs={certificates.ca}"))
        store = ground.open()
        ear = ground.ear(store).listen("a")
        assert place.sentinel is not None
        former = place.primary
        place.sentinel.command("SENTINEL", "FAILOVER", "site")
        eventually(lambda: place.primary is not former, 20.0)
        eventually(lambda: ear.reconnects, 20.0)

        def arrives() -> bool:
            try:
                store.publish("a", encode("after"))
            except PublishError:
                return False
            return bool(ear.events)

        eventually(arrives, 20.0)


def test_a_slot_that_moves_is_followed_through_tls(
    fronts: Fronts, certificates: Certificates, opened: Callable[[str], Ground]
) -> None:
    with start_cluster() as cluster:
        first, *_ = with_fronts(cluster, fronts)
        url = f"rediss+cluster://127.0.0.1:{first.port}?ssl_ca_certs={certificates.ca}"
        ground = opened(url)
        store = ground.open()
        ear = ground.ear(store).listen("a")
        slot = key_slot(Names(ground.app_name, 0).wire("a"))
        old = cluster.owner(slot)
        cluster.move(slot, next(node for node in cluster.nodes if node is not old))
        eventually(lambda: "a" in ear.missed)
        store.publish("a", encode("after"))
        assert ear.messages(1) == ["after"]


class TestWithTheWrongOne:
    """One line says what is wrong with what, to publishers and in the log."""

    def failure(self, url: str, opened: Callable[[str], Ground]) -> str:
        with pytest.raises(PublishError) as caught:
            opened(url).open().publish("a", encode(1))
        text = str(caught.value)
        assert "\n" not in text
        assert "_ssl.c" not in text
        return text

    def test_a_certificate_of_another_authority_is_refused(
        self,
        place: Place,
        other_ca: str,
        opened: Callable[[str], Ground],
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("gpulse.store.subscriber.CONFIRM", 0.5)
        caplog.set_level(logging.DEBUG, "gpulse.store")
        url = place.at(f"ssl_ca_certs={other_ca}")
        why = "its certificate is not accepted: unable to get local issuer certificate; "
        text = self.failure(url, opened)
        assert why in text
        assert f"127.0.0.1:{place.fronts[0].port}" in text
        ground = opened(url)
        ear = ground.ear(ground.open())
        ear.subscriber.subscribe("a", ear.answers.append)
        eventually(lambda: ear.answers)
        assert ear.answers != [None]
        assert why in caplog.text
        assert "Traceback" not in caplog.text

    @pytest.mark.parametrize("place", ["sentinel"], indirect=True)
    def test_it_is_said_whether_that_is_the_sentinel_s_or_the_primary_s(
        self,
        place: Place,
        certificates: Certificates,
        other_ca: Path,
        opened: Callable[[str], Ground],
    ) -> None:
        assert place.sentinel is not None
        strange = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        others = Certificates(Path(other_ca).parent)
        others.issue("127.0.0.1").configure_cert(strange)
        with TlsFront(place.sentinel.directory / "s", strange) as front:
            url = f"rediss+sentinel://127.0.0.1:{front.port}/site?ssl_ca_certs={others.ca}"
            text = self.failure(url, opened)
        assert f"(the primary 127.0.0.1:{place.primary.port}: its certificate is not" in text

    def test_a_certificate_for_another_name_is_refused(
        self, certificates: Certificates, shared_valkey: Valkey, opened: Callable[[str], Ground]
    ) -> None:
        context = server_context(certificates, "store.test")
        with TlsFront(shared_valkey.directory / "s", context) as front:
            url = f"rediss://127.0.0.1:{front.port}?ssl_ca_certs={certificates.ca}"
            assert "certificate is not valid for '127.0.0.1'" in self.failure(url, opened)
            opened(f"{url}&ssl_check_hostname=false").open().publish("a", encode(1))

    def test_a_server_that_wants_our_certificate_gets_it(
        self, certificates: Certificates, shared_valkey: Valkey, opened: Callable[[str], Ground]
    ) -> None:
        context = server_context(certificates)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates.ca)
        chain, key = certificates.pair("site.test")
        with TlsFront(shared_valkey.directory / "s", context) as front:
            url = f"rediss://127.0.0.1:{front.port}/3?ssl_ca_certs={certificates.ca}"
            ours = f"&ssl_certfile={chain}&ssl_keyfile={key}"
            opened(url + ours).open().publish("a", encode(1))
            text = self.failure(url, opened)
        assert "certificate required" in text or "ssl_certfile" in text

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ("ssl_ca_certs={0}/none.pem", "ssl_ca_certs {0}/none.pem cannot be used: No such file"),
            ("ssl_ca_certs={0}/empty.pem", "ssl_ca_certs {0}/empty.pem cannot be used: no cert"),
            ("ssl_certfile={0}/ca.pem", "ssl_certfile {0}/ca.pem cannot be used: a certificate or"),
            (
                "ssl_certfile={0}/ca.pem&ssl_keyfile={0}/none.key",
                "ssl_certfile {0}/ca.pem with ssl_keyfile {0}/none.key cannot be used: No such",
            ),
        ],
    )
    def test_a_file_that_cannot_be_used_is_named(
        self,
        certificates: Certificates,
        shared_valkey: Valkey,
        opened: Callable[[str], Ground],
        options: str,
        words: str,
    ) -> None:
        certificates.write("empty.pem", b"")
        directory = certificates.directory
        url = f"rediss://127.0.0.1:{shared_valkey.port}?{options.format(directory)}"
        assert words.format(directory) in self.failure(url, opened)

    def test_a_server_without_tls_is_told_by_its_silence(
        self, shared_valkey: Valkey, opened: Callable[[str], Ground]
    ) -> None:
        url = f"rediss://127.0.0.1:{shared_valkey.port}"
        assert "does it speak TLS on this port?" in self.failure(url, opened)


@pytest.fixture(scope="module")
def port(guarded_valkey: Valkey) -> Iterator[int]:
    """Of a sentinel that has a password, and a user; its primary has the password p@ss/word."""
    lines = ("requirepass open:sesame", "user watcher on >s3cret allchannels +@all")
    with start_sentinel(guarded_valkey.port, *lines) as sentinel:
        yield sentinel.port


def test_a_handshake_that_is_given_up_leaves_no_socket(opened: Callable[[str], Ground]) -> None:
    """A worker that stops kills what connects; the warnings of pytest tell of a socket left."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(5.0)
        ground = opened(f"rediss://127.0.0.1:{silent.getsockname()[1]}")
        ear = ground.ear(ground.open())
        ear.subscriber.subscribe("a", ear.answers.append)
        gevent.sleep(0.05)  # it connects, and waits for our part
        ear.subscriber.close()
        gevent.sleep(0)
        client, _ = silent.accept()
        with client:
            client.settimeout(5.0)
            assert client.recv(65536)[:1] == HANDSHAKE
            assert client.recv(65536) == b""


class TestTheLogInAtSentinels:
    """It is another one than that at the data nodes."""

    @pytest.mark.parametrize(
        "login",
        ["sentinel_password=open%3Asesame", "sentinel_username=watcher&sentinel_password=s3cret"],
    )
    def test_it_is_in_the_query(
        self, port: int, opened: Callable[[str], Ground], login: str
    ) -> None:
        ground = opened(f"redis+sentinel://:p%40ss%2Fword@127.0.0.1:{port}/site?{login}")
        store = ground.open()
        ear = ground.ear(store).listen("a")
        store.publish("a", encode("x"))
        assert ear.messages(1) == ["x"]

    @pytest.mark.parametrize(
        ("login", "words"),
        [
            ("", "NOAUTH"),
            ("?sentinel_password=p%40ss%2Fword", "WRONGPASS"),
            ("?sentinel_username=nobody&sentinel_password=s3cret", "WRONGPASS"),
        ],
    )
    def test_what_is_wrong_with_it_is_said_and_no_password_shown(
        self,
        port: int,
        opened: Callable[[str], Ground],
        caplog: pytest.LogCaptureFixture,
        login: str,
        words: str,
    ) -> None:
        caplog.set_level(logging.DEBUG, "gpulse.store")
        ground = opened(f"redis+sentinel://:p%40ss%2Fword@127.0.0.1:{port}/site{login}")
        store = ground.open()
        with pytest.raises(PublishError) as caught:
            store.publish("a", encode(1))
        text = str(caught.value)
        assert f"no sentinel names the primary (127.0.0.1:{port}: {words}" in text
        assert "the URL has sentinel_username and sentinel_password" in text
        ear = ground.ear(store)
        ear.subscriber.subscribe("a", ear.answers.append)
        eventually(lambda: words in caplog.text)
        for secret in ("p@ss", "p%40ss", "s3cret"):
            assert secret not in text + caplog.text

    def test_a_wrong_password_of_the_primary_is_told_as_the_primary_s(
        self, port: int, guarded_valkey: Valkey, opened: Callable[[str], Ground]
    ) -> None:
        url = f"redis+sentinel://:wrong@127.0.0.1:{port}/site?sentinel_password=open%3Asesame"
        with pytest.raises(PublishError, match="WRONGPASS") as caught:
            opened(url).open().publish("a", encode(1))
        assert f"(the primary 127.0.0.1:{guarded_valkey.port}: WRONGPASS" in str(caught.value)
