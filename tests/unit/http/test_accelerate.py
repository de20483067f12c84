"""What X-Sendfile and X-Accel-Redirect name, and which part of it a Range asks for.

Whole requests: ``tests/contract/test_files.py``.
"""

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpulse.http.accelerate import FileRoots, chosen_range, open_file, range_is_wanted

PATHS = FileRoots((("", "/srv/files"), ("", "/srv/media/")))
URLS = FileRoots((("/p/", "/srv/files"), ("/p/deep/", "/srv/deep"), ("/q", "/srv/q")))
BOTH = FileRoots((("", "/srv/files"), ("/p/", "/srv/protected")))


class TestTake:
    @pytest.mark.parametrize(
        ("roots", "name", "value", "found"),
        [
            (PATHS, "X-Sendfile", "/srv/files/a", ("/srv/files", "a")),
            (PATHS, "x-sendfile", "/srv/files/a/b c", ("/srv/files", "a/b c")),
            (PATHS, "X-SENDFILE", "/srv/media/a", ("/srv/media/", "a")),
            (PATHS, "X-Sendfile", "/srv/files/%41?b", ("/srv/files", "%41?b")),
            (PATHS, "X-Sendfile", "/srv/filesystem/a", ("", "")),
            (PATHS, "X-Sendfile", "/srv/files", ("", "")),
            (PATHS, "X-Sendfile", "files/a", ("", "")),
            (PATHS, "X-Sendfile", "", ("", "")),
            (URLS, "X-Accel-Redirect", "/p/a", ("/srv/files", "a")),
            (URLS, "X-Accel-Redirect", "/p/deep/a", ("/srv/deep", "a")),
            (URLS, "X-Accel-Redirect", "/p/deeper", ("/srv/files", "deeper")),
            (URLS, "X-Accel-Redirect", "/p/%61%2Fb?c=/p/d", ("/srv/files", "a/b")),
            (URLS, "X-Accel-Redirect", "/p/a%3Fb", ("/srv/files", "a?b")),
            (URLS, "X-Accel-Redirect", "/p/%C3%A9", ("/srv/files", "é")),
            (URLS, "X-Accel-Redirect", "/p/%ff", ("/srv/files", "\udcff")),
            (URLS, "X-Accel-Redirect", "/q/a", ("/srv/q", "a")),
            (URLS, "X-Accel-Redirect", "/%70/a", ("/srv/files", "a")),
            (URLS, "X-Accel-Redirect", "/P/a", ("", "")),
            (URLS, "X-Accel-Redirect", "http://x/p/a", ("", "")),
            (BOTH, "X-Sendfile", "/p/a", ("", "")),
            (BOTH, "X-Accel-Redirect", "/srv/files/a", ("", "")),
            (BOTH, "X-Accel-Redirect", "/p/a", ("/srv/protected", "a")),
        ],
    )
    def test_a_file_is_a_directory_and_a_path_below_it(self, roots, name, value, found):
        assert roots.take([("A", "b"), (name, value)]) == ([("A", "b")], *found)

    def test_the_path_is_never_one_from_the_root(self):
        """It would replace the directory where the two are joined."""
        for value in ("/srv/files//etc/passwd", "/srv/files///a"):
            assert not PATHS.take([("X-Sendfile", value)])[2].startswith("/")
        for value in ("/p//etc/passwd", "/p/%2Fetc/passwd", "/q//etc/passwd"):
            assert not URLS.take([("X-Accel-Redirect", value)])[2].startswith("/")

    @pytest.mark.parametrize(
        ("roots", "headers"),
        [
            (PATHS, []),
            (PATHS, [("Content-Length", "3")]),
            (PATHS, [("X-Accel-Redirect", "/p/a")]),
            (URLS, [("X-Sendfile", "/srv/files/a")]),
            (FileRoots(()), [("X-Sendfile", "/srv/files/a"), ("X-Accel-Redirect", "/p/a")]),
        ],
    )
    def test_no_file_is_named(self, roots, headers):
        assert roots.take(headers) is None

    def test_what_concerned_the_replaced_body_is_gone_and_all_else_is_kept(self):
        headers = [
            ("Content-Type", "a/b"),
            ("Set-Cookie", "a"),
            ("content-length", "0"),
            ("X-Accel-Redirect", "/p/a"),
            ("X-Sendfile", "/srv/files/b"),
            ("Set-Cookie", "b"),
            ("ETag", '"e"'),
        ]
        before = list(headers)
        kept, directory, path = BOTH.take(headers)
        assert [name for name, _ in kept] == ["Content-Type", "Set-Cookie", "Set-Cookie", "ETag"]
        assert (directory, path) == ("/srv/protected", "a")  # the first that is named
        assert headers == before  # the application's own list

    @pytest.mark.parametrize(
        ("roots", "directory"),
        [
            ((("", "/srv"), ("", "/srv/files")), "/srv/files"),
            ((("", "/srv/files"), ("", "/srv")), "/srv/files"),
        ],
    )
    def test_the_longest_root_of_a_path_counts(self, roots, directory):
        """It may be a link to elsewhere, which the shorter one does not allow."""
        assert FileRoots(roots).take([("X-Sendfile", "/srv/files/a")])[1:] == (directory, "a")

    def test_without_roots_it_is_false(self):
        assert not FileRoots(())
        assert PATHS
        assert URLS


@pytest.fixture
def root(tmp_path):
    directory = tmp_path / "root"
    (directory / "below").mkdir(parents=True)
    (directory / "file").write_bytes(b"content")
    (directory / "below" / "file").write_bytes(b"below")
    (directory / "inner").symlink_to("below/file")
    (directory / "absolute").symlink_to(directory / "file")
    (directory / "outer").symlink_to("../secret")
    (directory / "parent").symlink_to("..")
    (directory / "loop").symlink_to("loop")
    (directory / "dangling").symlink_to("none")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2" / "file").write_bytes(b"secret")
    (tmp_path / "alias").symlink_to("root")
    return directory


class TestOpenFile:
    @pytest.mark.parametrize(
        ("path", "content"),
        [
            ("file", b"content"),
            ("below/file", b"below"),
            ("below/../file", b"content"),
            ("./below//file", b"below"),
            ("inner", b"below"),
            ("absolute", b"content"),
            ("parent/root/file", b"content"),
        ],
    )
    def test_what_lies_below(self, root, path, content):
        with open_file(str(root), path) as file:
            assert file.read() == content
            assert not os.get_inheritable(file.fileno())

    @pytest.mark.parametrize("directory", ["alias", "root/", "root/below/..", "root/parent/root"])
    def test_the_directory_may_be_a_link(self, root, directory):
        with open_file(str(root.parent / directory), "file") as file:
            assert file.read() == b"content"

    @pytest.mark.parametrize(
        "path",
        [
            "",
            ".",
            "below",
            "..",
            "../secret",
            "../root2/file",
            "below/../../secret",
            "/etc/passwd",
            "outer",
            "parent/secret",
            "loop",
            "dangling",
            "none",
            "file/x",
            "file\0",
            "\0",
            "n" * 300,
            "n/" * 5000,
            "\udcff",
        ],
    )
    def test_what_does_not(self, root, path):
        with pytest.raises(OSError, match=r"."):
            open_file(str(root), path).close()

    def test_what_is_no_regular_file_does_not_hold_anybody_up(self, root):
        os.mkfifo(root / "pipe")  # nobody writes to it
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(root / "socket"))
        for name in ("pipe", "socket"):
            with pytest.raises(OSError, match=r"."):
                open_file(str(root), name)
        listener.close()

    def test_a_root_that_is_not_there(self, root):
        with pytest.raises(FileNotFoundError):
            open_file(str(root / "none"), "file")

    def test_text_that_is_no_file_name_at_all(self, root):
        """Half a surrogate pair cannot be a name on a disk: a 404 like any other, and no fault."""
        with pytest.raises(OSError, match=r"."):
            open_file(str(root), "\ud800")


class TestRange:
    @pytest.mark.parametrize(
        ("text", "size", "chosen"),
        [
            ("bytes=0-0", 10, (0, 1)),
            ("bytes=2-4", 10, (2, 3)),
            ("bytes=2-", 10, (2, 8)),
            ("bytes=-3", 10, (7, 3)),
            ("bytes=-30", 10, (0, 10)),
            ("bytes=9-9", 10, (9, 1)),
            ("bytes=9-99", 10, (9, 1)),
            ("BYTES=1-2", 10, (1, 2)),
            (" bytes=1-2 ", 10, (1, 2)),
            ("bytes=" + "9" * 18 + "-", 10**18 + 5, (int("9" * 18), 6)),
        ],
    )
    def test_one(self, text, size, chosen):
        assert chosen_range(text, size) == chosen

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=4-2",
            "bytes=40-20",
            "bytes=0-1,3-4",
            "bytes=0-1, 3-4",
            "bytes=a-",
            "bytes=+1-2",
            "bytes=1-2-3",
            "bytes=--1",
            "bytes = 1-2",
            "bytes=1 - 2",
            "bytes=\xb2-",
            "bytes=" + "9" * 19 + "-",
            "bytes=" + "9" * 10_000 + "-",
            "items=1-2",
        ],
    )
    def test_none_that_is_understood(self, text):
        assert chosen_range(text, 10) is None

    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("bytes=10-", 10),
            ("bytes=10-20", 10),
            ("bytes=-0", 10),
            ("bytes=0-", 0),
            ("bytes=-5", 0),
        ],
    )
    def test_none_of_the_file(self, text, size):
        with pytest.raises(ValueError, match="range"):
            chosen_range(text, size)

    @given(
        first=st.integers(0, 50) | st.none(),
        last=st.integers(0, 50) | st.none(),
        size=st.integers(0, 30),
    )
    def test_it_is_what_the_rfc_says_of_a_list_of_bytes(self, first, last, size):
        content = list(range(size))
        text = f"bytes={'' if first is None else first}-{'' if last is None else last}"
        if first is None:
            wanted = [] if last is None else content[max(0, size - last) :]
        else:
            wanted = content[first : None if last is None else last + 1]
        try:
            chosen = chosen_range(text, size)
        except ValueError:
            assert wanted == []
            return
        if chosen is None:
            assert (first is None and last is None) or (first is not None and last < first)
            return
        start, length = chosen
        assert content[start : start + length] == wanted
        assert length > 0


class TestCondition:
    HEADERS = [("ETag", '"v1"'), ("Last-Modified", "Mon, 02 Jan 2023 10:00:00 GMT"), ("X", '"x"')]

    @pytest.mark.parametrize(
        ("condition", "wanted"),
        [
            (None, True),
            ('"v1"', True),
            ('"V1"', False),
            ("v1", False),
            ('W/"v1"', False),
            ('"x"', False),
            ("Mon, 02 Jan 2023 10:00:00 GMT", True),
            ("Mon, 02 Jan 2023 09:00:00 GMT", False),
            ("", False),
        ],
    )
    def test_a_range_is_for_the_version_that_is_named(self, condition, wanted):
        fields = {} if condition is None else {"HTTP_IF_RANGE": condition}
        assert range_is_wanted(fields, self.HEADERS) is wanted

    def test_a_weak_etag_holds_for_no_range(self):
        assert not range_is_wanted({"HTTP_IF_RANGE": 'W/"v1"'}, [("etag", 'W/"v1"')])

    def test_a_response_that_names_no_version(self):
        assert range_is_wanted({}, [])
        assert not range_is_wanted({"HTTP_IF_RANGE": '"v1"'}, [])
