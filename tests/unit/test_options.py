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
    with pytest.raises(ValueError, match=r"must be "):
        BY_NAME[name].check(raw)


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
    ],
)
def test_values_are_shown_on_one_line(name: str, value: object, shown: str) -> None:
    assert BY_NAME[name].show(value) == shown


@pytest.mark.parametrize(
    "url", ["redis://u:secret@h:1/0", "redis://:secret@h:x", "secret", "rediss://:sec/secret@h"]
)
def test_a_password_is_never_shown(url: str) -> None:
    assert "secret" not in BY_NAME["data_store"].show(url)
