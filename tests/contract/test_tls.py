"""HTTP and WebSockets over TLS on real sockets, on greenlets and on threads."""

import contextlib
import hashlib
import logging
import os
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gevent
import gevent.socket
import gevent.ssl
import pytest
from certificates import Certificates
from contract import test_upgrade
from contract.test_upgrade import loop, parked
from contract.wsgi_site import Client, until

from gpulse import tlsfiles
from gpulse.config import Config
from gpulse.connection.tls import FILE_BLOCK, PLAIN_HTTP
from gpulse.connection.tlscontext import build_context
from gpulse.http.limits import Limits

quiet = test_upgrade.quiet

MIB = 1024 * 1024
BIG = 6_000_000
"""More than the kernel's buffers of a loopback connection take."""


class TlsClient(Client):
    """Ends by an alert: a connection that ends without one is an error."""

    def __init__(self, address, context, name="site.test", receive_buffer=None):
        super().__init__(address, receive_buffer)
        self.sock = context.wrap_socket(self.sock, server_hostname=name, suppress_ragged_eofs=False)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def secure(serve, certificates):
    """``secure(application, **options)`` is ``serve`` with TLS."""

    def start(application, **options):
        certificate, key = certificates.pair("site.test")
        options = {"tls_certificate": certificate, "tls_key": key, **options}
        chosen = {name: value for name, value in options.items() if name.startswith("tls_")}
        context = build_context(tlsfiles.read_files(Config.defaults(**chosen)))
        return serve(application, tls=context, **options)

    return start


@pytest.fixture
def reasons(caplog):
    """Why connections were refused, as the log says it."""
    caplog.set_level(logging.DEBUG, "gpulse.http")

    def found():
        texts = [record.getMessage() for record in caplog.records]
        mark = "a connection is refused: "
        return [text.removeprefix(mark) for text in texts if text.startswith(mark)]

    return found


@pytest.fixture
def client_of(certificates):
    """``client_of(site)`` is a client that trusts it."""
    # Made before a site counts descriptors: gevent opens some when it is first used.
    gevent.sleep(0)

    def connect(site, leaf=None, **kwargs):
        context = certificates.client(leaf, gevent.ssl.SSLContext)
        client = TlsClient(site.address, context, **kwargs)
        site.clients.append(client)
        return client

    return connect


def text(environ, start_response):
    body = environ["wsgi.input"].read()
    answer = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} ".encode() + body
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


def echo(environ, start_response):
    start_response("200 OK", [])
    return [environ["wsgi.input"].read()]


def keys(environ, start_response):
    names = ("HTTPS", "SSL_PROTOCOL", "SSL_CLIENT_VERIFY", "SSL_CLIENT_S_DN")
    start_response("200 OK", [])
    return [" ".join(environ.get(name, "-") for name in names).encode()]


def big(environ, start_response):
    start_response("200 OK", [("Content-Length", str(BIG))])
    return [b"x" * BIG]


class TestHttp:
    def test_a_page(self, secure, client_of):
        client = client_of(secure(keys))
        client.request("GET", "/", Connection="close")
        assert client.read().body == b"on TLSv1.3 - -"
        assert client.is_ended()

    def test_one_connection_serves_many_requests(self, secure, client_of):
        client = client_of(secure(text))
        for number in range(20):
            client.request("POST", f"/{number}", b"body")
            assert client.read().body == f"POST /{number} body".encode()

    def test_pipelined_requests_are_answered_in_order(self, secure, client_of):
        client = client_of(secure(text))
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(50)))
        assert [client.read().body for _ in range(50)] == [b"GET /%d " % n for n in range(50)]

    def test_more_pipelined_than_is_kept_is_read_later(self, secure, client_of):
        client = client_of(secure(text, limits=Limits(pipelined=1000)))
        sender = gevent.spawn(
            client.send, b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(2000))
        )
        assert [client.read().body for _ in range(2000)] == [b"GET /%d " % n for n in range(2000)]
        sender.get(timeout=5)

    def test_three_mebibytes_in_and_out(self, secure, client_of):
        client = client_of(secure(echo))
        data = bytes(range(256)) * (3 * MIB // 256)
        for _ in range(2):
            sender = gevent.spawn(client.request, "POST", "/", data)
            answer = client.read()
            sender.get(timeout=5)
            assert answer.body == data

    def test_a_chunked_upload(self, secure, client_of):
        client = client_of(secure(echo))
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            client.send(b"1000\r\n" + b"y" * 4096 + b"\r\n")
        client.send(b"0\r\n\r\n")
        assert client.read().body == b"y" * 409_600

    def test_a_streamed_response(self, secure, client_of):
        def application(environ, start_response):
            start_response("200 OK", [])
            for number in range(200):
                yield b"%05d" % number * 1000

        client = client_of(secure(application))
        client.request("GET", "/")
        answer = client.read()
        assert answer.body == b"".join(b"%05d" % number * 1000 for number in range(200))

    def test_a_slow_reader_gets_everything_and_holds_up_nobody(self, secure, client_of):
        site = secure(big, size=1)
        slow, other = client_of(site, receive_buffer=4096), client_of(site)
        slow.request("GET", "/")
        until(lambda: site.server.requests == 1 and not site.pool.busy)
        other.request("GET", "/")
        assert len(other.read().body) == BIG
        assert slow.read().body == b"x" * BIG

    def test_one_who_reads_nothing_is_cut_off(self, secure, client_of):
        site = secure(big, limits=Limits(write_stall=0.2))
        client = client_of(site, receive_buffer=4096)
        client.request("GET", "/")
        until(site.is_quiet)

    def test_many_at_once(self, secure, client_of):
        site = secure(text, size=4)

        def visit(number):
            client = client_of(site)
            for turn in range(10):
                client.request("POST", f"/{number}/{turn}", b"z" * 10_000)
                body = f"POST /{number}/{turn} ".encode() + b"z" * 10_000
                assert client.read().body == body
            client.close()

        gevent.joinall([gevent.spawn(visit, number) for number in range(20)], raise_error=True)
        assert site.server.requests == 200

    def test_an_upload_that_is_refused_sees_why(self, secure, client_of):
        client = client_of(secure(echo, limits=Limits(body=1000)))

        def send():
            with contextlib.suppress(OSError):
                client.request("POST", "/", b"x" * 50_000)

        sender = gevent.spawn(send)
        assert client.read().status == 413
        sender.join(timeout=5)

    def test_a_body_that_is_cut_off_never_reaches_the_application(self, secure, client_of):
        seen = []

        def application(environ, start_response):
            seen.append(environ["wsgi.input"].read())
            return text(environ, start_response)

        site = secure(application)
        client = client_of(site)
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 500)
        client.sock.close()  # gevent sends no close_notify: the end of the data is anybody's word
        until(site.is_quiet)
        assert seen == []

    def test_an_idle_connection_ends_with_a_word(self, secure, client_of):
        client = client_of(secure(text, keep_alive=0.1))
        client.request("GET", "/")
        client.read()
        assert client.is_ended()


FILE_SIZE = 40 * MIB + 7


@pytest.fixture(scope="module")
def large_file(tmp_path_factory):
    """A file's path and the SHA-256 of its content."""
    path = tmp_path_factory.mktemp("large") / "file"
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(0, FILE_SIZE, MIB):
            block = number.to_bytes(4) * (MIB // 4)
            block = block[: FILE_SIZE - number]
            file.write(block)
            digest.update(block)
    return path, digest.digest()


@pytest.fixture
def download(secure, large_file):
    """A site of one pool member that sends the file, or with ``/page`` a page."""

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/page":
            return text(environ, start_response)
        start_response("200 OK", [("Content-Length", str(FILE_SIZE))])
        return environ["wsgi.file_wrapper"](large_file[0].open("rb"))

    return lambda **options: secure(application, size=1, **options)


def in_memory(site):
    """Bytes that wait for readers, without those that are still in a file."""
    size = 0
    for connection in site.server.connections:
        size += connection.buffered
        size -= sum(piece.left for piece in connection._out or () if hasattr(piece, "left"))
    return size


class TestFiles:
    def test_one_of_some_blocks(self, secure, client_of):
        content = bytes(range(256)) * 8192

        def application(environ, start_response):
            file = tempfile.TemporaryFile()  # noqa: SIM115 - the wrapper closes it
            file.write(content)
            file.seek(100)
            start_response("200 OK", [("Content-Length", str(len(content) - 100))])
            return environ["wsgi.file_wrapper"](file)

        client = client_of(secure(application))
        for _ in range(2):
            client.request("GET", "/")
            assert client.read().body == content[100:]

    def test_a_slow_reader_holds_no_member_and_little_memory(self, download, client_of, large_file):
        site = download()
        slow, other = client_of(site, receive_buffer=4096), client_of(site)
        slow.request("GET", "/")
        until(lambda: site.server.requests == 1 and not site.pool.busy)
        digest, received, pages, most = hashlib.sha256(), 0, 0, 0
        slow.read_to(b"\r\n\r\n")
        while received < FILE_SIZE:
            block = slow.read_exactly(min(MIB, FILE_SIZE - received))
            assert block, "it ended early"
            digest.update(block)
            received += len(block)
            if received % (4 * MIB) == 0:
                other.request("GET", "/page")
                assert other.read().body == b"GET /page "
                pages += 1
                until(lambda: not site.pool.busy)
                if FILE_SIZE - received > 12 * MIB:
                    until(lambda: in_memory(site))  # the kernel has taken what it takes
                most = max(most, in_memory(site))
        assert digest.digest() == large_file[1]
        assert pages == 10
        assert most < FILE_BLOCK * 1.1
        slow.request("GET", "/page")
        assert slow.read().body == b"GET /page "

    def test_what_is_pipelined_behind_it_is_answered_behind_it(
        self, download, client_of, large_file
    ):
        client = client_of(download())
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /page HTTP/1.1\r\nHost: x\r\n\r\n")
        assert hashlib.sha256(client.read().body).digest() == large_file[1]
        assert client.read().body == b"GET /page "

    def test_the_last_response_of_a_connection(self, download, client_of, large_file):
        client = client_of(download())
        client.request("GET", "/", Connection="close")
        assert hashlib.sha256(client.read().body).digest() == large_file[1]
        assert client.is_ended()

    @pytest.mark.parametrize("end", ["close", "reset"])
    def test_a_client_that_leaves_in_the_middle(self, download, client_of, end):
        site = download()
        client = client_of(site, receive_buffer=4096)
        client.request("GET", "/")
        client.read_exactly(3 * MIB)
        getattr(client, end)()
        until(site.is_quiet)
        other = client_of(site)
        other.request("GET", "/page")
        assert other.read().status == 200
        # That the file is closed is for the fixture to see.

    def test_one_who_stops_reading_is_cut_off(self, download, client_of):
        site = download(limits=Limits(write_stall=0.2))
        client = client_of(site, receive_buffer=4096)
        client.request("GET", "/")
        client.read_exactly(MIB)
        until(site.is_quiet)

    def test_one_that_shrinks_meanwhile_cuts_the_connection(self, secure, client_of, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"x" * FILE_SIZE)

        def application(environ, start_response):
            start_response("200 OK", [("Content-Length", str(FILE_SIZE))])
            return environ["wsgi.file_wrapper"](path.open("rb"))

        client = client_of(secure(application), receive_buffer=4096)
        client.request("GET", "/")
        client.read_exactly(MIB)
        os.truncate(path, 2 * MIB)
        with pytest.raises(ssl.SSLEOFError):
            client.read_exactly(FILE_SIZE)


class TestWebSockets:
    @pytest.mark.parametrize("application", [parked(), loop], ids=["parked", "loop"])
    def test_an_echo(self, secure, client_of, application):
        client = client_of(secure(application))
        assert client.upgrade().status == 101
        for size in (1, 100, 100_000):
            client.say("text", b"m" * size)
            assert client.hear() == "echo " + "m" * size
        client.say("close", 1000)
        assert client.hear() == 1000

    def test_frames_may_follow_the_handshake_at_once(self, secure, client_of):
        client = client_of(secure(parked()))
        client.wire.send_text(b"early")
        client.send(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            + b"".join(client.wire.data_to_send())
        )
        assert client.read().status == 101
        assert client.hear() == "echo early"


class TestHandshakes:
    def test_client_certificates(self, secure, client_of, certificates):
        site = secure(keys, tls_client_ca=certificates.ca, tls_client_certificates="required")
        client = client_of(site, certificates.issue("someone.test", common_name="Someone"))
        client.request("GET", "/")
        verify, name = client.read().body.split(b" ", 2)[2].split(b" ", 1)
        assert verify == b"SUCCESS"
        assert name.startswith(b"CN=Someone,")

    def test_a_client_without_the_certificate_that_is_required(
        self, secure, client_of, certificates, reasons
    ):
        site = secure(keys, tls_client_ca=certificates.ca, tls_client_certificates="required")
        client = client_of(site)  # in TLS 1.3 the client's side is done before the server looks
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            client.more()
        client.close()
        until(site.is_quiet)
        assert reasons() == ["peer did not return a certificate"]

    def test_each_server_name_has_its_certificate(self, secure, client_of, certificates):
        certificate, key = certificates.pair("*.shop.test")
        site = secure(text, tls_sni=[f"*.shop.test={certificate}:{key}"])
        for name, given in (("a.shop.test", "*.shop.test"), ("site.test", "site.test")):
            client = client_of(site, name=name)
            assert client.sock.getpeercert()["subjectAltName"] == (("DNS", given),)
            client.request("GET", "/")
            assert client.read().status == 200

    def test_plain_http_is_told_so(self, secure, reasons):
        site = secure(text)
        client = site.connect()
        client.request("GET", "/")
        answer = client.read()
        assert answer.status == 400
        assert answer.closes
        assert b"TLS" in answer.body
        assert client.is_ended()
        client.close()
        until(site.is_quiet)
        assert (reasons(), site.server.refusals, site.lines) == ([PLAIN_HTTP], 1, [])

    def test_plain_http_that_goes_on_sending_sees_the_answer(self, secure):
        client = secure(text).connect()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n")
        gevent.sleep(0.02)
        client.send(b"x" * 30_000)
        assert client.read().status == 400

    def test_one_that_stalls_is_ended(self, secure, reasons):
        site = secure(text, tls_handshake_timeout=0.1)
        begun = time.monotonic()
        client = site.connect()
        client.send(hello()[:50])
        assert client.is_ended()
        assert 0.1 <= time.monotonic() - begun < 5
        assert reasons() == ["the handshake took longer than 0.1 s"]

    def test_two_hundred_that_are_cut_in_half_leave_nothing(self, secure, reasons):
        site = secure(text)
        data = hello()
        for number in range(200):
            client = Client(site.address)
            client.send(data[: 1 + number * len(data) // 200])
            if number % 2:
                client.reset()
            else:
                client.close()
        until(lambda: site.server.refusals == 200)
        until(site.is_quiet)
        assert set(reasons()) == {"the client left before its end"}
        # That no descriptor is left is for the fixture to see.

    def test_a_proxy_may_say_in_front_of_it_whom_it_relays(self, secure, certificates):
        def application(environ, start_response):
            start_response("200 OK", [])
            return [f"{environ['REMOTE_ADDR']} {environ['wsgi.url_scheme']}".encode()]

        site = secure(application, proxy_protocol=True, trusted_proxies="127.0.0.1")
        client = site.connect()
        client.send(b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 443\r\n")
        context = certificates.client(context_class=gevent.ssl.SSLContext)
        client.sock = context.wrap_socket(client.sock, server_hostname="site.test")
        client.request("GET", "/")
        assert client.read().body == b"192.0.2.7 https"

    def test_a_unix_socket_stays_plain(self, secure, tmp_path):
        answer = secure(keys, path=tmp_path / "socket").get()
        assert (answer.status, answer.body) == (200, b"- - - -")

    def test_a_handshake_holds_no_pool_member(self, secure, client_of):
        site = secure(text, size=1)
        for _ in range(20):
            client = site.connect()
            client.send(hello()[:100])
        client = client_of(site)
        client.request("GET", "/")
        assert client.read().status == 200
        assert len(site.server.connections) == 21


def hello():
    """The first flight of a client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="site.test")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


PATCHED = """
from gevent import monkey
monkey.patch_all()
import ssl, sys
from gpulse import tlsfiles
from gpulse.config import Config
from gpulse.connection.tlscontext import build_context
certificate, key, other, other_key, ca = sys.argv[1:]
context = build_context(tlsfiles.read_files(Config.defaults(
    tls_certificate=certificate, tls_key=key, tls_minimum_version="1.3",
    tls_sni=[f"other.test={other}:{other_key}"],
    tls_client_ca=ca, tls_client_certificates="optional", tls_ciphers="ECDHE+AESGCM",
)))
assert type(context).__module__ == "gevent.ssl", type(context)
trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
trust.load_verify_locations(ca)
for name in ("site.test", "other.test"):
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(down, up, server_hostname=name)
    server = context.wrap_bio(up, down, server_side=True)
    for end in (client, server) * 2:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass
    print(client.version(), client.getpeercert()["subjectAltName"][0][1])
"""


def test_the_context_in_a_worker_that_gevent_has_patched(certificates):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PATCHED,
            *certificates.pair("site.test"),
            *certificates.pair("other.test"),
            certificates.ca,
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout == "TLSv1.3 site.test\nTLSv1.3 other.test\n"


def test_reading_files_imports_neither_ssl_nor_gevent():
    script = (
        "import sys, gpulse.tlsfiles\n"
        "print([name for name in ('ssl', '_ssl', 'gevent', 'socket') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n"
