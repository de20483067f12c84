"""One line per request, whatever the client sends, and few for a flood of refusals."""

import json
import re
import time

import pytest
from unit.fake_record import CLOCK, HOSTILE, FakeRecord, monotonic

from gpulse.http.accesslog import MAX_REFUSALS, AccessLog
from gpulse.http.limits import Limits
from gpulse.http.parser import RequestParser


class FakeClock:
    """Seconds since the epoch."""

    def __init__(self):
        self.now = CLOCK

    def __call__(self):
        return self.now


@pytest.fixture
def lines():
    return []


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(lines, clock):
    """``make(text)`` gives a log of that format whose lines go to ``lines``."""

    def make(text="combined", **kwargs):
        return AccessLog(lines.append, text, clock=clock, monotonic=monotonic, **kwargs)

    return make


@pytest.fixture
def log(make):
    return make()


COMBINED = re.compile(
    r"(\S+) - - \[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "
    r'"((?:[^"\\]|\\.)*)" (\S+) (\d+) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)" (\d+)'
)


def test_a_line_is_apaches_combined_format_and_the_microseconds(log, lines):
    log.write_exchange(FakeRecord(HTTP_REFERER="http://x/", HTTP_USER_AGENT="curl/8"))
    found = COMBINED.fullmatch(lines[0])
    assert found is not None
    address, stamp, request, status, size, referer, agent, taken = found.groups()
    expected = time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(1_700_000_000))
    assert (address, stamp) == ("192.0.2.7", expected)
    assert (request, status, size) == ("GET /a?b=c HTTP/1.1", "200", "5")
    assert (referer, agent) == ("http://x/", "curl/8")
    assert taken == "1500000"


@pytest.mark.parametrize("key", ["HTTP_REFERER", "HTTP_USER_AGENT", "REMOTE_ADDR"])
def test_no_field_of_the_client_ends_a_field_or_a_line(log, lines, key):
    log.write_exchange(FakeRecord(target=HOSTILE.encode(), **{key: HOSTILE}))
    assert "\n" not in lines[0]
    if key != "REMOTE_ADDR":  # which has spaces here and stands between no quotes
        assert COMBINED.fullmatch(lines[0])


def test_the_line_of_a_parsed_request(log, lines):
    record = FakeRecord()
    record.request = RequestParser(Limits()).feed(b"HEAD /%22 HTTP/1.1\r\nHost: x\r\n\r\n")
    log.write_exchange(record)
    assert '"HEAD /%22 HTTP/1.1"' in lines[0]


def test_the_format_and_the_slot_are_given(make, lines):
    log = make("%m from %{worker}g", worker=7)
    log.write_exchange(FakeRecord())
    log.write_refusal(400, "peer", "bad")
    assert lines == ["GET from 7", "- from 7 bad"]


def test_a_text_that_is_no_format_is_refused(make):
    with pytest.raises(ValueError, match="not known here"):
        make("%z")


def test_json_is_a_format(make, lines):
    log = make("json", worker=7)
    log.write_exchange(FakeRecord())
    log.write_refusal(400, "192.0.2.7:5", "bad")
    first, second = [json.loads(line) for line in lines]
    assert (first["status"], first["worker"], first["refused"]) == (200, 7, None)
    assert (second["status"], second["worker"], second["refused"]) == (400, 7, "bad")


def test_a_record_without_a_line_is_no_matter_for_the_request(log, lines, caplog):
    class Rude:
        def __str__(self):
            raise RuntimeError("no text")

    log.write_exchange(FakeRecord(HTTP_REFERER=Rude()))
    log.write_exchange(FakeRecord(HTTP_REFERER=Rude()))
    assert log.failed == 2
    assert lines == []
    assert [one.message for one in caplog.records] == [
        "a line of the access log cannot be made; others are only counted"
    ]
    log.write_exchange(FakeRecord())
    assert len(lines) == 1


# -- refusals


def test_a_refusal_names_its_reason(log, lines):
    log.write_refusal(400, "192.0.2.7:5", 'two "Host" fields\n')
    assert lines == [lines[0]]
    assert lines[0].startswith("192.0.2.7:5 - - [")
    assert lines[0].endswith('] "-" 400 0 "-" "-" 0 two \\"Host\\" fields\\x0a')


def test_a_flood_of_refusals_is_cut_off_and_told_in_one_line(make, lines, clock):
    log = make("%s", refusals=3)
    for number in range(10):
        log.write_refusal(400, "peer", str(number))
    assert lines == ["400 0", "400 1", "400 2"]
    assert log.left_out == 7
    clock.now += 1
    log.write_refusal(431, "peer", "next")
    assert lines[3:] == ["- refusals left out in one second: 7", "431 next"]
    for number in range(5):
        log.write_refusal(400, "peer", str(number))
    assert lines[5:] == ["400 0", "400 1"]
    assert log.left_out == 10


def test_what_was_left_out_is_told_without_another_refusal(make, lines, clock):
    log = make("%s", refusals=0)
    log.write_refusal(400, "peer", "x")
    log.tell_left_out()
    assert lines == []  # its second may bring more
    clock.now += 1
    log.tell_left_out()
    log.tell_left_out()
    assert lines == ["- refusals left out in one second: 1"]


def test_what_was_left_out_is_told_at_the_end(make, lines):
    log = make("json", refusals=1)
    log.write_refusal(400, "peer", "x")
    log.write_refusal(400, "peer", "x")
    log.close()
    log.close()
    assert len(lines) == 2
    found = json.loads(lines[1])
    assert (found["status"], found["refused"]) == (None, "refusals left out in one second: 1")


def test_without_a_flood_nothing_is_left_out(log, lines, clock):
    for _ in range(5):
        for _ in range(MAX_REFUSALS):
            log.write_refusal(400, "peer", "x")
        clock.now += 1
    log.tell_left_out()
    log.close()
    assert len(lines) == 5 * MAX_REFUSALS
    assert log.left_out == 0


def test_a_clock_that_is_set_back_does_not_silence_the_log(make, lines, clock):
    log = make("%s", refusals=1)
    log.write_refusal(400, "peer", "one")
    clock.now -= 3600
    log.write_refusal(400, "peer", "two")
    assert lines == ["400 one", "400 two"]


def test_requests_that_are_answered_are_never_left_out(make, lines):
    log = make("%s", refusals=0)
    log.write_refusal(400, "peer", "x")
    for _ in range(500):
        log.write_exchange(FakeRecord())
    assert lines == ["200"] * 500
