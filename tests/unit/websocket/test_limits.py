"""Bounds of sockets, from options and from consumers."""

import pytest

from gpulse.config import Config
from gpulse.websocket.limits import SocketLimits


def test_the_options_set_them():
    limits = SocketLimits.of(Config.defaults())
    assert limits == SocketLimits()
    assert (limits.message, limits.slow, limits.compress_from) == (1_048_576, "close", 1024)


def test_a_class_may_change_some():
    limits = SocketLimits().changed({"message": "4k", "rate": 2, "slow": "drop"}, "Room")
    assert (limits.message, limits.rate, limits.slow) == (4096, 2.0, "drop")
    assert limits.inbox == SocketLimits().inbox


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"mesage": 1}, r"Room\.limits has 'mesage', which is none of message, inbox"),
        ({"message": 0}, r"Room\.limits\['message'\] must be 1"),
        ({"slow": "never"}, r"Room\.limits\['slow'\] must be close or drop"),
        ({"rate": None}, r"Room\.limits\['rate'\] must be a number"),
        ({"write_stall": "x"}, r"Room\.limits\['write_stall'\]"),
    ],
)
def test_what_is_refused_is_named(wanted, words):
    with pytest.raises(ValueError, match=words):
        SocketLimits().changed(wanted, "Room")
