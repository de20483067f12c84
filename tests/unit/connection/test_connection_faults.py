"""A fault of ours in one connection's protocol: that connection ends, the others go on."""

import logging

import pytest
from unit.connection.test_connection import Rig


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, "gpulse")


def fault(*args):
    raise RuntimeError("a fault")


@pytest.mark.parametrize(("method", "data"), [("data_received", b"x"), ("eof_received", b"")])
def test_reading(method, data):
    rig = Rig()
    setattr(rig.protocol, method, fault)
    rig.receive(data)
    assert rig.sock.closed == 1
    assert rig.calls == ["lost"]


def test_writing():
    rig = Rig(room=1)
    rig.connection.write(b"abc")
    rig.connection.when_drained(fault)
    rig.sock.room = 10
    assert rig.loop.writable()
    assert rig.sock.closed == 1


def test_a_deadline_leaves_the_others_theirs():
    first, second = Rig(), Rig()
    first.protocol.deadline_passed = fault
    second.connection.wheel = first.wheel
    first.connection.set_deadline(101.0)
    second.connection.set_deadline(101.0)
    first.wheel.turn(102.0)
    assert first.sock.closed == 1
    assert second.calls == ["deadline"]


def test_a_connection_held_by_a_member_is_closed_when_it_is_released():
    rig = Rig()
    rig.protocol.data_received = fault
    rig.connection.held = True
    rig.receive(b"x")
    assert (rig.connection.lost, rig.sock.closed) == (True, 0)
    rig.connection.release()
    assert rig.sock.closed == 1
