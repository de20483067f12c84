"""Files as responses end to end: from ``wsgi.file_wrapper`` and from X-Sendfile.

``serve`` sees to it that no descriptor is left open.
"""

import gzip
import io
import os
import random
import tempfile
import threading
from functools import partial

import gevent
import pytest
from contract.wsgi_site import until
from django.core.files import File

KIB, MIB = 1024, 1024 * 1024
LARGE = random.Random(7).randbytes(40 * MIB)


class Shelf:
    """An application: ``/NAME`` is answered with the wrapped file that ``open`` makes of it."""

    def __init__(self, headers=()):
        self.headers = list(headers)
        self.open = None
        self.files = []

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/plain":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"plain"]
        file = self.open()
        self.files.append(file)
        start_response("200 OK", [("Content-Type", "text/x-test"), *self.headers])
        return environ["wsgi.file_wrapper"](file, 8192)


@pytest.fixture
def put(tmp_path):
    """``put(content)`` makes a file and gives what opens it."""
    path = tmp_path / "file"

    def put(content, position=0):
        path.write_bytes(content)

        def open_at():
            file = path.open("rb")
            file.seek(position)
            return file

        return open_at

    put.path = path
    return put


class TestWrapper:
    @pytest.mark.parametrize("size", [0, 100, 65_536, 65_537, 3 * MIB, 40 * MIB])
    def test_a_file_is_sent_from_its_position(self, serve, put, size):
        shelf = Shelf()
        shelf.open = put(b"skipped" + LARGE[:size], 7)
        client = serve(shelf).connect()
        for _ in range(2):
            client.request("GET", "/")
            answer = client.read()
            assert answer.fields["content-length"] == str(size)
            assert answer.fields["content-type"] == "text/x-test"
            assert answer.body == LARGE[:size]
        until(lambda: all(file.closed for file in shelf.files))

    @pytest.mark.parametrize("size", [100, 3 * MIB])
    def test_a_file_that_was_read_from_is_sent_from_there(self, serve, put, size):
        """What the buffer of a file object holds is not where the descriptor stands."""
        opened = put(LARGE[:size])

        def begun():
            file = opened()
            assert file.readline(3) == LARGE[:3]
            return file

        shelf = Shelf()
        shelf.open = begun
        assert serve(shelf).get().body == LARGE[3:size]

    def test_one_whose_position_is_behind_its_end_is_empty(self, serve, put):
        shelf = Shelf()
        shelf.open = put(b"abc", 100_000)
        assert serve(shelf).get().fields["content-length"] == "0"

    @pytest.mark.parametrize("size", [0, 100, 3 * MIB])
    def test_head_has_its_length_and_not_its_bytes(self, serve, put, size):
        shelf = Shelf()
        shelf.open = put(LARGE[:size])
        client = serve(shelf).connect()
        client.request("HEAD", "/")
        assert client.read("HEAD").fields["content-length"] == str(size)
        client.request("GET", "/plain")
        assert client.read().body == b"plain"

    @pytest.mark.parametrize("size", [100, 3 * MIB])
    @pytest.mark.parametrize("asked", [0, 10, 99])
    def test_a_shorter_content_length_is_a_part_of_it(self, serve, put, size, asked):
        shelf = Shelf([("Content-Length", str(asked))])
        shelf.open = put(LARGE[:size])
        client = serve(shelf).connect()
        for _ in range(2):
            client.request("GET", "/")
            assert client.read().body == LARGE[:asked]

    @pytest.mark.parametrize("size", [100, 3 * MIB])
    def test_a_longer_content_length_ends_the_connection(self, serve, put, size):
        shelf = Shelf([("Content-Length", str(size + 1))])
        shelf.open = put(LARGE[:size])
        client = serve(shelf).connect()
        client.request("GET", "/")
        answer = client.read()
        assert (answer.body, answer.is_whole) == (LARGE[:size], False)
        assert client.is_ended()

    def test_http_1_0_knows_the_end(self, serve, put):
        shelf = Shelf()
        shelf.open = put(LARGE[: 3 * MIB])
        client = serve(shelf).connect()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        answer = client.read()
        assert (answer.body, answer.closes) == (LARGE[: 3 * MIB], True)
        assert client.is_ended()

    def test_a_status_without_a_body_sends_none_of_it(self, serve, put):
        opened = put(LARGE[: 3 * MIB])

        def application(environ, start_response):
            start_response("304 Not Modified", [])
            return environ["wsgi.file_wrapper"](opened())

        client = serve(application).connect()
        for _ in range(2):
            client.request("GET", "/")
            assert client.read().status == 304

    def test_its_bytes_are_in_the_access_log(self, serve, put):
        shelf = Shelf()
        shelf.open = put(LARGE[: 3 * MIB])
        site = serve(shelf)
        site.get("/f")
        until(lambda: site.lines)
        assert f'"GET /f HTTP/1.1" 200 {3 * MIB} ' in site.lines[0]


class TestClients:
    def test_a_slow_reader_holds_no_member(self, serve, put):
        shelf = Shelf()
        shelf.open = put(LARGE)
        site = serve(shelf, size=1)
        slow = site.connect(receive_buffer=65_536)
        slow.request("GET", "/")
        slow.read_to(b"\r\n\r\n")
        until(lambda: site.pool.busy == 0)
        assert shelf.files[0].closed  # the application has its own back; the rest is ours
        for part in range(4):
            assert site.get("/plain").body == b"plain"
            assert slow.read_exactly(10 * MIB) == LARGE[part * 10 * MIB : (part + 1) * 10 * MIB]
            assert site.pool.busy == 0
        slow.request("GET", "/plain")
        assert slow.read().body == b"plain"

    @pytest.mark.parametrize("leave", ["close", "reset"])
    def test_one_that_leaves_in_the_middle_leaves_no_file_open(self, serve, put, leave):
        shelf = Shelf()
        shelf.open = put(LARGE)
        site = serve(shelf)
        for taken in (0, 1, MIB):
            client = site.connect(receive_buffer=65_536)
            client.request("GET", "/")
            client.read_exactly(taken)
            getattr(client, leave)()
        until(site.is_quiet)

    def test_one_that_takes_nothing_is_cut_off(self, serve, put):
        shelf = Shelf()
        shelf.open = put(LARGE)
        site = serve(shelf, write_timeout=0.3)
        client = site.connect(receive_buffer=4096)
        client.request("GET", "/")
        until(lambda: shelf.files)
        until(site.is_quiet)
        assert not client.read().is_whole

    def test_a_request_behind_a_file_is_answered_behind_it(self, serve, put):
        shelf = Shelf()
        shelf.open = put(LARGE[: 3 * MIB])
        client = serve(shelf).connect()
        each = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"
        client.send(each % b"a" + each % b"plain" + each % b"b" + each % b"plain")
        bodies = [client.read().body for _ in range(4)]
        assert bodies == [LARGE[: 3 * MIB], b"plain"] * 2

    def test_many_at_once(self, serve, put):
        """More than there are file threads."""
        shelf = Shelf()
        shelf.open = put(LARGE[: 2 * MIB])
        site = serve(shelf)

        def visit():
            assert site.get().body == LARGE[: 2 * MIB]

        gevent.joinall([gevent.spawn(visit) for _ in range(25)], raise_error=True)

    @pytest.mark.parametrize("left", [0, 2 * MIB])
    def test_a_file_that_shrinks_ends_the_connection(self, serve, put, left):
        shelf = Shelf()
        shelf.open = put(LARGE)
        site = serve(shelf, write_timeout=60)
        client = site.connect(receive_buffer=65_536)
        client.request("GET", "/")
        client.read_exactly(MIB)
        os.truncate(put.path, left)
        rest = 0
        with gevent.Timeout(10):
            try:
                while client.more():
                    rest += len(client.buffer)
                    client.buffer.clear()
            except ConnectionResetError:
                pass
        assert rest < 30 * MIB
        until(site.is_quiet)

    def test_a_file_that_grows_is_sent_as_long_as_it_was(self, serve, put):
        shelf = Shelf()
        shelf.open = put(LARGE[: 20 * MIB])
        client = serve(shelf).connect(receive_buffer=65_536)
        client.request("GET", "/")
        client.more()
        with put.path.open("ab") as file:
            file.write(b"more" * MIB)
        assert client.read().body == LARGE[: 20 * MIB]
        client.request("GET", "/plain")
        assert client.read().body == b"plain"


class TestNoFiles:
    """What is wrapped need not be a file on a disk."""

    @pytest.mark.parametrize("size", [0, 100, 300_000])
    def test_a_pipe(self, serve, size):
        def read_end():
            reader, writer = os.pipe()

            def feed():
                with os.fdopen(writer, "wb") as pipe:
                    pipe.write(LARGE[:size])

            threading.Thread(target=feed).start()
            return os.fdopen(reader, "rb")

        shelf = Shelf()
        shelf.open = read_end
        client = serve(shelf).connect()
        for _ in range(2):
            client.request("GET", "/")
            assert client.read().body == LARGE[:size]

    @pytest.mark.parametrize("size", [0, 100, 3 * MIB])
    def test_memory(self, serve, size):
        shelf = Shelf()
        shelf.open = lambda: io.BytesIO(LARGE[:size])
        client = serve(shelf).connect()
        for _ in range(2):
            client.request("GET", "/")
            assert client.read().body == LARGE[:size]

    @pytest.mark.parametrize(
        "error",
        [io.UnsupportedOperation, OSError, AttributeError, ValueError, NotImplementedError],
    )
    def test_an_object_whose_fileno_raises(self, serve, error):
        class Wrapped(io.BytesIO):
            def fileno(self):
                raise error

        shelf = Shelf()
        shelf.open = lambda: Wrapped(b"hello" * 1000)
        assert serve(shelf).get().body == b"hello" * 1000

    def test_an_object_that_has_read_and_nothing_else(self, serve):
        class Reader:
            closed = False

            def __init__(self):
                self.pieces = [b"hel", b"lo"]

            def read(self, size):
                return self.pieces.pop(0) if self.pieces else b""

        shelf = Shelf()
        shelf.open = Reader
        assert serve(shelf).get().body == b"hello"

    @pytest.mark.parametrize("size", [100, 3 * MIB])
    def test_a_file_object_that_decodes_has_the_descriptor_of_something_else(
        self, serve, put, size
    ):
        put.path.write_bytes(gzip.compress(LARGE[:size], 1))
        shelf = Shelf([("Content-Length", str(size))])
        shelf.open = partial(gzip.open, put.path)
        assert serve(shelf).get().body == LARGE[:size]

    @pytest.mark.parametrize("size", [100, 3 * MIB])
    def test_a_file_object_whose_read_is_its_own(self, serve, put, size):
        """A subclass may say that its bytes are others than the disk's."""

        class Upper(io.FileIO):
            def read(self, size=-1):
                return super().read(size).upper()

        put.path.write_bytes(b"abc" * size)
        shelf = Shelf()
        shelf.open = lambda: Upper(put.path)
        assert serve(shelf).get().body == b"ABC" * size

    @pytest.mark.parametrize("size", [100, 3 * MIB])
    def test_a_wrapper_around_a_file_whose_read_is_its_own(self, serve, put, size):
        """A decrypting one, say; it knows the file by the name that Django's wrappers use, too."""

        class Deciphered:
            def __init__(self, file):
                self.file = file

            def read(self, size=-1):
                return self.file.read(size).swapcase()

            def __getattr__(self, name):
                return getattr(self.file, name)

        put.path.write_bytes(b"abc" * size)
        shelf = Shelf()
        shelf.open = lambda: Deciphered(put.path.open("rb"))
        assert serve(shelf).get().body == b"ABC" * size

    @pytest.mark.parametrize("kind", ["named", "spooled", "django", "django twice"])
    def test_wrappers_that_only_pass_on(self, serve, kind):
        def wrapped():
            if kind == "spooled":
                file = tempfile.SpooledTemporaryFile(max_size=1000)  # noqa: SIM115
            else:
                file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - the server closes it
            file.write(b"skipped" + LARGE[:MIB])
            file.seek(7)
            if kind.startswith("django"):
                file = File(file)
            return File(file) if kind == "django twice" else file

        shelf = Shelf()
        shelf.open = wrapped
        answer = serve(shelf).get()
        assert answer.body == LARGE[:MIB]
        if kind != "spooled":
            assert answer.fields["content-length"] == str(MIB)


def naming(*fields, status="200 OK"):
    """An application that names a file in place of its body, as Django's views do."""

    def application(environ, start_response):
        start_response(
            status,
            [
                ("Content-Type", "image/x-test"),
                ("Set-Cookie", "a=1"),
                ("Set-Cookie", "b=2"),
                ("Content-Length", "0"),  # of CommonMiddleware
                *fields,
            ],
        )
        return [b""]

    return application


@pytest.fixture
def root(tmp_path):
    """A directory whose files may be sent, beside one whose files may not."""
    directory = tmp_path / "root"
    (directory / "below").mkdir(parents=True)
    (directory / "small").write_bytes(LARGE[:100])
    (directory / "below" / "a b").write_bytes(b"spaced")
    (directory / "below" / "large").write_bytes(LARGE[: 3 * MIB])
    (directory / "empty").write_bytes(b"")
    (directory / "link").symlink_to(directory / "small")
    (directory / "out").symlink_to(tmp_path / "secret")
    (directory / "away").symlink_to(tmp_path)
    os.mkfifo(directory / "pipe")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root-secret").write_bytes(b"secret")
    return directory


class TestSendfile:
    def serve_named(self, serve, root, name, *, head=False, **fields):
        site = serve(
            naming(("X-Sendfile", name), *fields.pop("extra", ())),
            sendfile_root=[str(root)],
        )
        client = site.connect()
        client.request("HEAD" if head else "GET", "/", **fields)
        return client, client.read("HEAD" if head else "GET")

    @pytest.mark.parametrize(
        ("name", "body"),
        [
            ("small", LARGE[:100]),
            ("below/large", LARGE[: 3 * MIB]),
            ("below/a b", b"spaced"),
            ("below/../small", LARGE[:100]),
            ("empty", b""),
            ("link", LARGE[:100]),
        ],
    )
    def test_a_file_below_the_root(self, serve, root, name, body):
        client, answer = self.serve_named(serve, root, f"{root}/{name}")
        assert (answer.status, answer.body) == (200, body)
        assert answer.fields["content-length"] == str(len(body))
        assert answer.fields["content-type"] == "image/x-test"
        assert answer.fields["set-cookie"] == "b=2"
        assert answer.fields["accept-ranges"] == "bytes"
        assert "x-sendfile" not in answer.fields
        client.request("GET", "/")
        assert client.read().body == body

    @pytest.mark.parametrize(
        "name",
        [
            "{root}/../secret",
            "{root}/below/../../secret",
            "{root}/out",
            "{root}/away/secret",
            "{root}-secret",
            "{root}",
            "{root}/",
            "{root}/below",
            "{root}/pipe",
            "{root}/none",
            "{root}/small/x",
            "{root}/none/x",
            "{root}/" + "n" * 5000,
            "{root}/%73mall",
            "small",
            "",
            "/etc/passwd",
            "file://{root}/small",
            "{root}/small\0",
            "{root}/small\r\nX-Injected: yes",
        ],
    )
    def test_anything_else_is_a_404_and_one_line_in_the_log(self, serve, root, name, caplog):
        _, answer = self.serve_named(serve, root, name.format(root=root))
        assert (answer.status, answer.closes) == (404, True)
        assert b"secret" not in answer.body
        assert "set-cookie" not in answer.fields
        assert "x-injected" not in answer.fields
        (line,) = [each for each in caplog.messages if "not sent" in each]
        assert "\n" not in line
        assert "\r" not in line

    def test_the_replaced_body_is_closed_once(self, serve, root):
        closed = []

        class Body(list):
            def close(self):
                closed.append(1)

        def application(environ, start_response):
            start_response("200 OK", [("X-Sendfile", str(root / "small"))])
            return Body([b"not this"])

        assert serve(application, sendfile_root=str(root)).get().body == LARGE[:100]
        assert closed == [1]

    def test_and_so_is_that_of_a_404(self, serve, root):
        closed = []

        class Body(list):
            def close(self):
                closed.append(1)

        def application(environ, start_response):
            start_response("200 OK", [("X-Sendfile", str(root / "none"))])
            return Body([b"not this"])

        assert serve(application, sendfile_root=str(root)).get().status == 404
        assert closed == [1]

    def test_the_status_is_the_application_s(self, serve, root):
        site = serve(
            naming(("X-Sendfile", f"{root}/small"), status="403 Forbidden"),
            sendfile_root=str(root),
        )
        client = site.connect()
        client.request("GET", "/", Range="bytes=0-4")
        answer = client.read()
        assert (answer.status, answer.body) == (403, LARGE[:100])

    @pytest.mark.parametrize("name", ["small", "below/large"])
    def test_head(self, serve, root, name):
        size = (root / name).stat().st_size
        client, answer = self.serve_named(
            serve, root, f"{root}/{name}", head=True, Range="bytes=0-4"
        )
        assert (answer.status, answer.fields["content-length"]) == (200, str(size))
        client.request("HEAD", "/")
        assert client.read("HEAD").status == 200

    def test_a_stream_that_names_one_first(self, serve, root):
        def application(environ, start_response):
            start_response("200 OK", [("X-Sendfile", f"{root}/small")])
            yield b"not this"

        # A generator has not yet called start_response when it is returned.
        answer = serve(application, sendfile_root=str(root)).get()
        assert answer.body == LARGE[:100]

    def test_without_a_root_the_field_is_for_a_proxy(self, serve, root):
        answer = serve(naming(("X-Sendfile", f"{root}/small"))).get()
        assert (answer.body, answer.fields["x-sendfile"]) == (b"", f"{root}/small")

    def test_a_root_of_urls_leaves_paths_to_a_proxy(self, serve, root):
        answer = serve(
            naming(("X-Sendfile", f"{root}/small")), sendfile_root=f"/files/={root}"
        ).get()
        assert answer.fields["x-sendfile"] == f"{root}/small"

    def test_a_request_that_waits_behind_a_file_is_answered(self, serve, root):
        site = serve(naming(("X-Sendfile", f"{root}/below/large")), sendfile_root=str(root))
        client = site.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        assert [client.read().body for _ in range(3)] == [LARGE[: 3 * MIB]] * 3


class TestAccelRedirect:
    @pytest.mark.parametrize(
        ("option", "url", "body"),
        [
            ("/files/={root}", "/files/small", LARGE[:100]),
            ("/files={root}", "/files/small", LARGE[:100]),
            ("/files/={root}/", "/files/below/a%20b", b"spaced"),
            ("/files/={root}", "/files/sm%61ll?a=b", LARGE[:100]),
            ("/files/={root}", "/files/below/large", LARGE[: 3 * MIB]),
            ("/f/=/nowhere,/f/below/={root}/below", "/f/below/a%20b", b"spaced"),
            ("/f/below/={root}/below,/f/=/nowhere", "/f/below/a%20b", b"spaced"),
            ("/f/={root},/f/none/=/nowhere", "/f/small", LARGE[:100]),
        ],
    )
    def test_a_file_below_a_prefix(self, serve, root, option, url, body):
        site = serve(
            naming(("X-Accel-Redirect", url)), sendfile_root=option.format(root=root).split(",")
        )
        answer = site.get()
        assert (answer.status, answer.body) == (200, body)
        assert "x-accel-redirect" not in answer.fields
        assert answer.fields["content-type"] == "image/x-test"

    @pytest.mark.parametrize(
        "url",
        [
            "/other/small",
            "/files/../secret",
            "/files/%2e%2e/secret",
            "/files/..%2fsecret",
            "/files/out",
            "/files/%00",
            "/files/small%00",
            "/files/small%3Fa",
            "/files/none",
            "/files/",
            "/files",
            "/Files/small",
            "{root}/small",
            "",
        ],
    )
    @pytest.mark.parametrize("prefix", ["/files/", "/files"])
    def test_anything_else_is_a_404(self, serve, root, url, prefix):
        site = serve(
            naming(("X-Accel-Redirect", url.format(root=root))), sendfile_root=f"{prefix}={root}"
        )
        answer = site.get()
        assert answer.status == 404
        assert b"secret" not in answer.body

    def test_a_prefix_without_a_slash_is_a_whole_segment(self, serve, root):
        """As ``--request-timeout`` has it; /filesmall is somebody else's path."""
        site = serve(naming(("X-Accel-Redirect", "/filesmall")), sendfile_root=f"/file={root}")
        assert site.get().status == 404

    def test_without_a_root_the_field_is_for_a_proxy(self, serve):
        answer = serve(naming(("X-Accel-Redirect", "/files/small"))).get()
        assert answer.fields["x-accel-redirect"] == "/files/small"


class TestRange:
    @pytest.fixture
    def ask(self, serve, root):
        def ask(name, fields=(), method="GET", status="200 OK", **sent):
            site = serve(
                naming(("X-Sendfile", f"{root}/{name}"), *fields, status=status),
                sendfile_root=str(root),
            )
            client = site.connect()
            client.request(method, "/", **sent)
            answer = client.read(method)
            client.request("GET", "/")
            assert client.read().is_whole  # the connection goes on behind any range
            return answer

        return ask

    @pytest.mark.parametrize("name", ["small", "below/large"])
    @pytest.mark.parametrize(
        ("wanted", "first", "last"),
        [
            ("bytes=0-0", 0, 0),
            ("bytes=10-19", 10, 19),
            ("bytes=10-", 10, None),
            ("bytes=-7", -7, None),
            ("bytes=0-999999999", 0, None),
            ("bytes=-999999999", 0, None),
        ],
    )
    def test_one_range(self, ask, root, name, wanted, first, last):
        content = (root / name).read_bytes()
        size = len(content)
        first = first if first >= 0 else size + first
        last = size - 1 if last is None else last
        answer = ask(name, Range=wanted)
        assert (answer.status, answer.body) == (206, content[first : last + 1])
        assert answer.fields["content-range"] == f"bytes {first}-{last}/{size}"
        assert answer.fields["content-length"] == str(last + 1 - first)
        assert answer.fields["content-type"] == "image/x-test"

    @pytest.mark.parametrize(
        ("name", "wanted", "size"),
        [
            ("small", "bytes=100-", 100),
            ("small", "bytes=100-200", 100),
            ("small", "bytes=-0", 100),
            ("empty", "bytes=0-", 0),
            ("below/large", f"bytes={3 * MIB}-", 3 * MIB),
        ],
    )
    def test_nothing_of_it(self, ask, name, wanted, size):
        answer = ask(name, Range=wanted)
        assert (answer.status, answer.body) == (416, b"")
        assert answer.fields["content-range"] == f"bytes */{size}"
        assert answer.fields["content-length"] == "0"

    @pytest.mark.parametrize(
        "wanted",
        ["bytes=0-1,5-6", "bytes=5-2", "lines=0-1", "bytes=", "bytes=-", "bytes=a-b", "0-5", "x"],
    )
    def test_what_is_not_one_range_is_the_whole_file(self, ask, wanted):
        answer = ask("small", Range=wanted)
        assert (answer.status, answer.body) == (200, LARGE[:100])
        assert "content-range" not in answer.fields

    DATE = "Mon, 02 Jan 2023 10:00:00 GMT"

    @pytest.mark.parametrize(
        ("condition", "status"),
        [
            ('"v1"', 206),
            ('"v2"', 200),
            ("W/", 200),
            (DATE, 206),
            ("Mon, 02 Jan 2023 10:00:01 GMT", 200),
        ],
    )
    def test_it_holds_for_the_version_that_the_client_has(self, ask, condition, status):
        fields = [("ETag", '"v1"'), ("Last-Modified", self.DATE)]
        answer = ask("small", fields, Range="bytes=0-4", If_Range=condition)
        assert answer.status == status
        assert answer.fields["etag"] == '"v1"'

    @pytest.mark.parametrize("condition", ['W/"v1"', '"v1"'])
    def test_a_weak_validator_is_none(self, ask, condition):
        answer = ask("small", [("ETag", 'W/"v1"')], Range="bytes=0-4", If_Range=condition)
        assert (answer.status, answer.body) == (200, LARGE[:100])

    def test_a_validator_that_the_response_does_not_have(self, ask):
        assert ask("small", Range="bytes=0-4", If_Range='"v1"').status == 200

    @pytest.mark.parametrize("method", ["POST", "HEAD"])
    def test_another_method_has_no_range(self, ask, method):
        assert ask("small", method=method, Range="bytes=0-4").status == 200

    def test_another_status_has_no_range(self, ask):
        assert ask("small", status="404 Not Found", Range="bytes=0-4").body == LARGE[:100]

    def test_an_application_that_has_said_it_takes_none_says_so_once(self, ask):
        answer = ask("small", [("Accept-Ranges", "none")], Range="bytes=0-4")
        assert answer.fields["accept-ranges"] in ("none", "bytes")
