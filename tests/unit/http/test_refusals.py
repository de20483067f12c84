"""The server's own answers."""

import pytest

from gpulse.http.refusals import REASONS, peer_text, plain_response, refusal

COMMON = "Server: gpulse\r\nDate: now\r\n"
CLOSE = "Connection: close"


@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_response_of_the_servers_own(keep_alive):
    sent = plain_response("503 Service Unavailable", keep_alive, COMMON, "Retry-After: 1\r\n")
    head, _, body = sent.decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    assert lines[0] == "HTTP/1.1 503 Service Unavailable"
    assert f"Content-Length: {len(body)}" in lines
    assert "Retry-After: 1" in lines
    assert (CLOSE in lines) is not keep_alive


@pytest.mark.parametrize("status", REASONS)
@pytest.mark.parametrize("is_head", [False, True])
def test_a_refusal_says_its_reason_and_ends_the_connection(status, is_head):
    head, _, body = refusal(status, COMMON, is_head=is_head).decode().partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {REASONS[status]}\r\n")
    assert CLOSE in head.split("\r\n")
    assert body == ("" if is_head else f"{REASONS[status]}\n")
    assert f"Content-Length: {len(REASONS[status]) + 1}" in head


def test_what_a_client_should_do_next_is_said():
    assert b"\r\nRetry-After: 1\r\n" in refusal(503, COMMON)
    assert b"\r\nAllow: " in refusal(405, COMMON)


@pytest.mark.parametrize(
    ("peer", "text"),
    [(("192.0.2.7", 5), "192.0.2.7:5"), (("::1", 5, 0, 0), "[::1]:5"), ("", "unix"), (b"", "unix")],
)
def test_a_peer_in_a_log_line(peer, text):
    assert peer_text(peer) == text
