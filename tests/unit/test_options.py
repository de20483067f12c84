"""The option table: what each row takes and refuses, and that its columns agree."""

import dataclasses
from typing import Any

import pytest

from gpulse import cpus, options, values
from gpulse.config import Config
from gpulse.options import BY_NAME, OPTIONS, SETTABLE
from gpulse.scoreboard import SLOTS


def test_the_configuration_has_exactly_the_rows_that_can_be_set() -> None:
    fields = [field.name for field in dataclasses.fields(Config)]
    assert fields[:-2] == sorted(fields[:-2], key=[row.name for row in SETTABLE].index)
    assert set(fields) - {"origins", "notes"} == {row.name for row in SETTABLE}


def test_no_flag_or_name_is_used_twice() -> None:
    flags = [flag for row in OPTIONS for flag in row.flags]
    assert len(flags) == len(set(flags))
    assert len(BY_NAME) == len(OPTIONS)


def test_each_row_is_in_a_known_group_and_its_help_is_half_a_sentence() -> None:
    for row in OPTIONS:
        assert row.group in options.GROUPS, row.name
        assert row.help[0].islower(), row.name
        assert not row.help.endswith("."), row.name


def test_each_default_is_accepted_by_its_own_row() -> None:
    for row in OPTIONS:
        if row.default is not None:
            assert row.check(row.default) == row.default, row.name


def test_the_limit_of_workers_is_half_the_scoreboard() -> None:
    assert values.MAX_WORKERS == SLOTS // 2


ACCEPTED: list[tuple[str, object, object]] = [
    ("workers", "4", 4),
    ("workers", 4, 4),
    ("greenlet", "200", 200),
    ("greenlet", True, 100),
    ("greenlet", False, None),
    ("timeout", "2.5", 2.5),
    ("timeout", 0, 0.0),
    ("umask", "027", 0o27),
    ("umask", "0o27", 0o27),
    ("umask", 0o27, 0o27),
    ("umask", "", None),
    ("reload", "yes", True),
    ("reload", "0", False),
    ("reload", True, True),
    ("log_level", "INFO", "info"),
    ("access_log", "-", "-"),
    ("access_log", "", None),
    ("user", 33, "33"),
    ("user", "www-data", "www-data"),
    ("bind", ":80", (":80",)),
    ("bind", "127.0.0.1:80, [::1]:80", ("127.0.0.1:80", "[::1]:80")),
    ("bind", ["unix:/run/a.sock", ":80"], ("unix:/run/a.sock", ":80")),
    ("bind", 8000, ("8000",)),
    ("data_store", "embedded", "embedded"),
    ("data_store", "memory://", "memory://"),
    ("data_store", "redis://127.0.0.1:6379/3", "redis://127.0.0.1:6379/3"),
    ("settings", "mysite.settings", "mysite.settings"),
    ("app", "mysite.wsgi:application", "mysite.wsgi:application"),
    ("app", "mysite.wsgi.application", "mysite.wsgi.application"),
    ("app", "mysite.wsgi:make()", "mysite.wsgi:make()"),
    ("pulse_app_name", "my-site.2", "my-site.2"),
    ("limit_request_body", "10m", 10 * 2**20),
    ("limit_request_body", "0", 0),
    ("limit_request_body", "1048576g", 2**50),
    ("max_connection_requests", "0", 0),
    ("spool_directory", "", None),
    ("spool_directory", "/var/spool", "/var/spool"),
    ("request_timeout", "30,/reports/=300", (("", 30.0), ("/reports/", 300.0))),
    ("request_timeout", {"default": 30, "/a": 0}, (("", 30.0), ("/a", 0.0))),
    ("trusted_proxies", "", ()),
    ("trusted_proxies", "10.0.0.0/8,unix", ("10.0.0.0/8", "unix")),
    ("forwarded_headers", "Forwarded", ("forwarded",)),
    ("tls_sni", "a.example=/c:/k", (("a.example", "/c", "/k"),)),
    ("tls_minimum_version", 1.3, "1.3"),
    ("tls_client_certificates", False, "off"),
    ("sendfile_root", "/p/=/srv", (("/p/", "/srv"),)),
    ("live_path", "", None),
    ("ready_path", "/healthz", "/healthz"),
    ("access_log_format", "json", "json"),
    ("request_id", "on", True),
]


@pytest.mark.parametrize(("name", "raw", "value"), ACCEPTED)
def test_accepted(name: str, raw: object, value: object) -> None:
    assert BY_NAME[name].check(raw) == value
    assert type(BY_NAME[name].check(raw)) is type(value)


REFUSED: list[tuple[str, Any, str]] = [
    ("workers", "0", "must be 1 or more"),
    ("workers", "513", "must be 512 or less"),
    ("workers", "many", "must be a whole number, or auto for one per CPU"),
    ("workers", True, "must be a whole number, or auto for one per CPU"),
    ("workers", 1.5, "must be a whole number, or auto for one per CPU"),
    ("greenlet", "0", "must be 1 or more"),
    ("greenlet", "100001", "must be 100000 or less"),
    ("thread_workers", "", "must be a whole number"),
    ("thread_workers", "9" * 5000, "must be a whole number"),
    ("timeout", "-1", "must be 0 or more"),
    ("timeout", "nan", "must be a number of seconds"),
    ("timeout", "inf", "must be a number of seconds"),
    ("timeout", True, "must be a number of seconds"),
    ("timeout", 10**400, "must be a number of seconds"),
    ("boot_timeout", "0", "must be 0.1 or more"),
    ("umask", "8", "must be an octal number such as 027"),
    ("umask", "7777", "must be 777 or less"),
    ("reload", "maybe", "must be true or false"),
    ("log_level", "loud", "must be one of debug, info, warning, error"),
    ("pid_file", "a\nb", "must be one line of text"),
    ("pid_file", 5, "must be one line of text"),
    ("bind", [], "must name at least one address such as 127.0.0.1:8060"),
    ("bind", {}, "must be an address or a list of addresses"),
    ("bind", ":80 :80", "names :80 twice"),
    ("settings", "my-site", "must be a dotted module name such as mysite.settings"),
    ("app", "mysite.wsgi:", "must be MODULE:ATTRIBUTE such as mysite.wsgi:application"),
    ("app", "mysite/wsgi.py", "must be MODULE:ATTRIBUTE such as mysite.wsgi:application"),
    ("pulse_app_name", "a b", "must be 1 to 64 letters, digits, dots, dashes or underscores"),
    ("data_store", "", "must be embedded or a URL such as redis://127.0.0.1:6379/0"),
    ("limit_request_line", "63", "must be 64 or more"),
    ("limit_request_line", "65537", "must be 64k or less"),
    ("limit_request_head", "2m", "must be 1m or less"),
    ("limit_request_body", "-1", "must be a number of bytes, such as 65536, 64k, 10m or 1g"),
    ("limit_request_body", -1, "must be 0 or more"),
    ("spool_threshold", 1023, "must be 1k or more"),
    ("spool_directory", "a\nb", "must be one line of text"),
    ("max_connections", "0", "must be 1 or more"),
    ("max_queued", "many", "must be a whole number"),
    ("body_timeout", "0", "must be 0.1 or more"),
    ("write_min_rate", "fast", "must be a number of bytes, such as 65536, 64k, 10m or 1g"),
    ("request_timeout", "-1", "must be from 0 to 86400 seconds"),
    ("tls_minimum_version", "1.1", "must be 1.2 or 1.3"),
    ("tls_client_certificates", "yes", "must be off, optional or required"),
    ("live_path", "live", "must be a path such as /-/live, or none"),
    (
        "sendfile_root",
        "/",
        "/: must name a directory from the root, and not the root",
    ),
]


@pytest.mark.parametrize(("name", "raw", "reason"), REFUSED)
def test_refused(name: str, raw: object, reason: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        BY_NAME[name].check(raw)
    assert str(refusal.value) == reason


@pytest.mark.parametrize("name", [row.name for row in SETTABLE])
@pytest.mark.parametrize("raw", [b"x", object(), {"a": 1}, 1j])
def test_a_value_of_a_strange_type_is_refused_and_never_a_stack_trace(
    name: str, raw: object
) -> None:
    with pytest.raises(ValueError, match=r"must (be|begin) "):
        BY_NAME[name].check(raw)
    assert BY_NAME[name].show(raw).isprintable()


BOUNDED = [row.name for row in SETTABLE if row.low is not None]


def test_every_number_has_both_bounds() -> None:
    for row in SETTABLE:
        assert (row.low is None) is (row.high is None), row.name
        if type(row.default) in (int, float):
            assert row.low is not None, row.name


@pytest.mark.parametrize("name", BOUNDED)
def test_a_bound_is_allowed_and_what_lies_beyond_it_is_not(name: str) -> None:
    row = BY_NAME[name]
    assert row.low is not None
    assert row.high is not None
    whole = type(row.check(row.default if row.default is not None else row.low)) is int
    step = 1 if whole else 0.01
    low, high = (int(row.low), int(row.high)) if whole else (row.low, row.high)
    assert (row.check(low), row.check(high)) == (low, high)
    for raw, side in ((low - step, "more"), (high + step, "less")):
        with pytest.raises(ValueError, match=rf"^must be \S+ or {side}$") as refusal:
            row.check(raw)
        bound = low if side == "more" else high
        assert row.show(bound) in str(refusal.value)


@pytest.mark.parametrize("name", BOUNDED)
def test_a_bound_can_be_said_as_text_as_it_is_shown(name: str) -> None:
    row = BY_NAME[name]
    for bound in (row.low, row.high):
        assert bound is not None
        value = row.check(int(bound) if bound == int(bound) else bound)
        assert row.check(row.show(value)) == value


@pytest.mark.parametrize("row", [row for row in SETTABLE if row.default], ids=lambda row: row.name)
def test_a_default_that_is_shown_is_read_as_the_same(row: options.Option) -> None:
    assert row.check(row.show(row.default)) == row.default


@pytest.mark.parametrize(
    "row",
    [row for row in SETTABLE if row.default is None and row.low is None],
    ids=lambda r: r.name,
)
def test_an_option_that_has_none_can_be_taken_back(row: options.Option) -> None:
    """By an empty text, where a weaker source has set it."""
    assert row.check("") is None


@pytest.mark.parametrize(
    "row", [row for row in SETTABLE if row.default == ()], ids=lambda r: r.name
)
def test_so_can_a_list(row: options.Option) -> None:
    assert row.check("") == ()
    assert row.check([]) == ()
    assert row.show(()) == "none"


@pytest.mark.parametrize("name", [row.name for row in SETTABLE if row.repeatable])
def test_what_may_be_repeated_is_a_list_or_a_text_with_commas(name: str) -> None:
    words = {
        "bind": (":1", ":2"),
        "request_timeout": ("5", "/a=6"),
        "trusted_proxies": ("10.0.0.0/8", "192.0.2.1"),
        "forwarded_headers": ("x-forwarded-for", "x-forwarded-host"),
        "tls_sni": ("a=/b", "c=/d:/e"),
        "sendfile_root": ("/a", "/p/=/b"),
        "history": ("room:*=100/300", "*=10/60"),
    }[name]
    value = BY_NAME[name].check(list(words))
    assert value == BY_NAME[name].check(",".join(words))
    assert value == BY_NAME[name].check(" ".join(words))
    assert len(value) == 2


def test_help_says_the_unit_of_every_number() -> None:
    for row in SETTABLE:
        if row.low is not None and row.name != "umask":
            assert row.unit, row.name


def test_a_bad_address_says_which_and_what_is_right() -> None:
    with pytest.raises(ValueError, match=r"^has no port; write HOST:PORT"):
        BY_NAME["bind"].check("localhost")
    with pytest.raises(ValueError, match=r"^localhost has no port; write HOST:PORT"):
        BY_NAME["bind"].check([":80", "localhost"])


def test_auto_counts_cpus_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "available", lambda: 6)
    assert BY_NAME["workers"].check("auto") == 6
    monkeypatch.setattr(cpus, "available", lambda: 6000)
    assert BY_NAME["workers"].check("auto") == values.MAX_WORKERS


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("umask", 0o27, "027"),
        ("umask", None, "none"),
        ("timeout", 30.0, "30"),
        ("bind", (":80", ":81"), ":80,:81"),
        ("pid_file", "a b\n", r"'a b\n'"),
        ("pid_file", "", "''"),
        ("reload", False, "false"),
        ("data_store", "embedded", "embedded"),
        ("limit_request_body", 2**30, "1g"),
        ("limit_request_line", 8190, "8190"),
        ("request_timeout", (("", 30.0), ("/a", 0.5)), "30,/a=0.5"),
        ("tls_sni", (("a", "/c", "/k"),), "a=/c:/k"),
        ("sendfile_root", (("", "/srv"), ("/p/", "/a")), "/srv,/p/=/a"),
        ("live_path", None, "none"),
    ],
)
def test_values_are_shown_on_one_line(name: str, value: object, shown: str) -> None:
    assert BY_NAME[name].show(value) == shown


@pytest.mark.parametrize(
    "url", ["redis://u:secret@h:1/0", "redis://:secret@h:x", "secret", "rediss://:sec/secret@h"]
)
def test_a_password_is_never_shown(url: str) -> None:
    assert "secret" not in BY_NAME["data_store"].show(url)
