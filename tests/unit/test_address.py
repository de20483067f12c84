"""Bind addresses: every form, every refusal."""

import pytest

from gpulse.address import UNIX_PATH_BYTES, Address, parse
from gpulse.errors import UsageError


@pytest.mark.parametrize(
    ("text", "address", "url"),
    [
        ("127.0.0.1:8060", Address("tcp", "127.0.0.1", 8060), "http://127.0.0.1:8060"),
        (" 127.0.0.1:8060 ", Address("tcp", "127.0.0.1", 8060), "http://127.0.0.1:8060"),
        ("my_host.example:80", Address("tcp", "my_host.example", 80), "http://my_host.example:80"),
        (":8060", Address("tcp", "0.0.0.0", 8060), "http://127.0.0.1:8060"),
        ("8060", Address("tcp", "127.0.0.1", 8060), "http://127.0.0.1:8060"),
        ("[::1]:8060", Address("tcp", "::1", 8060), "http://[::1]:8060"),
        ("[0:0::0]:0", Address("tcp", "::", 0), "http://[::1]:0"),
        ("unix:/run/site.sock", Address("unix", path="/run/site.sock"), "unix:/run/site.sock"),
        ("unix:site.sock", Address("unix", path="site.sock"), "unix:site.sock"),
        ("fd:3", Address("fd", fd=3), "fd:3"),
    ],
)
def test_every_form_is_read(text, address, url):
    assert parse(text) == address
    assert address.url == url


@pytest.mark.parametrize("text", ["127.0.0.1:8060", "[::1]:80", "unix:/run/a", "fd:9", "host:0"])
def test_what_is_displayed_reads_back(text):
    assert parse(text).display == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no port"),
        ("localhost", "has no port"),
        ("localhost:", "port from 0 to 65535"),
        ("localhost:http", "port from 0 to 65535"),
        ("localhost:65536", "port from 0 to 65535"),
        ("localhost:-1", "port from 0 to 65535"),
        ("localhost:８０", "port from 0 to 65535"),  # noqa: RUF001 - digits that int() takes
        ("::1:8060", "put an IPv6 address in brackets"),
        ("[::g]:8060", "no IPv6 address in its brackets"),
        ("[127.0.0.1]:80", "no IPv6 address in its brackets"),
        ("300.0.0.1:80", "no IPv4 address"),
        ("*:80", "leave the host out"),
        ("-a:80", "no host name"),
        ("a b:80", "no host name"),
        ("http://localhost:80", "looks like a path or a URL"),
        ("/run/site.sock", "looks like a path or a URL"),
        ("unix:", "names no socket file"),
        ("unix:/run/", "names no socket file"),
        ("unix:/" + "x" * UNIX_PATH_BYTES, "choose a shorter path"),
        ("fd:0", "3 or more"),
        ("fd:x", "3 or more"),
    ],
)
def test_every_refusal_is_one_line_with_the_text(text, words):
    with pytest.raises(UsageError) as caught:
        parse(text)
    line = str(caught.value)
    assert words in line
    assert repr(text) in line
    assert "\n" not in line
