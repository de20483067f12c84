"""What a strict front has to answer, input by input, and where each answer is tested.

``INPUTS`` are requests that servers disagree about, with the answer of this one.  Most are cases of
``tests/wire/http``; what bytes of a client cannot show is a test elsewhere, named by its path.
``ADVISORIES`` are published holes of other servers: the tests that would fail if we had them.
"""

import ast
from functools import cache
from pathlib import Path

import pytest
from wire.test_wire import read_case

HERE = Path(__file__).parent
TESTS = HERE.parent

INPUTS = (
    # Two framings of one body.
    ("Content-Length, then Transfer-Encoding", "400", "length-and-chunked"),
    ("Transfer-Encoding, then Content-Length", "400", "chunked-and-length"),
    ("Content-Length: 0 and Transfer-Encoding", "400", "length-zero-and-chunked"),
    ("two Content-Lengths that differ", "400", "length-twice-different"),
    ("two Content-Lengths that agree", "400", "length-twice-same"),
    ("Content-Length: 3, 3", "400", "length-list"),
    # What int() takes for a number.
    ("Content-Length: +3", "400", "length-plus"),
    ("Content-Length: 1_0", "400", "length-underscore"),
    ("Content-Length: 0x3", "400", "length-hex"),
    ("Content-Length: -1", "400", "length-minus"),
    ("Content-Length without a value", "400", "length-empty"),
    ("Content-Length: superscript two", "400", "length-superscript"),
    ("Content-Length of 5,000 digits", "400", "length-huge"),
    # Codings.
    ("Transfer-Encoding: xchunked", "501", "coding-unknown"),
    ("Transfer-Encoding: identity", "400", "coding-identity"),
    ("Transfer-Encoding: gzip, chunked", "501", "coding-gzip-chunked"),
    ("Transfer-Encoding: chunked, identity", "400", "coding-chunked-identity"),
    ("Transfer-Encoding twice", "400", "coding-twice"),
    ("Transfer-Encoding: chunked, chunked", "400", "coding-chunked-chunked"),
    ("Transfer-Encoding: VT chunked", "400", "coding-vertical-tab"),
    ("Transfer-Encoding SP : chunked, Content-Length: 0", "400", "coding-space-before-colon"),
    ("Transfer-Encoding in HTTP/1.0", "400", "coding-in-http-1.0"),
    ("Transfer-Encoding on a folded line", "400", "coding-folded"),
    # Lines.
    ("a folded header", "400", "header-folded"),
    ("LF for CRLF in a head", "400", "header-bare-lf"),
    ("LF for CRLF in the request line only", "400", "request-line-lf"),
    ("LF for the empty line of a head", "400", "header-end-lf"),
    ("LF in a value that hides a Content-Length", "400", "header-lf-hides-length"),
    ("CR in a value", "400", "header-bare-cr"),
    ("NUL in a value", "400", "header-nul"),
    ("a header without a colon, then Content-Length", "400", "header-without-colon"),
    ("Content-Length SP :", "400", "length-space-before-colon"),
    ("a header without a name", "400", "header-empty-name"),
    ("white space before the first header", "400", "header-first-folded"),
    ("a header with an underscore: good", "200", "underscore-header"),
    (
        "a header with an underscore: the application does not get it",
        "dropped",
        "unit/http/test_head.py::TestFields::test_a_name_with_an_underscore_is_dropped",
    ),
    # The host.
    ("two Hosts", "400", "host-twice"),
    ("two Hosts that agree", "400", "host-twice-same"),
    ("no Host in HTTP/1.1", "400", "host-missing"),
    ("Host: a b", "400", "host-space"),
    # The request line.
    ("GET /a", "400", "version-0.9"),
    ("HTTP/2.0", "505", "version-2.0"),
    ("HTTP/1.1.1", "400", "version-three-numbers"),
    ("http/1.1", "400", "version-lower-case"),
    ("a control character in the method", "400", "method-control"),
    ("tabs between the parts", "400", "request-line-tabs"),
    ("NUL in the target", "400", "target-nul"),
    ("a byte above 127 in the target", "400", "target-8-bit"),
    ("a URL for another host than Host", "400", "absolute-form-other-host"),
    ("a URL for the host of Host: its path", "200", "absolute-form"),
    ("a target without a slash", "400", "target-without-slash"),
    ("GET *", "400", "target-star-with-get"),
    ("CONNECT, then a request", "405", "connect"),
    # Chunks.
    ("chunk size 0x3", "400", "chunk-size-hex"),
    ("chunk size +3", "400", "chunk-size-plus"),
    ("chunk size -3", "400", "chunk-size-minus"),
    ("chunk size 3_", "400", "chunk-size-underscore"),
    ("chunk size SP 3", "400", "chunk-size-leading-space"),
    ("chunk size 3 SP", "400", "chunk-size-trailing-space"),
    ("no chunk size", "400", "chunk-size-empty"),
    ("chunk size of 40 f", "400", "chunk-size-huge"),
    ("LF for CRLF in chunks", "400", "chunk-lf"),
    ("LF behind a chunk's data", "400", "chunk-data-lf"),
    ("LF in a chunk extension", "400", "chunk-extension-lf"),
    ("CR in a chunk extension", "400", "chunk-extension-cr"),
    ("a chunk extension of 20 KB", "400", "chunk-extension-too-long"),
    ("a chunk extension of 20 KB and no end", "400", "chunk-extension-unfinished"),
    ("more data than the chunk size says", "400", "chunk-data-overrun"),
    ("trailer Content-Length", "400", "trailer-content-length"),
    ("a request line for a trailer", "400", "trailer-request-line"),
    # Sizes.
    ("a request line of 70 KB", "414", "target-too-long"),
    ("a header of 70 KB", "431", "header-too-long"),
    ("150 headers", "431", "headers-too-many"),
    ("98 headers of 60 KB", "431", "headers-98-of-60-kb"),
    # What concerns the connection.
    ("Expect: foo", "417", "expect-unknown"),
    ("a handshake with a body: read once", "200 200", "upgrade-websocket-with-body"),
    ("another upgrade with a body: read once", "200 200", "upgrade-other-with-body"),
    ("Connection: foo, close, then a request", "200 close", "connection-close-in-list"),
    (
        "HEAD, to an application that returns a body",
        "no body",
        "contract/test_wsgi.py::TestResponses::test_head_has_no_body_and_the_connection_goes_on",
    ),
    (
        "part of a head, then nothing; part of a body, then nothing; nothing at all",
        "408, 408, closed",
        "contract/test_wsgi.py::TestRefusals::test_what_does_not_arrive_in_time",
    ),
    (
        "a head byte by byte without end",
        "408",
        "contract/test_wsgi.py::TestRefusals::test_a_head_that_drips_in_is_not_waited_for",
    ),
    # PROXY headers.
    ("a PROXY header where none is expected", "400", "proxy-header"),
    ("a PROXY header behind a request", "200 400", "proxy-header-after-a-request"),
    ("two PROXY headers", "the second is the client's", "wire/proxy/v1-twice.txt"),
    ("two PROXY headers of version 2", "the second is the client's", "wire/proxy/v2-twice.txt"),
    ("a PROXY header of more than 216 bytes", "closed", "wire/proxy/v2-too-long.txt"),
    ("a PROXY line of more than 107 bytes", "closed", "wire/proxy/v1-too-long.txt"),
    # Errors, and what is behind them.
    ("a request behind one that is refused", "200 400", "error-then-request"),
    ("a request behind a broken body", "400", "error-in-body-then-request"),
    ("a request behind a body that is too long", "413", "too-long-then-request"),
    ("two Content-Types", "400", "content-type-twice"),
    # What the application says wrongly.
    (
        "CR, LF or NUL in a response header or status",
        "500, and the worker goes on",
        "contract/test_advisories.py::TestResponses::test_a_head_that_would_be_two_is_a_500",
    ),
    (
        "more than the application's Content-Length",
        "cut",
        "contract/test_wsgi.py::TestFaults::test_one_that_sends_more_is_cut",
    ),
    (
        "less than the application's Content-Length",
        "closed",
        "contract/test_wsgi.py::TestFaults"
        "::test_one_that_sends_less_than_it_promised_ends_the_connection",
    ),
    (
        "a subprotocol that is not ASCII",
        "400",
        "contract/test_advisories.py::TestHandshakes"
        "::test_a_subprotocol_that_is_not_ascii_is_refused",
    ),
    (
        "%00 and .. in the path of a static file",
        "404",
        "live/test_static.py::test_no_path_leads_out_of_the_collected_files",
    ),
    # Load.
    (
        "1,000 pipelined requests, and another client",
        "both are served",
        "contract/test_wsgi.py::TestConnections"
        "::test_a_connection_that_pipelines_does_not_keep_others_waiting",
    ),
    (
        "an upload of 10 GB that nobody wants",
        "not read to its end",
        "live/test_floods.py::test_an_upload_that_nobody_wants_is_not_read_to_its_end",
    ),
)
"""(what is sent, the answer, the case or the test).  The answer of a case is the status of each
line of its outcome."""

ADVISORIES = (
    (
        "CVE-2018-1000164",
        "gunicorn",
        "contract/test_advisories.py::TestResponses::test_a_head_that_would_be_two_is_a_500",
    ),
    ("CVE-2024-1135", "gunicorn", "coding-twice", "coding-chunked-identity"),
    ("CVE-2024-6827", "gunicorn", "coding-unknown-and-length"),
    ("CVE-2023-41419", "gevent", "trailer-request-line"),
    (
        "a truncated POST",
        "gevent",
        "post-unfinished",
        "post-chunked-unfinished",
        "contract/test_wsgi.py::TestBodies::test_a_client_that_leaves_within_its_body_calls_nobody",
    ),
    ("CVE-2019-16785", "waitress", "header-lf-hides-length"),
    ("CVE-2019-16786", "waitress", "coding-gzip-chunked-and-length"),
    ("CVE-2019-16789", "waitress", "coding-vertical-tab"),
    ("CVE-2019-16792", "waitress", "length-twice-different", "length-twice-same"),
    (
        "CVE-2022-24761",
        "waitress",
        "length-plus",
        "chunk-size-hex",
        "chunk-size-plus",
        "chunk-extension-lf",
        "chunk-extension-nul",
    ),
    ("CVE-2024-49768", "waitress", "error-then-request", "error-in-body-then-request"),
    (
        "CVE-2024-49769",
        "waitress",
        "contract/test_advisories.py::TestConnections"
        "::test_clients_that_are_gone_at_once_leave_no_loop_behind",
    ),
    (
        "CVE-2019-16770",
        "puma",
        "contract/test_advisories.py::TestConnections"
        "::test_open_connections_and_pipelines_hold_no_member",
        "live/test_floods.py::test_a_pipeline_does_not_starve_another_connection",
    ),
    (
        "CVE-2020-5247",
        "puma",
        "contract/test_advisories.py::TestResponses::test_a_head_that_would_be_two_is_a_500",
    ),
    (
        "CVE-2020-5249",
        "puma",
        "contract/test_advisories.py::TestResponses::test_early_hints_that_would_be_two_heads_are_a_500",
    ),
    ("CVE-2020-11076", "puma", "coding-tab-chunked-and-length"),
    ("CVE-2020-11077", "puma", "length-and-chunked-with-request"),
    ("CVE-2021-41136", "puma", "header-bare-lf"),
    ("CVE-2023-40175", "puma", "trailer-content-length-empty-body", "length-empty-and-chunked"),
    (
        "CVE-2024-21647",
        "puma",
        "chunk-extension-unfinished",
        "chunk-extension-too-long",
        "chunk-extension-too-long-behind-much",
        "chunk-many-small-with-extensions",
    ),
    (
        "CVE-2024-45614",
        "puma",
        "underscore-header",
        "unit/http/test_head.py::TestFields::test_a_name_with_an_underscore_is_dropped",
    ),
    (
        "CVE-2026-42544",
        "granian",
        "contract/test_advisories.py::TestHandshakes"
        "::test_a_subprotocol_that_is_not_ascii_is_refused",
    ),
    (
        "CVE-2026-42545",
        "granian",
        "contract/test_advisories.py::TestResponses::test_a_head_that_would_be_two_is_a_500",
    ),
)
"""(its number, whose it was, the cases and tests)."""


def is_case(name: str) -> bool:
    return "/" not in name


def case(name: str) -> Path:
    return HERE / "http" / f"{name}.txt"


@cache
def functions(path: Path) -> set[str]:
    """The tests of a file, as pytest names them."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    found.add(f"{node.name}::{inner.name}")
    return found


def assert_is_a_test(name: str) -> None:
    """A case of the PROXY header, or a function of a test file."""
    path, _, function = name.partition("::")
    assert (TESTS / path).is_file(), name
    if function:
        assert function in functions(TESTS / path), name


@pytest.mark.parametrize(("sent", "answer", "where"), INPUTS, ids=[each[0] for each in INPUTS])
def test_each_input_has_its_answer(sent, answer, where):
    if is_case(where):
        _, outcome = read_case(case(where))
        assert " ".join(line.split()[0] for line in outcome) == answer
    else:
        assert_is_a_test(where)


@pytest.mark.parametrize("advisory", ADVISORIES, ids=[each[0] for each in ADVISORIES])
def test_each_advisory_is_named_where_it_is_tested(advisory):
    number, _, *places = advisory
    for where in places:
        if not is_case(where):
            assert_is_a_test(where)
        elif number.startswith("CVE"):
            assert number in case(where).read_text("ascii").partition("\n")[0], where
        else:
            assert case(where).is_file()


def test_the_table_is_whole():
    assert len(INPUTS) >= 72
    assert len({sent for sent, _, _ in INPUTS}) == len(INPUTS)
