"""Static files over a real master: in development by the worker, in production by WhiteNoise."""

import gzip
import http.client
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from pulse import CHAT, DEADLINE, ROOT, SITE, Pulse, start_chat

STYLE = (SITE / "mysite/static/mysite/style.css").read_text()
SECRET = "a key for tests only, of no use to anybody anywhere"
OUTSIDE = (
    "/static/../chat/settings.py",
    "/static/%2e%2e/%2e%2e/settings.py",
    "/static/..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd",
    "/static//etc/passwd",
    "/static/%00",
    "/static/chat/chat.css%00",
    "/static/%00/../../settings.py",
    "/static/%ff%fe",
)
"""Paths below STATIC_URL that name no file there."""


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("--settings", "mysite.settings"),
        ("--settings", "mysite.settings", "mysite.wsgi:application"),
    ],
    ids=["manage.py", "gpulse", "gpulse with an application"],
)
def test_a_site_in_development_has_its_static_files(start, mode, command):
    program = "gpulse" if command else "manage.py"
    pulse = start(*command, *mode, program=program, environ={"TEST_DEBUG": "on"}).ready()
    assert pulse.text("/static/mysite/style.css") == STYLE
    assert pulse.text("/version") == "one"
    for path in ("/static/mysite/none.css", "/static/mysite", "/static/", *OUTSIDE):
        status, body = pulse.get(path)
        assert (path, status) == (path, 404)
        assert "DEBUG = True" in body, "this is not Django's page for development"
    assert pulse.stop() == 0


def test_a_site_in_production_has_none_by_itself(start, mode):
    pulse = start(*mode, environ={"TEST_DEBUG": "off"}).ready()
    assert pulse.get("/static/mysite/style.css")[0] == 404
    assert pulse.text("/version") == "one"
    assert pulse.stop() == 0


def test_a_websocket_below_static_url_is_an_ordinary_answer(start, mode):
    pulse = start(*mode, environ={"TEST_DEBUG": "on"}).ready()
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    assert pulse.get("/static/mysite/style.css", **handshake) == (200, STYLE)
    assert pulse.get("/static/mysite/none", **handshake)[0] == 404
    with pulse.socket("/echo") as client:
        client.send("still here")
        assert client.recv(timeout=DEADLINE) == "still here"
    assert pulse.stop() == 0


@pytest.fixture(scope="module")
def production(tmp_path_factory) -> dict[str, str]:
    """The environment of the chat with DEBUG off, and its files collected."""
    collected = tmp_path_factory.mktemp("collected")
    environ = {"DEBUG": "off", "SECRET_KEY": SECRET, "STATIC_ROOT": str(collected)}
    subprocess.run(
        [sys.executable, "manage.py", "collectstatic", "--no-input", "-v", "0"],
        cwd=CHAT,
        check=True,
        env={**os.environ, **environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    return environ


@pytest.fixture
def chat(tmp_path, mode, production) -> Iterator[Pulse]:
    """The chat as in production, with no proxy."""
    pulse = start_chat(tmp_path, *mode, **production)
    yield pulse
    pulse.close()


def fetch(
    pulse: Pulse, path: str, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", pulse.port, timeout=DEADLINE)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, headers=names)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def test_the_chat_in_production_serves_hashed_files_without_a_proxy(chat):
    page = chat.text("/")
    found = re.findall(r'"(/static/chat/\w+\.[0-9a-f]{12}\.(?:css|js|svg))"', page)
    assert len(found) == 4, page
    assert re.search(r'"/static/gpulse/gpulse\.[0-9a-f]{12}\.js"', page)
    for path in found:
        source = CHAT / "chat/static" / re.sub(r"^/static/|\.[0-9a-f]{12}", "", path)
        status, headers, body = fetch(chat, path)
        assert (status, body) == (200, source.read_bytes())
        assert headers["Content-Length"] == str(len(body))
        kept = re.search(r"max-age=(\d+).*immutable", headers["Cache-Control"])
        assert kept is not None
        assert int(kept[1]) > 31_000_000, "less than a year"

        status, headers, packed = fetch(chat, path, Accept_Encoding="gzip")
        assert (status, headers["Content-Encoding"]) == (200, "gzip")
        assert headers["Content-Length"] == str(len(packed))
        assert len(packed) < len(body)
        assert gzip.decompress(packed) == body
    assert chat.stop() == 0


def test_what_else_a_browser_asks_of_a_static_file(chat):
    """Whole files go through wsgi.file_wrapper, ranges too; the other answers have no body."""
    path, whole = "/static/chat/chat.js", (CHAT / "chat/static/chat/chat.js").read_bytes()
    status, headers, body = fetch(chat, path)
    assert (status, body) == (200, whole)
    assert "immutable" not in headers["Cache-Control"]

    status, head, body = fetch(chat, path, "HEAD")
    assert (status, body) == (200, b"")
    assert head["Content-Length"] == str(len(whole))

    status, ranged, body = fetch(chat, path, Range="bytes=10-19")
    assert (status, body) == (206, whole[10:20])
    assert ranged["Content-Range"] == f"bytes 10-19/{len(whole)}"

    status, _, body = fetch(chat, path, If_None_Match=headers["ETag"])
    assert (status, body) == (304, b"")
    assert fetch(chat, path, "POST")[0] == 405
    assert chat.stop() == 0


def test_no_path_leads_out_of_the_collected_files(chat):
    for path in ("/static/chat/none.css", "/static/chat", "/static/", *OUTSIDE):
        status, _, body = fetch(chat, path)
        assert (path, status) == (path, 404)
        assert b"SECRET_KEY" not in body
        assert b"root:" not in body
    assert chat.text("/accounts/login/")
    assert chat.stop() == 0
