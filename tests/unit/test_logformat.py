"""From the text of --access-log-format to lines: every directive, and whatever a client sends."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fake_record import CLOCK, HOSTILE, MONOTONIC, FakeRecord, clock, monotonic

from gpulse.logformat import (
    NAMED,
    apache,
    compile_format,
    compile_refusal,
    escape,
    jsonline,
    parse_format,
)
from gpulse.logs import MAX_LINE


def line(text, record=None, worker=2):
    make = compile_format(text, worker=worker, clock=clock, monotonic=monotonic)
    return make(record or FakeRecord())


def refusal(text, status=400, peer="192.0.2.7:5", reason="no Host"):
    return compile_refusal(text, worker=2, clock=clock)(status, peer, reason)


def local(form):
    return time.strftime(form, time.localtime(int(CLOCK)))


FULL = {
    "HTTP_HOST": "example.org:8060",
    "HTTP_REFERER": "http://x/",
    "HTTP_USER_AGENT": "curl/8",
    "HTTP_COOKIE": "a=1; session=s3; b=2; flag",
    "CONTENT_TYPE": "text/plain",
    "REMOTE_USER": "ann",
    "mysite.key": 7,
}
HEADERS = [("Content-Type", "text/html"), ("X-A", "1"), ("x-a", "2")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%h", "192.0.2.7"),
        ("%a", "192.0.2.7"),
        ("%{c}a", "10.0.0.1"),
        ("%l", "-"),
        ("%u", "ann"),
        ("%{sec}t", "1700000000"),
        ("%{msec}t", "1700000000937"),
        ("%{usec}t", "1700000000937500"),
        ("%{msec_frac}t", "937"),
        ("%{usec_frac}t", "937500"),
        ("%r", "GET /a?b=c HTTP/1.1"),
        ("%s", "200"),
        ("%>s", "200"),
        ("%<s", "200"),
        ("%b", "5"),
        ("%B", "5"),
        ("%D", "1750000"),
        ("%T", "1"),
        ("%{s}T", "1"),
        ("%{ms}T", "1750"),
        ("%{us}T", "1750000"),
        ("%m", "GET"),
        ("%U", "/a"),
        ("%q", "?b=c"),
        ("%H", "HTTP/1.1"),
        ("%p", "8060"),
        ("%{canonical}p", "8060"),
        ("%{local}p", "8060"),
        ("%{remote}p", "5000"),
        ("%v", "127.0.0.1"),
        ("%V", "example.org"),
        ("%P", str(os.getpid())),
        ("%{pid}P", str(os.getpid())),
        ("%{Referer}i", "http://x/"),
        ("%{user-agent}i", "curl/8"),
        ("%{Content-Type}i", "text/plain"),
        ("%{Content-Type}o", "text/html"),
        ("%{X-A}o", "1, 2"),
        ("%{REMOTE_USER}e", "ann"),
        ("%{mysite.key}e", "7"),
        ("%{session}C", "s3"),
        ("%L", "id-1"),
        ("%{id}g", "id-1"),
        ("%{queued}g", "250000"),
        ("%{app}g", "1500000"),
        ("%{worker}g", "2"),
        ("%{connection}g", "3"),
        ("100%% of %m", "100% of GET"),
        ("%%%m%%", "%GET%"),
        (r"\"%m\"\t%s\\x", '"GET"\t200\\x'),
        ("{%m}é%%s", "{GET}é%s"),
    ],
)
def test_a_directive(text, expected):
    record = FakeRecord(headers=HEADERS, **FULL)
    record.peer = ("10.0.0.1", 5000)
    record.request_id = "id-1"
    assert line(text, record) == expected


KNOWN = {f"%{letter}" for letter in apache.PLAIN}
KNOWN |= {f"%{{{word}}}{letter}" for letter, words in apache.ARGUMENTS.items() for word in words}
KNOWN |= {f"%{{{word}}}t" for word in apache.MOMENTS}


def test_every_directive_of_the_tables_is_tested():
    (cases,) = test_a_directive.pytestmark
    assert {text for text, _ in cases.args[1]} >= KNOWN


def test_the_page_names_every_directive_field_and_format():
    page = Path(__file__).parents[2] / "docs" / "topics" / "access-log.rst"
    code = set(re.findall("``(.+?)``", page.read_text()))
    names = {f"%{{{'KEY' if letter == 'e' else 'NAME'}}}{letter}" for letter in apache.NAMES}
    assert KNOWN | names | {"%t", "%>s", "%%"} <= code
    assert {"json", *NAMED, *NAMED.values(), *jsonline.FIELDS} <= code


MAYBE = ["%h", "%{c}a", "%u", "%{remote}p", "%s", "%b", "%p", "%v", "%V", "%L", "%{id}g"]
MAYBE += ["%{Referer}i", "%{X-A}o", "%{NONE}e", "%{session}C"]


@pytest.mark.parametrize("text", MAYBE)
def test_what_is_not_known_is_a_dash(text):
    record = FakeRecord(HTTP_COOKIE="sessions=1; session")
    record.environ = {"HTTP_COOKIE": record.environ["HTTP_COOKIE"], "REMOTE_ADDR": ""}
    record.peer = ""
    record.response = None
    assert line(text, record) == "-"


def test_a_response_that_never_began_has_no_status():
    assert line("%s %b %B", FakeRecord(status="", sent=3)) == "- - 0"


def test_a_websocket_is_a_101():
    record = FakeRecord(status="200 OK")
    record.switched = True
    assert line("%s %b %B", record) == "101 - 0"


def test_a_request_without_a_query_and_of_http_1_0():
    record = FakeRecord(b"*")
    record.request.is_http_1_0 = True
    assert line("%U%q %H", record) == "* HTTP/1.0"


def test_a_query_may_be_empty():
    assert line("%U %q", FakeRecord(b"/?")) == "/ ?"


def test_an_application_that_was_never_called_took_no_time():
    record = FakeRecord()
    record.started = 0.0
    assert line("%{queued}g %{app}g %D", record) == "1750000 0 1750000"
    record.queued_at = 0.0
    assert line("%{queued}g %{app}g %D", record) == "0 0 0"


@pytest.mark.parametrize(
    ("host", "name"), [("h", "h"), ("h:80", "h"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")]
)
def test_the_asked_name_has_no_port(host, name):
    assert line("%V", FakeRecord(HTTP_HOST=host)) == name


def test_the_time_is_local_and_its_month_english():
    assert line("%t") == f"[{local('%d')}/Nov/{local('%Y:%H:%M:%S %z')}]"
    assert line("%{%Y-%m-%d %H:%M}t") == local("%Y-%m-%d %H:%M")
    assert line("%{end:%H}t %t %{sec}t").split(" ")[0] == local("%H")


def test_the_time_is_made_anew_every_second():
    now = [CLOCK]
    make = compile_format("%{%s}t %{msec_frac}t", clock=lambda: now[0], monotonic=monotonic)
    assert make(FakeRecord()) == "1700000000 937"
    now[0] += 0.0625
    assert make(FakeRecord()) == "1700000001 000"
    now[0] -= 1
    assert make(FakeRecord()) == "1700000000 000"


def test_a_time_cannot_make_two_lines():
    assert line("%{a%nb}t") == "a\\x0ab"


# -- the format that was there first


def former_line(record):
    """As the access log wrote it before formats could be chosen."""
    environ, request, response = record.environ, record.request, record.response
    status, size = "-", 0
    if record.switched:
        status = "101"
    elif response is not None and response.status:
        status, size = response.status[:3], response.sent
    return (
        f"{environ.get('REMOTE_ADDR') or '-'} - - [{local('%d/%b/%Y:%H:%M:%S %z')}] "
        f'"{request.method} {escape(request.target.decode("latin-1"))} '
        f'HTTP/1.{0 if request.is_http_1_0 else 1}" {status} {size} '
        f'"{escape(str(environ.get("HTTP_REFERER", "-")))}" '
        f'"{escape(str(environ.get("HTTP_USER_AGENT", "-")))}" '
        f"{int((MONOTONIC - record.started) * 1_000_000)}"
    )


def no_response():
    record = FakeRecord(REMOTE_ADDR="")
    record.response = None
    return record


def switched():
    record = FakeRecord()
    record.switched = True
    return record


def http_1_0():
    record = FakeRecord(b"/%22")
    record.request.is_http_1_0 = True
    record.request.method = "HEAD"
    return record


@pytest.mark.parametrize(
    "record",
    [
        FakeRecord(HTTP_REFERER="http://x/", HTTP_USER_AGENT="curl/8"),
        FakeRecord(HTTP_REFERER="", HTTP_USER_AGENT=""),
        FakeRecord(target=HOSTILE.encode(), HTTP_REFERER=HOSTILE),
        FakeRecord(target=HOSTILE.encode(), HTTP_USER_AGENT=HOSTILE),
        FakeRecord(HTTP_USER_AGENT="plain é"),
        FakeRecord(status="404 Not Found", sent=0),
        no_response(),
        switched(),
        http_1_0(),
    ],
)
def test_combined_is_the_line_that_there_always_was(record):
    assert line("combined", record) == former_line(record)


# NUL to U+00FF: what arrives from a wire, with what must be escaped made likelier.
wire_text = st.text(st.sampled_from('"\\\n\x7f\x85 a\xe9') | st.characters(max_codepoint=255))


@given(target=st.binary(), referer=wire_text, agent=wire_text)
def test_combined_is_the_former_line_whatever_a_client_sends(target, referer, agent):
    record = FakeRecord(target, HTTP_REFERER=referer, HTTP_USER_AGENT=agent)
    assert line("combined", record) == former_line(record)


def test_common_is_apaches():
    expected = f'192.0.2.7 - ann [{local("%d/%b/%Y:%H:%M:%S %z")}] "GET /a?b=c HTTP/1.1" 200 -'
    assert line("common", FakeRecord(sent=0, REMOTE_USER="ann")) == expected


# -- hostile text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain é", "plain é"),
        ('a"b', 'a\\"b'),
        ("a\\b", "a\\\\b"),
        ("a\nb\rc\x00", "a\\x0ab\\x0dc\\x00"),
        ("\x1b[2J\x7f\x9b", "\\x1b[2J\\x7f\\x9b"),
        ("\x85", "\\x85"),
    ],
)
def test_escape(text, escaped):
    assert escape(text) == escaped


FOREIGN = ["%h", "%a", "%{c}a", "%u", "%r", "%m", "%U", "%p", "%v", "%V", "%L", "%{id}g"]
FOREIGN += ["%{Referer}i", "%{X-A}o", "%{KEY}e", "%{session}C"]


def hostile_record(text):
    record = FakeRecord(
        text.encode(),
        headers=[("X-A", text)],
        **dict.fromkeys(("REMOTE_ADDR", "REMOTE_USER", "SERVER_NAME", "SERVER_PORT"), text),
        **dict.fromkeys(("HTTP_HOST", "HTTP_REFERER", "KEY"), text),
        HTTP_COOKIE=f"session={text}",
    )
    record.request.method = text
    record.request_id = text
    record.peer = (text, 1)
    return record


@pytest.mark.parametrize("text", FOREIGN)
@pytest.mark.parametrize("evil", ['"', "\\", "\n", "\r", "\0", "\x1b", "\x7f", "\x85", "\x9b"])
def test_nothing_from_outside_ends_a_field_or_a_line(text, evil):
    made = line(f'"{text}"', hostile_record(f"x{evil}y"))
    assert re.fullmatch(r'"(?:[^"\\\x00-\x1f\x7f-\x9f]|\\.)*"', made)
    assert escape(evil) in made


@given(wire_text, wire_text)
def test_fields_stay_apart_whatever_comes(one, two):
    record = FakeRecord(HTTP_REFERER=one, HTTP_USER_AGENT=two)
    made = line('"%{Referer}i"\\t"%{User-Agent}i"', record)
    assert made == f'"{escape(one)}"\t"{escape(two)}"'


def test_a_quote_of_the_format_does_not_hide_one_of_the_client():
    """Counted for the whole line: a client's quote must not stand in for one of the format."""
    assert line('"%{A}e', FakeRecord(A='"')) == '"\\"'
    assert line('é"%{A}e', FakeRecord(A='"')) == 'é"\\"'
    assert line("%{A}e", FakeRecord(A='é"')) == 'é\\"'


def test_what_an_application_puts_into_the_environ_need_be_no_text():
    record = FakeRecord(A=['"'], B=None, REMOTE_USER=5)
    assert line("%{A}e %{B}e %u", record) == "['\\\"'] None 5"


# -- refused formats


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must be combined, common, json"),
        ("combned", "must be combined, common, json"),
        ("%", "no directive"),
        ("%h %", "no directive"),
        ("%h %é", "no directive"),
        ("%{Referer i", "no directive"),
        ("%z", "has %z, which is not known"),
        ("%X", "not known"),
        ("%k", "not known"),
        ("%{x}h", "not known"),
        ("%i", "not known"),
        ("%{x}%", "not known"),
        ("%>%", "only %s"),
        ("%>b", "only %s"),
        ("%400,501{User-agent}i", "some statuses"),
        ("%!200s", "some statuses"),
        ("%I", "received"),
        ("%O", "%B is the size of the body"),
        ("%S", "received"),
        ("%{x}T", "knows us, ms, s"),
        ("%{hextid}P", "knows pid"),
        ("%{first}g", "knows queued, app, id, connection, worker"),
        ("%g", "not known"),
        ("%{}t", "strftime"),
        ("%{begin:%H}t", "response's end"),
        ("%{a b}i", "no name"),
        ("%{}i", "no name"),
        ("%{a'b\"}o", "no name"),
        ("%{a;b}C", "no name"),
        ("%{X_Forwarded_For}i", "underscore"),
        ("%{}e", "no key"),
        ("%h\n", "control character"),
        (r"%h\n%s", "control character"),
        (r"%h\r", "control character"),
        ("%h\x1b", "control character"),
    ],
)
def test_a_format_that_cannot_be_is_refused_with_its_reason(text, reason):
    for compile_it in (compile_format, compile_refusal):
        with pytest.raises(ValueError, match=re.escape(reason)) as caught:
            compile_it(text)
        assert "\n" not in str(caught.value)


def test_the_option_keeps_the_text():
    assert parse_format(" combined ") == "combined"
    assert parse_format("json") == "json"
    assert parse_format("%h  %s") == "%h  %s"
    for wrong in (None, 5, "", "nginx"):
        with pytest.raises(ValueError, match="must be"):
            parse_format(wrong)


@given(st.text(st.sampled_from("%{}<>!,4hstTiaegCop\\\"'n \té") | st.characters()))
def test_any_text_is_a_format_or_a_reason(text):
    """No format is executed that is not a format: a compiler's error would be another exception."""
    try:
        make = compile_format(text, clock=clock, monotonic=monotonic)
    except ValueError:
        return
    assert "\n" not in make(hostile_record(HOSTILE))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF)))
def test_literal_text_stays_as_it_is(text):
    literal = text.replace("%", "%%").replace("\\", "\\\\")
    if literal.isprintable():
        assert line(f"{literal}%m") == f"{text}GET"


# -- refused requests


def test_a_refusal_has_the_fields_of_the_format_and_the_reason():
    stamp = local("%d/%b/%Y:%H:%M:%S %z")
    assert refusal("combined") == f'192.0.2.7:5 - - [{stamp}] "-" 400 0 "-" "-" 0 no Host'
    assert refusal("common") == f'192.0.2.7:5 - - [{stamp}] "-" 400 - no Host'
    assert refusal("%m%q %{sec}t %{worker}g %% %P") == f"- 1700000000 2 % {os.getpid()} no Host"
    assert refusal("%h %s", 0, "", "5 more") == "- - 5 more"


@pytest.mark.parametrize("text", [*NAMED, "%h"])
def test_a_refusal_is_one_line_whatever_its_reason_and_peer(text):
    made = refusal(text, 400, "x\n", 'two "Host" fields\n')
    assert made.endswith(' two \\"Host\\" fields\\x0a')
    assert made.startswith("x\\x0a")


# -- json


def test_json_has_all_fields_in_their_order():
    record = FakeRecord(HTTP_HOST="example.org", HTTP_REFERER="http://x/", HTTP_USER_AGENT="curl/8")
    record.request_id = "id-1"
    record.peer = ("10.0.0.1", 5000)
    made = line("json", record)
    assert list(json.loads(made).items()) == [
        ("time", "2023-11-14T22:13:20.937Z"),
        ("id", "id-1"),
        ("remote", "192.0.2.7"),
        ("peer", "10.0.0.1"),
        ("method", "GET"),
        ("target", "/a?b=c"),
        ("protocol", "HTTP/1.1"),
        ("host", "example.org"),
        ("status", 200),
        ("bytes", 5),
        ("referer", "http://x/"),
        ("agent", "curl/8"),
        ("queued_us", 250_000),
        ("app_us", 1_500_000),
        ("total_us", 1_750_000),
        ("worker", 2),
        ("refused", None),
    ]
    assert tuple(json.loads(made)) == jsonline.FIELDS


def test_what_json_does_not_know_is_null():
    record = no_response()
    record.peer = ""
    found = json.loads(line("json", record))
    unknown = [name for name, value in found.items() if value is None]
    assert unknown == ["id", "remote", "peer", "host", "status", "referer", "agent", "refused"]


def test_the_peer_is_null_where_it_is_the_client():
    assert json.loads(line("json"))["peer"] is None


def test_json_of_a_websocket():
    found = json.loads(line("json", switched()))
    assert (found["status"], found["bytes"]) == (101, 0)


def test_json_of_a_request_that_did_not_run():
    record = FakeRecord()
    record.started = 0.0
    found = json.loads(line("json", record))
    assert (found["queued_us"], found["app_us"], found["total_us"]) == (1_750_000, 0, 1_750_000)


def test_a_json_time_is_made_anew_every_second():
    now = [CLOCK]
    make = compile_format("json", clock=lambda: now[0], monotonic=monotonic)
    times = []
    for step in (0, 0.0625, -0.5):
        now[0] += step
        times.append(json.loads(make(FakeRecord()))["time"][-7:])
    assert times == ["20.937Z", "21.000Z", "20.500Z"]


@pytest.mark.parametrize(
    ("peer", "remote"),
    [
        ("192.0.2.7:5", "192.0.2.7"),
        ("[::1]:5", "::1"),
        ("::1", "::1"),
        ("unix", "unix"),
        ("", None),
    ],
)
def test_json_of_a_refusal(peer, remote):
    found = json.loads(refusal("json", peer=peer))
    assert tuple(found) == jsonline.FIELDS
    assert (found["remote"], found["status"], found["refused"]) == (remote, 400, "no Host")
    assert (found["time"], found["worker"]) == ("2023-11-14T22:13:20.937Z", 2)
    assert (found["method"], found["bytes"], found["app_us"]) == (None, 0, 0)


def strict(text):
    """What the most pedantic reader makes of a line."""
    assert text.isascii()
    assert "\n" not in text
    assert "\r" not in text

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(text, parse_constant=refuse)
    json.dumps(found, ensure_ascii=False).encode("utf-8")  # no half of a surrogate pair
    return found


@given(target=st.binary(), referer=wire_text, agent=wire_text, host=wire_text, peer=wire_text)
def test_json_gives_back_whatever_a_client_sends(target, referer, agent, host, peer):
    record = FakeRecord(target, HTTP_REFERER=referer, HTTP_USER_AGENT=agent, HTTP_HOST=host)
    record.environ["REMOTE_ADDR"] = peer
    found = strict(line("json", record))
    assert found["target"].encode("latin-1") == target
    assert (found["referer"], found["agent"]) == (referer or None, agent or None)
    assert (found["host"], found["remote"]) == (host or None, peer or None)


@given(st.text(), st.text())
def test_a_json_refusal_is_valid_whatever_it_says(peer, reason):
    assert strict(refusal("json", peer=peer, reason=reason))["refused"] == reason


class Shout(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (5, "5"),
        (float("nan"), "nan"),
        (["\n"], "['\\n']"),
        (b"x", "b'x'"),
        (Shout("x"), "x"),
        ("half \ud83d of a pair", "half \ufffd of a pair"),
        ("\ud83d\ude00", "\U0001f600"),
        ("a literal \\ud83d", "a literal \\ud83d"),
    ],
)
def test_json_takes_what_an_application_puts_into_the_environ(value, shown):
    record = FakeRecord(HTTP_USER_AGENT=value)
    assert strict(line("json", record))["agent"] == shown


@pytest.mark.parametrize("character", ["a", "\xe9", "\x00", '"', "\U0001f600"])
def test_a_long_json_line_is_shortened_and_still_valid(character):
    long = character * 70_000
    record = hostile_record(long)
    record.request.target = b"\xe9" * 70_000
    record.environ["HTTP_USER_AGENT"] = long
    made = line("json", record)
    assert len(made) <= jsonline.MAX_LINE < MAX_LINE
    found = strict(made)
    for name in ("target", "agent", "referer", "host", "method", "id", "remote"):
        assert found[name].endswith("[...]")
        assert len(found[name]) >= 100
    assert len(refusal("json", peer=long, reason=long)) <= jsonline.MAX_LINE


def test_only_what_is_long_is_shortened():
    record = FakeRecord(b"/" + b"a" * 20_000, HTTP_USER_AGENT="b" * 900)
    found = strict(line("json", record))
    assert found["target"] == "/" + "a" * 999 + "[...]"
    assert found["agent"] == "b" * 900


def test_an_ordinary_line_is_found_to_need_no_escaping(monkeypatch):
    """Escaping each field took longer than all else together."""

    def refuse(text):
        raise AssertionError(text)

    monkeypatch.setattr(apache, "escape", refuse)
    record = FakeRecord(HTTP_REFERER="http://x/?a=b&c='%20'", HTTP_USER_AGENT="curl/8")
    assert line("combined", record) == former_line(record)
    assert line(r"\"%m\"\t\\%%", record) == '"GET"\t\\%'
    with pytest.raises(AssertionError):
        line("combined", FakeRecord(HTTP_REFERER='"'))
