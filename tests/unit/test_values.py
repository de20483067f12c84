"""Option values: text and native values in, one value out, one line shown.

The bounds are columns of the table: ``test_options``.
"""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpulse import values
from gpulse.options import BY_NAME


def reason(parse: Any, raw: object) -> str:
    """Why it is refused: one line that says what is right and has no control character."""
    with pytest.raises(ValueError, match=r".") as refusal:
        parse(raw)
    text = str(refusal.value)
    assert text.isprintable(), text
    return text


STRANGE: list[object] = [b"x", object(), 1j, None, {"a": 1}, {1}, float("nan")]


class TestSize:
    @pytest.mark.parametrize(
        ("raw", "value"),
        [
            ("0", 0),
            ("65536", 65_536),
            ("64k", 65_536),
            ("64K", 65_536),
            ("64kb", 65_536),
            ("64KB", 65_536),
            ("64b", 64),
            (" 10m ", 10_485_760),
            ("1g", 2**30),
            ("007", 7),
            (5, 5),
            (-5, -5),  # for the bounds
            (2**60, 2**60),
        ],
    )
    def test_read(self, raw: object, value: int) -> None:
        assert values.size(raw) == value

    @pytest.mark.parametrize(
        "raw",
        [
            "",
            " ",
            "k",
            "1.5m",
            "1 m",
            "-1",
            "+1",
            "1t",
            "64kib",
            "0x10",
            "\xb2",
            "1e6",
            "1k\n1",
            "9" * 19,
            True,
            False,
            1.0,
            [],
            ["64k"],
            *STRANGE,
        ],
    )
    def test_refused(self, raw: object) -> None:
        assert reason(values.size, raw).startswith("must be a number of bytes")

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (0, "0"),
            (1, "1"),
            (1023, "1023"),
            (1024, "1k"),
            (1536, "1536"),
            (8190, "8190"),
            (65_536, "64k"),
            (3 * 2**20, "3m"),
            (2**30, "1g"),
            (2**50, "1048576g"),
            (None, "none"),
            (True, "true"),
            ("64q", "64q"),
        ],
    )
    def test_shown(self, value: object, shown: str) -> None:
        assert values.show_size(value) == shown

    @given(st.integers(0, 2**50) | st.integers(0, 2**20).map(lambda number: number * 1024))
    def test_what_is_shown_is_read_as_the_same(self, value: int) -> None:
        assert values.size(values.show_size(value)) == value


class TestUrlPath:
    @pytest.mark.parametrize(
        "raw", ["/", "/-/live", "/a.b~c", "/a%20b", "/a:b@c;d=e,f", "/!$&'()*+", "//", '/"']
    )
    def test_read(self, raw: str) -> None:
        assert values.url_path(raw) == raw

    def test_empty_is_none(self) -> None:
        assert values.url_path("") is None

    @pytest.mark.parametrize(
        "raw",
        [
            "a",
            "live/",
            " /a",
            "/a ",
            "/a b",
            "/a?b",
            "/a#b",
            "/é",
            "/a\n",
            "/a\0",
            "/\x7f",
            "http://x/a",
            True,
            False,
            5,
            [],
            ["/a"],
            *STRANGE,
        ],
    )
    def test_refused(self, raw: object) -> None:
        assert reason(values.url_path, raw) == "must be a path such as /-/live, or none"


class TestServerNames:
    @pytest.mark.parametrize(
        ("raw", "value"),
        [
            ("", ()),
            ([], ()),
            ("a.example=/c.pem", (("a.example", "/c.pem", "/c.pem"),)),
            ("a.example=/c.pem:/k.pem", (("a.example", "/c.pem", "/k.pem"),)),
            ("a.example=/c.pem:", (("a.example", "/c.pem", "/c.pem"),)),
            ("*.A.Example=c", (("*.a.example", "c", "c"),)),
            ("localhost=c", (("localhost", "c", "c"),)),
            ("a=/x=y", (("a", "/x=y", "/x=y"),)),
            ("a=b,c=d:e", (("a", "b", "b"), ("c", "d", "e"))),
            ("a=b c=d:e", (("a", "b", "b"), ("c", "d", "e"))),
            (["a=b", "c=d:e"], (("a", "b", "b"), ("c", "d", "e"))),
            (("a=b",), (("a", "b", "b"),)),
        ],
    )
    def test_read(self, raw: object, value: object) -> None:
        assert values.server_names(raw) == value

    @pytest.mark.parametrize(
        "raw",
        [
            "a",
            "a=",
            "=c",
            "a=:k",
            "*=c",
            "*.*.a=c",
            "a.*=c",
            "a..b=c",
            ".a=c",
            "a.=c",
            "a_b/c=d",
            "ä=c",
            "a:80=c",
            "a=b,c",
            ["a=b", 5],
            True,
            1.5,
            *STRANGE,
        ],
    )
    def test_refused(self, raw: object) -> None:
        reason(values.server_names, raw)

    def test_a_name_that_is_given_twice_is_a_mistake(self) -> None:
        assert "twice" in reason(values.server_names, "a=b,A=c")

    @given(
        st.lists(
            st.tuples(
                st.from_regex(r"(\*\.)?[a-z0-9-]{1,5}(\.[a-z0-9-]{1,5}){0,2}", fullmatch=True),
                st.from_regex(r"/[a-z0-9._=-]{1,8}", fullmatch=True),
                st.from_regex(r"/[a-z0-9._=-]{1,8}", fullmatch=True),
            ),
            min_size=1,
            max_size=4,
            unique_by=lambda row: row[0],
        ).map(tuple)
    )
    def test_what_is_shown_is_read_as_the_same(self, value: object) -> None:
        assert values.server_names(values.show_server_names(value)) == value


class TestSendfileRoots:
    @pytest.mark.parametrize(
        ("raw", "value"),
        [
            ("", ()),
            ("/srv/files", (("", "/srv/files"),)),
            ("/srv/files/", (("", "/srv/files/"),)),
            ("/p/=/srv/files", (("/p/", "/srv/files"),)),
            ("/p=/srv", (("/p", "/srv"),)),
            ("/a=b/=/srv", (("/a=b/", "/srv"),)),
            ("/a,/p=/b", (("", "/a"), ("/p", "/b"))),
            (["/a", "/p=/b"], (("", "/a"), ("/p", "/b"))),
        ],
    )
    def test_read(self, raw: object, value: object) -> None:
        assert values.sendfile_roots(raw) == value

    @pytest.mark.parametrize(
        "raw",
        [
            "srv",
            "./srv",
            "~/srv",
            "p=/srv",
            "=/srv",
            "/p=",
            "/p=srv",
            ["/a", "b"],
            True,
            5,
            *STRANGE,
        ],
    )
    def test_refused(self, raw: object) -> None:
        reason(values.sendfile_roots, raw)

    @pytest.mark.parametrize(
        "path", ["/", "//", "/.", "/./", "/..", "/srv/..", "/a/b/../../", "///"]
    )
    @pytest.mark.parametrize("prefix", ["", "/p/="])
    def test_the_root_of_everything_is_never_meant(self, prefix: str, path: str) -> None:
        assert "not the root" in reason(values.sendfile_roots, prefix + path)

    @pytest.mark.parametrize("raw", ["/srv/\0", "/srv/\x1b[31m", "/p\x07/=/srv", "srv\x07"])
    def test_control_characters_are_refused_and_not_repeated(self, raw: str) -> None:
        reason(values.sendfile_roots, raw)

    def test_a_prefix_that_is_given_twice_is_a_mistake(self) -> None:
        assert "twice" in reason(values.sendfile_roots, "/p/=/a,/p/=/b")

    @given(
        st.lists(
            st.tuples(
                st.just("") | st.from_regex(r"/[a-z0-9./-]{0,8}", fullmatch=True),
                st.from_regex(r"/[a-z0-9-]{1,8}(/[a-z0-9-]{1,8}){0,2}", fullmatch=True),
            ),
            min_size=1,
            max_size=4,
            unique_by=lambda row: row[0] or row[1],
        ).map(tuple)
    )
    def test_what_is_shown_is_read_as_the_same(self, value: object) -> None:
        assert values.sendfile_roots(values.show_sendfile_roots(value)) == value


class TestShownRows:
    """A refusal shows what was given, which may have any shape."""

    @pytest.mark.parametrize("show", [values.show_server_names, values.show_sendfile_roots])
    @pytest.mark.parametrize(
        "raw",
        [(), ("srv",), ("a", "b", "c"), ("ab", "cd"), (("a",),), (5,), ["srv"], "srv", None, 5, {}],
    )
    def test_it_is_one_line(self, show: Any, raw: object) -> None:
        assert show(raw).isprintable()


class TestChoices:
    @pytest.mark.parametrize(
        ("raw", "value"), [("1.2", "1.2"), ("1.3", "1.3"), (1.2, "1.2"), (1.3, "1.3")]
    )
    def test_a_version_of_tls(self, raw: object, value: str) -> None:
        assert values.tls_version(raw) == value

    @pytest.mark.parametrize(
        "raw", ["", "1.1", "1.0", "1", "TLSv1.2", "1.20", " 1.2", 1, 1.1, True, [], *STRANGE]
    )
    def test_what_is_none(self, raw: object) -> None:
        assert reason(values.tls_version, raw) == "must be 1.2 or 1.3"

    @pytest.mark.parametrize(
        ("raw", "value"),
        [("off", "off"), ("optional", "optional"), ("required", "required"), (False, "off")],
    )
    def test_certificates_of_clients(self, raw: object, value: str) -> None:
        assert values.client_certificates(raw) == value

    @pytest.mark.parametrize("raw", ["", "on", "Off", "require", True, 0, 1, [], *STRANGE])
    def test_what_they_are_not(self, raw: object) -> None:
        assert reason(values.client_certificates, raw) == "must be off, optional or required"


class TestNumbers:
    @pytest.mark.parametrize(
        ("raw", "value"), [("5", 5), (" 5 ", 5), ("+5", 5), ("-5", -5), (5, 5)]
    )
    def test_a_whole_number(self, raw: object, value: int) -> None:
        assert values.number(raw) == value

    @pytest.mark.parametrize(
        "raw", ["", "5.0", "5k", "0x5", "5_0", "\xb2", "٣", "9" * 19, True, 5.0, [], *STRANGE]
    )
    def test_what_is_none(self, raw: object) -> None:
        assert reason(values.number, raw) == "must be a whole number"

    @pytest.mark.parametrize(
        ("raw", "value"), [("5", 5.0), ("0.25", 0.25), (" 1e1 ", 10.0), (5, 5.0), (0.5, 0.5)]
    )
    def test_seconds(self, raw: object, value: float) -> None:
        assert values.seconds(raw) == value

    @pytest.mark.parametrize(
        "raw", ["", "5s", "nan", "inf", "-inf", "1e999", 10**400, True, [], *STRANGE]
    )
    def test_what_they_are_not(self, raw: object) -> None:
        assert reason(values.seconds, raw) == "must be a number of seconds"


class TestShowPlain:
    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (None, "none"),
            (True, "true"),
            (False, "false"),
            (5, "5"),
            (2.50, "2.5"),
            ("a", "a"),
            ("", "''"),
            ("a b", "'a b'"),
            ("a\nb", r"'a\nb'"),
            ((), "none"),
            (("a", "b"), "a,b"),
            (["a", 5], "a,5"),
        ],
    )
    def test_one_line(self, value: object, shown: str) -> None:
        assert values.show_plain(value) == shown

    @given(st.text() | st.lists(st.text()) | st.floats() | st.binary())
    def test_whatever_it_is(self, value: object) -> None:
        assert values.show_plain(value).isprintable()

    def test_it_is_not_long(self) -> None:
        assert len(values.show_plain("a" * 10_000)) < 300


@pytest.mark.parametrize("mode", ["0", "7", "27", "027", "0o27", "777", "7777"])
def test_a_mode_that_is_shown_is_read_as_the_same(mode: str) -> None:
    value = values.file_mode(mode)
    assert re.fullmatch("[0-7]{3,4}", values.show_mode(value))
    assert values.file_mode(values.show_mode(value)) == value


class TestNone:
    """The word stands for no value where an empty variable would count as not set."""

    @pytest.mark.parametrize("name", ["trusted_proxies", "forwarded_headers"])
    def test_it_empties_a_list(self, name):
        option = BY_NAME[name]
        assert option.check("none") == ()
        assert option.show(()) == "none"

    @pytest.mark.parametrize("name", ["live_path", "ready_path"])
    def test_it_turns_a_path_off(self, name):
        option = BY_NAME[name]
        assert option.check("none") is None
        assert option.show(None) == "none"
