"""Times by path: what is read, refused and shown, and which prefix decides."""

import math
import re

import pytest

from gpulse.paths import (
    LONGEST_DEADLINE,
    MAX_PREFIX_LENGTH,
    MAX_PREFIXES,
    Deadlines,
    parse_deadlines,
    show_deadlines,
)

MANY = ",".join(f"/{number}=1" for number in range(MAX_PREFIXES))


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("", ()),
        ("30", (("", 30.0),)),
        (" 2.5 ", (("", 2.5),)),
        (0, (("", 0.0),)),
        (30, (("", 30.0),)),
        ("/export=0", (("/export", 0.0),)),
        ("/reports/=300,30,/export=0", (("", 30.0), ("/reports/", 300.0), ("/export", 0.0))),
        ("30 /a=1\n/b=2", (("", 30.0), ("/a", 1.0), ("/b", 2.0))),
        (["30", "/a=1,/b=2", "/c=3"], (("", 30.0), ("/a", 1.0), ("/b", 2.0), ("/c", 3.0))),
        ([30, "/a=1"], (("", 30.0), ("/a", 1.0))),
        ({"default": 30, "/a": "1", "/b/": 2.5}, (("", 30.0), ("/a", 1.0), ("/b/", 2.5))),
        ({"/a": 1}, (("/a", 1.0),)),
        ({}, ()),
        ([], ()),
        ("/a=b=3", (("/a=b", 3.0),)),
        ("/=5", (("/", 5.0),)),
        (f"{LONGEST_DEADLINE:g}", (("", LONGEST_DEADLINE),)),
    ],
)
def test_what_is_read(raw, value):
    assert parse_deadlines(raw) == value


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("soon", "must be SECONDS or /PREFIX=SECONDS"),
        ("/a=", "must be SECONDS"),
        ("/a", "must be SECONDS"),
        ("nan", "must be SECONDS"),
        ("1e400", "must be SECONDS"),
        (math.inf, "must be SECONDS"),
        (10**400, "must be SECONDS"),
        (True, "must be SECONDS"),
        (None, "must be SECONDS"),
        (["30", ["/a=1"]], "must be a list of texts"),
        ([{"/a": 1}], "must be a list of texts"),
        ({"/a": {"x": 1}}, "must be SECONDS"),
        ({"/a": True}, "must be SECONDS"),
        (-1, "must be from 0 to 86400 seconds"),
        ("/a=86400.5", "must be from 0 to 86400 seconds"),
        ("reports=5", "'reports' must be a path"),
        ("=5", "'' must be a path"),
        ({"reports": 5}, "'reports' must be a path"),
        ({"/a b": 5}, "'/a b' must be a path"),
        ({"/a,b": 5}, "'/a,b' must be a path"),
        ("/a?x=5", "'/a?x' must be a path"),
        ({"/a\x7f": 5}, r"'/a\x7f' must be a path"),
        ("/" + "a" * MAX_PREFIX_LENGTH + "=1", "longer than 200 characters"),
        ("30,40", "has two times for all paths"),
        ("/a=1,/a=1", "names /a twice"),
        ("/a=1,/%61=1", "names /%61 twice"),
        (MANY + ",30,/more=1", "may have at most 100 prefixes"),
    ],
)
def test_what_is_refused(raw, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse_deadlines(raw)


def test_as_many_prefixes_as_allowed():
    assert len(parse_deadlines(MANY + ",30")) == MAX_PREFIXES + 1


@pytest.mark.parametrize(
    "text", ["30", "0.25", "30,/reports/=300,/export=0", "/a=b=3", "86399.75,/%C3%BC%2C=1", ""]
)
def test_what_is_shown_can_be_read_again(text):
    value = parse_deadlines(text)
    assert parse_deadlines(show_deadlines(value).replace("none", "")) == value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ((), "none"),
        ((("", 30.0), ("/reports/", 300.0)), "30,/reports/=300"),
        ((("", 12345.678),), "12345.678"),
        ("30,x", "30,x"),
        (["30", "/a=x"], "30,/a=x"),
        ({"default": 30, "a": 1}, "default=30,a=1"),
        (None, "None"),
        ("a\x1b[31m", r"a\x1b[31m"),
        ("9" * 1000, "9" * 200 + "..."),
    ],
)
def test_what_is_shown(value, shown):
    assert show_deadlines(value) == shown


class TestDeadlines:
    @pytest.fixture
    def deadlines(self):
        return Deadlines(
            parse_deadlines("30,/reports=300,/reports/daily/=900,/api/=5,/api/slow=60,/export=0")
        )

    @pytest.mark.parametrize(
        ("path", "seconds"),
        [
            ("/", 30),
            ("", 30),
            ("*", 30),
            ("/other", 30),
            ("/reports", 300),
            ("/reports/", 300),
            ("/reports/x", 300),
            ("/reportsx", 30),
            ("/reports/daily", 300),
            ("/reports/daily/", 900),
            ("/reports/daily/1", 900),
            ("/reports/dailyx", 300),
            ("/api", 30),
            ("/api/", 5),
            ("/api/x", 5),
            ("/api/slow", 60),
            ("/api/slow/x", 60),
            ("/api/slower", 5),
            ("/export", 0),
            ("//reports", 30),
            ("/x/reports", 30),
            ("/Reports", 30),
        ],
    )
    def test_the_longest_prefix_that_matches_decides(self, deadlines, path, seconds):
        assert deadlines.of(path) == seconds

    def test_the_order_does_not_matter(self):
        for text in ("/a=1,/a/b=2,30", "30,/a/b=2,/a=1"):
            deadlines = Deadlines(parse_deadlines(text))
            assert [deadlines.of(path) for path in ("/a", "/a/b", "/c")] == [1, 2, 30]

    def test_the_root_is_everything(self):
        deadlines = Deadlines(parse_deadlines("30,/=5"))
        assert [deadlines.of(path) for path in ("/", "/x", "*")] == [5, 5, 30]

    def test_two_slashes_are_not_the_root(self):
        deadlines = Deadlines(parse_deadlines("//=5"))
        assert [deadlines.of(path) for path in ("/x", "//x")] == [0, 5]

    def test_without_a_number_for_all_the_others_have_no_bound(self):
        assert Deadlines(parse_deadlines("/a=1")).of("/b") == 0

    def test_a_prefix_is_compared_decoded(self):
        deadlines = Deadlines(parse_deadlines("/%C3%BCber/=1,/gr\u00fcn=2,/a%2Cb=3"))
        as_pep_3333 = [text.encode().decode("latin-1") for text in ("/\u00fcber/x", "/gr\u00fcn")]
        assert [deadlines.of(path) for path in [*as_pep_3333, "/a,b"]] == [1, 2, 3]

    @pytest.mark.parametrize(
        ("text", "bounded"),
        [("", False), ("0", False), ("0,/a=0", False), ("30", True), ("0,/a=1", True)],
    )
    def test_it_is_true_where_some_path_may_have_a_bound(self, text, bounded):
        assert bool(Deadlines(parse_deadlines(text))) is bounded
