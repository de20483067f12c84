"""What a slow reader lost, on a model of its connection's buffer."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from gpulse.websocket.losses import DropBacklog, EventFrame


def frame(channel, size=10):
    return EventFrame.of(b"x" * size, channel)


def test_a_frame_of_an_event_is_its_bytes():
    assert EventFrame.of(b"abc", "a") == b"abc"
    assert b"".join([frame("a", 1), b"y"]) == b"xy"


def test_the_channels_of_what_was_dropped_are_told_once():
    backlog = DropBacklog(sent=1000)
    for number, piece in enumerate((frame("a"), frame("b"), b"x" * 10, frame("c"), frame("b"))):
        backlog.holds(1010 + 10 * number, piece, 1000)
    backlog.dropped(sent=1005, count=3, size=30)
    assert backlog.take_lost() == ["b", "c"]
    assert backlog.take_lost() == []
    backlog.holds(1030, frame("d"), 1005)
    backlog.dropped(sent=1010, count=1, size=10)  # a is out, b is the one under way
    assert backlog.take_lost() == ["d"]


@given(
    head=st.integers(0, 30),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.sampled_from(["", "a", "b", "c"]), st.integers(1, 9)),
            st.tuples(st.just("send"), st.just(""), st.integers(1, 30)),
            st.tuples(st.just("drop"), st.just(""), st.integers(1, 30)),
        ),
        max_size=60,
    ),
)
def test_it_keeps_step_with_the_connection(head, steps):
    """The buffer of :class:`gpulse.connection.connection.Connection`: the piece in front is never
    dropped, and positions count what was sent out of the buffer."""
    sent, out, lost, backlog = 500, deque([(head, "")] if head else []), set(), None
    for step, channel, size in steps:
        if step == "write":
            piece = frame(channel, size) if channel else b"x" * size
            out.append((size, channel))
            backlog = backlog or DropBacklog(sent)
            backlog.holds(sent + sum(each for each, _ in out), piece, sent)
        elif step == "send":
            while size and out:
                first, name = out.popleft()
                took = min(size, first)
                sent, size = sent + took, size - took
                if took < first:
                    out.appendleft((first - took, name))
            if not out:
                backlog = None
        elif backlog is not None:
            begun, count, freed = out.popleft(), 0, 0
            while out and freed < size:
                dropped, name = out.popleft()
                count, freed = count + 1, freed + dropped
                lost |= {name} - {""}
            out.appendleft(begun)
            backlog.dropped(sent, count, freed)
            assert set(backlog.take_lost()) == lost
            lost.clear()
