"""The store behind TLS: rediss:// with a certificate that is checked, for commands and subscriber.

Not every server program can do TLS, so a small front of threads ends it and passes the bytes on, as
stunnel would.  ``tls/`` holds its certificate, which is good for 127.0.0.1 and signed by itself::

    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 \\
        -subj "/CN=gpulse tests" -addext "subjectAltName=IP:127.0.0.1" \\
        -addext "basicConstraints=critical,CA:TRUE" \\
        -addext "keyUsage=critical,digitalSignature,keyCertSign" -keyout key.pem -out cert.pem
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract.store_ground import Ground, eventually
from services import Valkey

from gpulse.errors import PublishError
from gpulse.store import encode

TLS = Path(__file__).parent / "tls"


@pytest.fixture
def tls_port(shared_valkey: Valkey) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    opened: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(target: object, *arguments: object) -> None:
        threads.append(threading.Thread(target=target, args=arguments))  # type: ignore[arg-type]
        threads[-1].start()

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                opened.append(plain)
                start(serve, plain)

    def serve(plain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            outside = context.wrap_socket(plain, server_side=True)
            inside = socket.socket(socket.AF_UNIX)
            inside.connect(str(shared_valkey.directory / "s"))
            opened.extend((outside, inside))
            start(pump, inside, outside)
            pump(outside, inside)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        start(accept, listener)
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        for end in tuple(opened):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in tuple(threads):
            thread.join(5.0)
        for end in opened:
            end.close()


@pytest.mark.parametrize(
    "options", [f"ssl_ca_certs={TLS}/cert.pem", "ssl_cert_reqs=none"], ids=["checked", "not"]
)
def test_messages_travel_through_tls(tls_port: int, options: str) -> None:
    ground = Ground(f"rediss://127.0.0.1:{tls_port}/3?{options}")
    store = ground.open()
    ear = ground.ear(store).listen("a")
    for number in range(200):
        store.publish("a", encode([number, "x" * 5000]))
    assert ear.messages(200) == [[number, "x" * 5000] for number in range(200)]
    assert store.join("k", "ann", "one") == 1
    store.release("one")
    ground.close()


def test_a_certificate_that_nobody_signed_is_refused(
    tls_port: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpulse.store.subscriber.CONFIRM", 0.5)
    ground = Ground(f"rediss://127.0.0.1:{tls_port}/3")
    store = ground.open()
    with pytest.raises(PublishError, match="certificate"):
        store.publish("a", encode(1))
    ear = ground.ear(store)
    ear.subscriber.subscribe("a", ear.answers.append)
    eventually(lambda: ear.answers)
    assert ear.answers != [None]
    assert "certificate" in caplog.text
    ground.close()
