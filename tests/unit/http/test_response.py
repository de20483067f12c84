"""What the application says, as bytes: PEP 3333 on one side, RFC 9112 on the other."""

import sys

import pytest

from gpulse.http.parser import Request
from gpulse.http.response import Response, ResponseError, interim_head

COMMON = "Server: gpulse\r\nDate: now\r\n"


class Rig:
    def __init__(self, method="GET", http_1_0=False, keep_alive=True):
        request = Request()
        request.method = method
        request.is_http_1_0 = http_1_0
        self.pieces = []
        self.response = Response(request, self.pieces.append, COMMON, keep_alive)

    def start(self, status="200 OK", headers=(), exc_info=None):
        return self.response.start_response(status, list(headers), exc_info)

    @property
    def wire(self):
        return b"".join(self.pieces)

    @property
    def head(self):
        return self.wire.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")

    @property
    def body(self):
        return self.wire.partition(b"\r\n\r\n")[2]


def run(pieces, status="200 OK", headers=(), **kwargs):
    rig = Rig(**kwargs)
    rig.start(status, headers)
    rig.response.write_all(pieces)
    return rig


class Streaming:
    """What Django's StreamingHttpResponse looks like from here: no length."""

    streaming = True

    def __init__(self, *pieces):
        self.pieces = pieces

    def __iter__(self):
        return iter(self.pieces)


class Whole(Streaming):
    """And HttpResponse: one piece."""

    streaming = False


LENGTH = ("Content-Length", "5")
CL, TE, CLOSE = "Content-Length: ", "Transfer-Encoding: chunked", "Connection: close"


class TestFraming:
    @pytest.mark.parametrize(
        ("case", "pieces", "expected", "body", "keep_alive"),
        [
            ({}, [b"hello"], CL + "5", b"hello", True),
            ({}, (b"hello",), CL + "5", b"hello", True),
            ({}, Whole(b"hello"), CL + "5", b"hello", True),
            ({}, [], CL + "0", b"", True),
            ({}, [b""], CL + "0", b"", True),
            ({}, [b"", b""], CL + "0", b"", True),
            ({}, [b"hel", b"", b"lo"], TE, b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", True),
            ({}, Streaming(b"hello"), TE, b"5\r\nhello\r\n0\r\n\r\n", True),
            ({}, Streaming(), CL + "0", b"", True),
            ({"headers": [LENGTH]}, [b"hello"], CL + "5", b"hello", True),
            ({"headers": [LENGTH]}, Streaming(b"hel", b"lo"), CL + "5", b"hello", True),
            ({"headers": [LENGTH]}, Streaming(b"hel"), CL + "5", b"hel", False),
            ({"headers": [LENGTH]}, [b"hel"], CL + "5", b"hel", False),
            ({"headers": [LENGTH]}, [], CL + "5", b"", False),
            ({"headers": [LENGTH]}, [b"hello world"], CL + "5", b"hello", True),
            ({"headers": [LENGTH]}, Streaming(b"hello", b" world"), CL + "5", b"hello", True),
            ({"headers": [LENGTH]}, Streaming(b"hell", b"o world"), CL + "5", b"hello", True),
            ({"http_1_0": True}, [b"hello"], CL + "5", b"hello", True),
            ({"http_1_0": True}, Streaming(b"hel", b"lo"), CLOSE, b"hello", False),
            ({"method": "HEAD"}, [b"hello"], CL + "5", b"", True),
            ({"method": "HEAD"}, Streaming(b"hello"), TE, b"", True),
            ({"method": "HEAD", "headers": [LENGTH]}, [], CL + "5", b"", True),
            ({"status": "204 No Content"}, [], None, b"", True),
            ({"status": "204 No Content"}, [b"hello"], None, b"", True),
            ({"status": "204 No Content", "headers": [LENGTH]}, [], None, b"", True),
            ({"status": "304 Not Modified"}, [], None, b"", True),
            ({"status": "304 Not Modified", "headers": [LENGTH]}, [], CL + "5", b"", True),
            ({"status": "304 Not Modified"}, Streaming(b"hello"), None, b"", True),
            ({"status": "404"}, [b"hello"], CL + "5", b"hello", True),
        ],
    )
    def test_a_body_ends_where_its_framing_says(self, case, pieces, expected, body, keep_alive):
        rig = run(pieces, **case)
        framing = [
            line for line in rig.head if line.startswith((CL, "Transfer-Encoding")) or line == CLOSE
        ]
        if expected is CLOSE:
            assert framing == [CLOSE]
        else:
            assert [line for line in framing if line != CLOSE] == ([expected] if expected else [])
        assert rig.body == body
        assert rig.response.keep_alive is keep_alive

    def test_head_without_a_body_says_nothing_of_the_length(self):
        assert not any(line.startswith(CL) for line in run([], method="HEAD").head)

    def test_the_rest_of_a_stream_that_nobody_would_see_is_not_asked_for(self):
        def pieces():
            yield b"seen"
            raise AssertionError("asked for")

        run(pieces(), method="HEAD")

    def test_more_than_the_content_length_is_cut_and_remembered(self):
        assert run([b"hello world"], headers=[LENGTH]).response.truncated
        assert not run([b"hello"], headers=[LENGTH]).response.truncated

    @pytest.mark.parametrize(
        ("case", "line"),
        [
            ({}, None),
            ({"keep_alive": False}, CLOSE),
            ({"http_1_0": True}, "Connection: keep-alive"),
            ({"http_1_0": True, "keep_alive": False}, CLOSE),
            ({"headers": [("Connection", "Close")]}, CLOSE),
        ],
    )
    def test_the_connection_field_is_the_servers(self, case, line):
        found = [each for each in run([b"x"], **case).head if each.startswith("Connection")]
        assert found == ([line] if line else [])

    def test_bytes_given_to_the_client_are_counted_without_framing(self):
        assert run(Streaming(b"hel", b"lo")).response.sent == 5


class TestPieces:
    def test_a_small_response_is_one(self):
        assert len(run([b"hello"]).pieces) == 1

    def test_a_large_body_is_not_copied_behind_its_head(self):
        body = b"x" * 100_000
        rig = run([body])
        assert len(rig.pieces) == 2
        assert rig.pieces[1] is body

    def test_each_piece_of_a_stream_leaves_when_it_is_made(self):
        rig = Rig()
        rig.start()
        seen = []

        def pieces():
            for piece in (b"a", b"b"):
                yield piece
                seen.append(len(rig.pieces))

        rig.response.write_all(pieces())
        assert seen == [1, 2]

    def test_the_common_fields_come_last(self):
        head = run([b"x"], headers=[("X", "1")]).head
        assert head == [
            "HTTP/1.1 200 OK",
            "X: 1",
            "Content-Length: 1",
            "Server: gpulse",
            "Date: now",
        ]

    @pytest.mark.parametrize("name", ["Date", "server"])
    def test_the_application_may_name_its_own_date_and_server(self, name):
        head = run([b"x"], headers=[(name, "mine")]).head
        found = [line for line in head if line.lower().startswith(name.lower() + ":")]
        assert found == [f"{name}: mine"]


class TestStartResponse:
    def test_no_byte_leaves_before_the_first_of_the_body(self):
        rig = Rig()
        write = rig.start()
        write(b"")
        assert rig.pieces == []
        write(b"x")
        assert rig.pieces != []

    def test_write_sends_at_once_and_write_all_goes_on(self):
        rig = Rig()
        rig.start()(b"hel")
        assert rig.body == b"3\r\nhel\r\n"
        rig.response.write_all([b"lo"])
        assert rig.body == b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"

    def test_twice_is_an_error(self):
        rig = Rig()
        rig.start()
        with pytest.raises(ResponseError, match="twice"):
            rig.start()

    def test_twice_with_exc_info_replaces_the_first(self):
        rig = Rig()
        rig.start(headers=[("X", "1")])
        try:
            raise ValueError
        except ValueError:
            rig.start("500 Oops", [("Y", "2")], sys.exc_info())
        rig.response.write_all([b"x"])
        assert rig.head[:2] == ["HTTP/1.1 500 Oops", "Y: 2"]

    def test_with_exc_info_when_the_head_is_out_raises_that_error(self):
        rig = Rig()
        rig.start()(b"x")
        try:
            raise ValueError("the cause")
        except ValueError:
            exc_info = sys.exc_info()
        with pytest.raises(ValueError, match="the cause"):
            rig.start("500 Oops", [], exc_info)

    @pytest.mark.parametrize(
        "status",
        ["", "OK", "20 OK", "2000", "200OK", "099 x", "200 O\r\nK", "200 \x00", b"200 OK", 200],
    )
    def test_a_status_that_is_none(self, status):
        with pytest.raises(ResponseError, match="status"):
            Rig().start(status)

    @pytest.mark.parametrize("pieces", [[b"x"], [], Streaming(b"x"), Streaming(), Whole(b"x")])
    def test_a_body_without_it_is_an_error(self, pieces):
        rig = Rig()
        with pytest.raises(ResponseError, match="not called"):
            rig.response.write_all(pieces)
        assert rig.pieces == []

    def test_it_may_be_called_by_the_first_step_of_the_body(self):
        rig = Rig()

        def pieces():
            rig.start()
            yield b"x"

        rig.response.write_all(pieces())
        assert rig.head[0] == "HTTP/1.1 200 OK"

    @pytest.mark.parametrize("piece", ["text", bytearray(b"x"), 1, None])
    def test_only_bytes_are_a_body(self, piece):
        with pytest.raises(ResponseError, match="bytes"):
            run(Streaming(piece))


class TestHeaders:
    @pytest.mark.parametrize(
        "field",
        [
            ("X", "a\r\nSet-Cookie: b"),
            ("X", "a\nb"),
            ("X", "a\rb"),
            ("X", "a\x00b"),
            ("X\r\nY", "a"),
            ("X", "€"),
            ("X", 1),
            ("Content-Length", "5, 5"),
            ("Content-Length", "-1"),
            ("Content-Length", "\xb2"),
            ("Content-Length", ""),
        ],
    )
    def test_what_would_break_the_head_is_an_error_and_nothing_is_sent(self, field):
        rig = Rig()
        rig.start(headers=[field])
        with pytest.raises(ResponseError):
            rig.response.write_all([b"hello"])
        assert rig.pieces == []
        assert not rig.response.head_sent

    def test_two_lengths_are_an_error(self):
        with pytest.raises(ResponseError, match="second"):
            run([b"hello"], headers=[LENGTH, LENGTH])

    @pytest.mark.parametrize(
        "name",
        ["Transfer-Encoding", "upgrade", "Keep-Alive", "TE", "Trailer", "Proxy-Authenticate"],
    )
    def test_hop_by_hop_fields_are_the_servers(self, name):
        with pytest.raises(ResponseError, match="hop-by-hop"):
            run([b"x"], headers=[(name, "x")])

    @pytest.mark.parametrize(
        ("keep_alive", "line"),
        [(True, "Connection: Upgrade"), (False, "Connection: close, Upgrade")],
    )
    def test_426_names_what_to_upgrade_to(self, keep_alive, line):
        head = run(
            [b"x"], "426 Upgrade Required", [("Upgrade", "websocket")], keep_alive=keep_alive
        ).head
        assert "Upgrade: websocket" in head
        assert [each for each in head if each.startswith("Connection")] == [line]

    def test_fields_go_out_as_given_and_in_order(self):
        fields = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-A", "é")]
        head = run([b"x"], headers=fields).head
        assert head[1:4] == ["Set-Cookie: a=1", "Set-Cookie: b=2", "X-A: é"]


class TestFiles:
    def test_a_file_of_known_size(self):
        rig = Rig()
        rig.start()
        rig.response.send_blocks(5, iter([b"hel", b"lo"]))
        assert (rig.head[1], rig.body) == (CL + "5", b"hello")

    def test_the_applications_length_counts(self):
        rig = Rig()
        rig.start(headers=[("Content-Length", "3")])
        rig.response.send_blocks(5, iter([b"hel", b"lo"]))
        assert (rig.head[1], rig.body) == (CL + "3", b"hel")

    def test_a_file_of_unknown_size_is_chunked(self):
        rig = Rig()
        rig.start()
        rig.response.send_blocks(None, iter([b"hello"]))
        assert rig.body == b"5\r\nhello\r\n0\r\n\r\n"

    def test_a_file_that_shrank_closes_the_connection(self):
        rig = Rig()
        rig.start()
        rig.response.send_blocks(9, iter([b"hello"]))
        assert not rig.response.keep_alive

    def test_head_reads_no_more_than_a_block(self):
        rig = Rig(method="HEAD")
        rig.start()
        blocks = iter([b"hello"] * 9)
        rig.response.send_blocks(45, blocks)
        assert (rig.head[1], rig.body) == (CL + "45", b"")
        assert len(list(blocks)) >= 8


class TestFilesOfTheServers:
    """``start_file`` sends the head; somebody else sends the bytes."""

    @pytest.mark.parametrize(
        ("headers", "size", "count", "keep_alive"),
        [
            ([], 5, 5, True),
            ([], 0, 0, True),
            ([LENGTH], 9, 5, True),
            ([LENGTH], 5, 5, True),
            ([LENGTH], 3, 3, False),
            ([("Content-Length", "0")], 5, 0, True),
        ],
    )
    def test_as_many_bytes_as_the_head_says(self, headers, size, count, keep_alive):
        rig = Rig()
        rig.start(headers=headers)
        assert rig.response.start_file(size) == count
        said = headers[0][1] if headers else str(size)
        assert [line for line in rig.head if line.startswith(CL)] == [CL + said]
        assert rig.body == b""
        assert rig.response.head_sent
        assert (rig.response.sent, rig.response.keep_alive) == (count, keep_alive)

    @pytest.mark.parametrize(
        ("method", "status"), [("HEAD", "200 OK"), ("GET", "304 Not Modified"), ("GET", "204 None")]
    )
    def test_none_where_there_is_no_body(self, method, status):
        rig = Rig(method=method)
        rig.start(status)
        assert rig.response.start_file(5) == 0
        assert rig.response.keep_alive

    def test_an_old_client_knows_the_end_by_the_length(self):
        rig = Rig(http_1_0=True)
        rig.start()
        assert rig.response.start_file(5) == 5
        assert "Connection: keep-alive" in rig.head

    def test_a_head_that_breaks_sends_nothing(self):
        rig = Rig()
        rig.start(headers=[("X", "a\r\nb")])
        with pytest.raises(ResponseError):
            rig.response.start_file(5)
        assert rig.pieces == []
        assert not rig.response.head_sent

    def test_the_application_s_list_of_fields_stays_as_it_was(self):
        rig = Rig()
        headers = [("X", "1")]
        rig.response.start_response("200 OK", headers)
        rig.response.start_file(5)
        assert headers == [("X", "1")]


class TestCommonFields:
    def test_one_more_is_sent_with_the_others(self):
        rig = Rig()
        rig.response.common += "X-Request-ID: 1\r\n"
        rig.start()
        rig.response.write_all([b"x"])
        assert rig.head[-3:] == ["Server: gpulse", "Date: now", "X-Request-ID: 1"]

    @pytest.mark.parametrize("name", ["X-Request-ID", "x-request-id"])
    def test_the_application_s_own_id_stands_alone(self, name):
        for _ in range(2):  # a name may be known from an earlier response
            rig = Rig()
            rig.response.common += "X-Request-ID: 1\r\n"
            rig.start(headers=[(name, "mine")])
            rig.response.write_all([b"x"])
            found = [line for line in rig.head if line.lower().startswith("x-request-id:")]
            assert found == [f"{name}: mine"]


class TestInterimHead:
    def test_the_fields_and_nothing_of_the_servers(self):
        assert interim_head("103 Early Hints", [("Link", "</a>"), ("Link", "</é>")]) == (
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </é>\r\n\r\n".encode("latin-1")
        )

    def test_none(self):
        assert interim_head("103 Early Hints", []) == b"HTTP/1.1 103 Early Hints\r\n\r\n"

    @pytest.mark.parametrize(
        "field",
        [
            ("Link", "a\r\nb: c"),
            ("Link", "a\n"),
            ("Link", "\ra"),
            ("Link", "a\0"),
            ("Link", "€"),
            ("Link", 1),
            ("Link", None),
            ("Link", b"a"),
            ("Li:nk", "a"),
            ("Link ", "a"),
            ("Lin\nk", "a"),
            ("", "a"),
            (b"Link", "a"),
            (1, "a"),
            ("Connection", "close"),
            ("transfer-encoding", "chunked"),
            ("UPGRADE", "h2c"),
            ("TE", "x"),
            ("Content-Length", "0"),
        ],
    )
    def test_what_may_not_be_in_it(self, field):
        with pytest.raises(ResponseError):
            interim_head("103 Early Hints", [("X", "1"), field])
