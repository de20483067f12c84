"""Which targets of the access log are taken, and what a datagram to a daemon looks like."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpulse.syslog import (
    DEV_LOG,
    FACILITIES,
    JOURNAL,
    Target,
    is_file,
    journal_frame,
    parse,
    parse_target,
    syslog_frame,
)

LONGEST = "/" + "a" * 106


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("syslog:", Target("syslog", DEV_LOG)),
        ("SYSLOG:", Target("syslog", DEV_LOG)),
        ("syslog:unix:/run/x.sock", Target("syslog", "/run/x.sock")),
        (f"syslog:unix:{LONGEST}", Target("syslog", LONGEST)),
        ("syslog:udp://logs", Target("syslog", "", "logs", 514)),
        ("syslog:udp://logs/", Target("syslog", "", "logs", 514)),
        ("syslog:udp://logs.example.org:1514", Target("syslog", "", "logs.example.org", 1514)),
        ("syslog:udp://192.0.2.7:65535", Target("syslog", "", "192.0.2.7", 65535)),
        ("syslog:udp://[::1]:1", Target("syslog", "", "::1", 1)),
        ("syslog:udp://[::1]", Target("syslog", "", "::1", 514)),
        ("syslog:?facility=local3", Target("syslog", DEV_LOG, facility="local3")),
        (
            "syslog:udp://logs?tag=my-site&facility=user",
            Target("syslog", "", "logs", 514, "user", "my-site"),
        ),
        ("journal:", Target("journal", JOURNAL)),
        ("journal:?tag=mysite", Target("journal", JOURNAL, tag="mysite")),
        ("journal:unix:/run/j", Target("journal", "/run/j")),
    ],
)
def test_a_daemon_is_read(text, expected):
    assert parse(text) == expected
    assert parse_target(text) == text
    assert not is_file(text)


def test_the_tag_of_the_site_holds_unless_the_target_has_one():
    assert parse("syslog:", "mysite").tag == "mysite"
    assert parse("syslog:?tag=other", "mysite").tag == "other"
    assert parse("journal:", "mysite").tag == "mysite"


@pytest.mark.parametrize(
    "path", ["/var/log/access.log", "access.log", "./syslog", "log:1", "sys/log:", "a b", "udp"]
)
def test_a_path_is_a_file(path):
    assert parse_target(path) == path
    assert is_file(path)


def test_standard_output_is_no_file_and_nothing_is_none():
    assert parse_target("-") == "-"
    assert not is_file("-")
    assert parse_target("") is None
    assert parse_target("  ") is None
    assert parse_target(" /x ") == "/x"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "one line"),
        (7, "one line"),
        ("a\nb", "one line"),
        ("udp://logs:514", "must be a path"),
        ("file:///var/log/x", "must be a path"),
        ("syslog", "syslog: for the daemon and ./syslog for a file"),
        ("journal", "./journal for a file"),
        ("syslog:/dev/log", "must be a path"),
        ("syslog:tcp://logs", "must be a path"),
        ("syslog:unix:", "path from the root"),
        ("syslog:unix:run/x", "path from the root"),
        (f"syslog:unix:{LONGEST}a", "107 bytes"),
        (f"syslog:unix:/{'é' * 54}", "107 bytes"),
        ("syslog:udp://", "HOST:PORT"),
        ("syslog:udp://:514", "HOST:PORT"),
        ("syslog:udp://::1:514", "[::1]"),
        ("syslog:udp://logs:", "HOST:PORT"),
        ("syslog:udp://logs:x", "HOST:PORT"),
        ("syslog:udp://logs:0", "1..65535"),
        ("syslog:udp://logs:65536", "1..65535"),
        ("syslog:udp://-logs", "host name"),
        ("syslog:udp://lögs", "host name"),
        ("syslog:udp://user@logs", "host name"),
        ("syslog:udp://logs/path", "host name"),
        ("syslog:udp://" + "a" * 300, "host name"),
        ("syslog:?facility=mail2", "none of user, daemon, local0"),
        ("syslog:?facility=", "none of user"),
        ("syslog:?tag=", "a tag"),
        ("syslog:?tag=a%20b", "a tag"),
        ("syslog:?tag=" + "a" * 33, "a tag"),
        ("syslog:?level=info", "?facility=...&tag=..."),
        ("syslog:?tag=a&tag=b", "each once"),
        ("journal:?facility=user", "?tag=..."),
        ("journal:udp://logs", "must be a path"),
        ("journal:unix:x", "path from the root"),
    ],
)
def test_anything_else_is_refused_with_its_reason(text, reason):
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        parse_target(text)
    assert "\n" not in str(caught.value)


@given(st.text(st.sampled_from("sylogjurna:unix/dp?&=[].-1é %") | st.characters(), max_size=40))
def test_any_text_is_a_target_or_a_reason(text):
    for raw in (text, f"syslog:{text}", f"syslog:udp://{text}", f"journal:?{text}"):
        try:
            found = parse_target(raw)
        except ValueError:
            continue
        if found and found != "-" and not is_file(found):
            parse(found)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("syslog:", f"syslog at {DEV_LOG}"),
        ("syslog:udp://logs", "syslog at logs:514"),
        ("syslog:udp://[::1]", "syslog at [::1]:514"),
        ("journal:", f"the journal at {JOURNAL}"),
    ],
)
def test_people_are_told_which_daemon(text, shown):
    assert parse(text).display == shown


# -- datagrams

STAMP = rb"([A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d)"
OCTOBER_3 = 1_696_334_706.9
"""Noon in UTC, so that it is the third of October everywhere but on a few islands."""


def frame(text, **kwargs):
    return syslog_frame(
        parse(text), host="web1.example.org", pid=77, clock=lambda: OCTOBER_3, **kwargs
    )


def test_a_message_to_a_unix_socket_is_as_syslog_3_writes_it():
    found = re.fullmatch(
        rb"<30>" + STAMP + rb" gpulse\[77\]: a line", frame("syslog:")(b"a line\n")
    )
    assert found is not None
    assert found[1].startswith(b"Oct  3 ")


def test_a_message_to_another_machine_has_the_name_of_this_one():
    made = frame("syslog:udp://logs?facility=local7&tag=mysite")(b"a line\n")
    assert re.fullmatch(rb"<190>" + STAMP + rb" web1 mysite\[77\]: a line", made)


def test_a_machine_without_a_name_is_localhost():
    make = syslog_frame(parse("syslog:udp://logs"), host="", pid=1, clock=lambda: OCTOBER_3)
    assert b" localhost gpulse[1]: " in make(b"x\n")


def test_every_facility_has_its_number():
    assert {name: frame(f"syslog:?facility={name}")(b"x")[:5] for name in FACILITIES} == {
        "user": b"<14>O",
        "daemon": b"<30>O",
    } | {f"local{number}": f"<{134 + 8 * number}>".encode() for number in range(8)}


def test_the_time_of_a_message_is_made_anew_every_second():
    now = [OCTOBER_3]
    make = syslog_frame(parse("syslog:"), host="", pid=1, clock=lambda: now[0])
    first = make(b"x\n")
    now[0] += 0.05
    assert make(b"x\n") == first
    now[0] += 0.1
    assert make(b"x\n") != first


def test_only_the_last_newline_is_taken_away():
    assert frame("syslog:")(b"a\nb\n").endswith(b": a\nb")


def test_an_entry_of_the_journal():
    assert journal_frame(parse("journal:?tag=mysite"))(b"a=b\n") == (
        b"PRIORITY=6\nSYSLOG_IDENTIFIER=mysite\nMESSAGE=a=b\n"
    )


def test_a_newline_within_an_entry_cannot_make_another_field():
    assert journal_frame(parse("journal:"))(b"a\nPRIORITY=0\n") == (
        b"PRIORITY=6\nSYSLOG_IDENTIFIER=gpulse\n"
        b"MESSAGE\n\x0c\x00\x00\x00\x00\x00\x00\x00a\nPRIORITY=0\n"
    )
