"""gpulse/store/commands.py: what is sent for a command, and which replies are its own."""

import hiredis
import pytest

from gpulse.store.commands import Command, Script, call, tail_of
from gpulse.storeurl import parse

SCRIPT = Script("return 1")
ERROR = hiredis.ReplyError("ERR of the test")


def test_a_script_goes_by_its_digest_or_in_full() -> None:
    command = call(SCRIPT, [b"k"], [1])
    assert command.pack() == (
        b"*5\r\n$7\r\nEVALSHA\r\n$40\r\n" + SCRIPT.digest + b"\r\n$1\r\n1\r\n$1\r\nk\r\n$1\r\n1\r\n"
    )
    assert b"$4\r\nEVAL\r\n$8\r\nreturn 1\r\n" in command.pack(in_full=True)


def test_replicas_are_waited_for_once_for_all_publishes_of_a_batch() -> None:
    url = parse("redis://127.0.0.1/0?replicas=2")
    assert tail_of("confirmed", url) == b"*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$3\r\n100\r\n"
    assert tail_of("short", url) == tail_of("bulk", url) == b""


@pytest.mark.parametrize(
    ("replicas", "replies", "reply"),
    [
        (0, [b"OK"], b"OK"),
        (1, [b"OK", 1], b"OK"),
        (1, [b"OK", 3], b"OK"),
        (1, [ERROR, 1], ERROR),
        (1, [b"OK", ERROR], ERROR),
        (2, [b"OK", 1], "NOREPLICAS 1 of 2 replicas confirmed it"),
    ],
)
def test_each_command_takes_its_replies(
    replicas: int, replies: list[object], reply: object
) -> None:
    command = Command(b"k", (b"GET", b"k"), replicas=replicas)
    left = iter([*replies, "the next one's"])
    found = command.reply(left)
    if isinstance(reply, str):
        assert isinstance(found, hiredis.ReplyError)
        assert str(found) == reply
    else:
        assert found is reply
    assert list(left) == ["the next one's"]
