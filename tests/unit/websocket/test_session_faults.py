"""Peers and handlers that a WebSocket session has to survive; on the rig of test_session."""

import tracemalloc

import pytest
from unit.websocket.test_session import LIMITS, Rig
from websockets.frames import Frame, Opcode

from gpulse.errors import SubscribeError
from gpulse.store.message import Event
from gpulse.websocket.rate import CONTROLS, CONTROLS_AT_ONCE


def masked(opcode, data=b"", fin=True):
    return bytes(Frame(opcode, data, fin).serialize(mask=True))


def test_empty_fragments_without_end_take_no_memory():
    rig = Rig()
    rig.raw(masked(Opcode.TEXT, b"a", fin=False))
    fragments = masked(Opcode.CONT, fin=False) * 1000
    rig.raw(fragments)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            rig.raw(fragments)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000
    rig.raw(masked(Opcode.CONT, b"b"))
    rig.pool.run()
    assert rig.consumer.seen == [("on_message", "ab")]


def test_a_client_is_not_cut_while_its_own_messages_wait_for_slow_handlers():
    rig = Rig()
    for number in range(LIMITS.inbox + 1):
        rig.raw(masked(Opcode.TEXT, b"%d" % number))
    assert not rig.connection.reading
    for _ in range(3):
        rig.session.deadline_passed(rig.now)  # its pongs lie unread in the socket
    assert not rig.connection.lost
    rig.pool.run()
    assert rig.connection.reading
    rig.session.deadline_passed(rig.now)  # it is asked only now
    rig.session.deadline_passed(rig.now)
    assert not rig.connection.lost
    rig.session.deadline_passed(rig.now)  # now silence counts
    assert rig.connection.lost


def test_a_client_that_reads_by_drops_does_not_put_off_the_end():
    rig = Rig()
    rig.connection.stuck = True
    rig.session.send(1, b"x" * 100)
    rig.session.close()
    deadline = rig.connection.deadline
    rig.session.write_progressed()
    assert rig.connection.deadline == deadline


def test_pongs_that_nobody_reads_are_bounded():
    rig = Rig()
    rig.connection.stuck = True
    pings = masked(Opcode.PING, b"x" * 100) * 5
    for _ in range(100):
        if not rig.session.is_closing:
            rig.raw(pings)
    assert rig.session.is_closing
    assert rig.sockets.slow_closed == 1
    assert rig.connection.buffered < 2 * LIMITS.outgoing


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
def test_more_pings_or_pongs_than_keep_a_connection_alive_are_a_fault(opcode):
    """Each costs the hub as much as a message, and the rate of messages does not count them."""
    rig = Rig()
    for _ in range(10):
        rig.raw(masked(opcode, b"x") * (CONTROLS_AT_ONCE // 10))
    for _ in range(50):
        rig.now += 1.0
        rig.raw(masked(opcode, b"x") * int(CONTROLS))
    assert not rig.session.is_closing
    answers = len(rig.client.events_received())
    rig.raw(masked(opcode, b"x") * 10_000)
    assert rig.close_code == 1008
    assert len(rig.client.events_received()) <= 1 + CONTROLS_AT_ONCE
    assert answers == (CONTROLS_AT_ONCE + 50 * CONTROLS if opcode is Opcode.PING else 0)
    assert rig.sockets.rate_refused == 1


def test_pongs_that_answer_our_pings_are_not_counted():
    rig = Rig()
    for _ in range(2 * CONTROLS_AT_ONCE):
        rig.session.deadline_passed(rig.now)
        rig.pump()
        rig.session.deadline_passed(rig.now)
    assert not rig.session.is_closing
    assert not rig.connection.lost


def test_one_large_message_under_way_does_not_make_a_pong_too_much():
    rig = Rig()
    rig.connection.stuck = True
    rig.session.send(1, b"x" * LIMITS.outgoing * 2)
    rig.raw(masked(Opcode.PING, b"x"))
    rig.raw(masked(Opcode.TEXT, b"y"))
    assert not rig.session.is_closing


@pytest.mark.parametrize("takes_events", [False, True])
def test_nothing_comes_after_on_close(takes_events):
    rig = Rig(opened=False, takes_events=takes_events)
    rig.session.deliver(Event("channel", "j", b'"x"'))
    rig.connection.lose()
    rig.session.data_received(masked(Opcode.TEXT, b"of the same read"))
    rig.pool.run()
    assert [handler for handler, *_ in rig.consumer.seen] == ["on_open", "on_close"]


def test_a_socket_opened_while_the_worker_drains_is_told():
    rig = Rig()
    rig.sockets.draining = True
    late = Rig()
    late.sockets.draining = True
    late.session.start(b"")
    assert late.client.close_rcvd is None or late.client.close_rcvd.code == 1012
    assert late.session.is_closing


@pytest.mark.parametrize("leaves", [True, False])
def test_a_client_that_leaves_while_its_handler_subscribes_is_no_error(leaves, caplog):
    def subscribe():
        if leaves:
            rig.connection.lose()
        raise SubscribeError("channel 'a' was left before the store confirmed it")

    rig = Rig(opened=False)
    rig.consumer.reactions["on_open"] = subscribe
    rig.pool.run()
    assert ("Traceback" in caplog.text) is not leaves
