"""Arguments, the collection of sources and the table, without another process."""

import io
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpulse import __version__, arguments, cli, config
from gpulse.config import Config
from gpulse.errors import FileError, UsageError
from gpulse.options import BY_NAME, OPTIONS, SETTABLE
from gpulse.site import VARIABLE, SiteFacts, hand_over, interpreter, take_over

FACTS = SiteFacts("mysite.settings", {"workers": 3}, "mysite.wsgi.application", True)


def parse(*words: str) -> dict[str, Any]:
    return arguments.given(vars(cli.parser().parse_args(arguments.prepare(words))))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--greenlet", "mysite.wsgi"], ["--greenlet=100", "mysite.wsgi"]),
        (["--greenlet", "5", "mysite.wsgi"], ["--greenlet=5", "mysite.wsgi"]),
        (["--greenlet=5", "x"], ["--greenlet=5", "x"]),
        (["--greenlet"], ["--greenlet=100"]),
        (["--greenlet", "-w", "2"], ["--greenlet=100", "-w", "2"]),
        (["--greenlet", "-5"], ["--greenlet=-5"]),
        (["--greenlet", "1.5"], ["--greenlet=1.5"]),
        (["--", "--greenlet", "x"], ["--", "--greenlet", "x"]),
        ([], []),
    ],
)
def test_a_bare_flag_does_not_take_the_next_word(words: list[str], expected: list[str]) -> None:
    assert arguments.prepare(words) == expected


def test_what_is_not_given_is_not_there() -> None:
    assert parse() == {}
    assert parse("-w", "2", "-b", ":1", "-b", ":2", "mysite.wsgi") == {
        "workers": "2",
        "bind": [":1", ":2"],
        "app": "mysite.wsgi",
    }


def test_a_flag_can_be_taken_back() -> None:
    assert parse("--reload") == {"reload": True}
    assert parse("--no-reload") == {"reload": False}


def test_a_flag_may_not_be_abbreviated() -> None:
    with pytest.raises(UsageError, match=r"^unrecognized arguments: --work"):
        cli.parser().parse_args(["--work", "2"])


def test_every_option_has_an_argument_and_only_the_binary_those_of_django() -> None:
    help_text = cli.parser().format_help()
    for option in OPTIONS:
        assert option.flag in help_text, option.name
    command = arguments.Parser()
    arguments.add_to(command, binary=False)
    assert "--settings" not in command.format_help()
    assert "--version" not in command.format_help()


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "workers": st.sampled_from(["1", "auto"]),
    "greenlet": st.sampled_from(["1", "100"]),
    "bind": st.lists(st.sampled_from([":1", "unix:/a", "[::1]:3"]), min_size=1, unique=True),
    "reload": st.booleans(),
    "access_log": st.sampled_from(["-", "", "a b", "--odd", "=x"]),
    "timeout": st.sampled_from(["-1", "0.5"]),
    "data_store": st.just("redis://u:p@h:1/2"),
    "sendfile_root": st.lists(st.sampled_from(["/a", "/p/=/b", ""]), min_size=1, unique=True),
    "request_timeout": st.lists(st.sampled_from(["5", "/a=6,/b=7"]), min_size=1, unique=True),
    "limit_request_body": st.sampled_from(["10m", "0"]),
    "live_path": st.sampled_from(["", "/a"]),
    "proxy_protocol": st.booleans(),
}


@given(st.fixed_dictionaries({}, optional=VALUES))
def test_rendered_arguments_parse_to_the_same_values(values: dict[str, Any]) -> None:
    assert parse(*arguments.render(values)) == values


def test_collect_asks_the_site_last_and_lets_it_win_over_nothing() -> None:
    sources = cli.collect({"settings": "mysite.settings", "workers": "5"}, {}, FACTS)
    merged = config.resolve(sources)
    assert merged.workers == 5
    assert merged.app == "mysite.wsgi.application"
    assert merged.origin("app") == "WSGI_APPLICATION in mysite.settings"


def test_settings_come_from_django_s_variable_too() -> None:
    environ = {"DJANGO_SETTINGS_MODULE": "mysite.settings"}
    merged = config.resolve(cli.collect({}, environ, FACTS))
    assert (merged.settings, merged.workers) == ("mysite.settings", 3)
    assert merged.origin("settings") == "DJANGO_SETTINGS_MODULE"


def test_the_application_s_own_settings_count() -> None:
    merged = config.resolve(cli.collect({"app": "mysite.wsgi:app"}, {}, FACTS))
    assert (merged.app, merged.settings, merged.workers) == (
        "mysite.wsgi:app",
        "mysite.settings",
        3,
    )
    assert merged.origin("settings") == "the application"


def test_nothing_to_serve() -> None:
    with pytest.raises(UsageError, match=r"^nothing to serve; give MODULE:ATTRIBUTE"):
        cli.collect({}, {})


def test_a_bad_argument_is_refused_before_the_site_is_asked() -> None:
    with pytest.raises(UsageError, match=r"^--workers 0"):
        cli.collect({"app": "no.such.module", "workers": "0"}, {})


def test_the_settings_may_name_a_file(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text("workers = 7\n")
    facts = SiteFacts("mysite.settings", {"config": str(path), "workers": 3})
    merged = config.resolve(cli.collect({"settings": "mysite.settings"}, {}, facts))
    assert (merged.workers, merged.origin("workers")) == (7, str(path))
    path.write_text('settings = "other.settings"\n')
    with pytest.raises(UsageError, match="cannot be set in a file that the settings name"):
        cli.collect({"settings": "mysite.settings"}, {}, facts)


def test_a_named_file_wins_over_the_one_that_the_settings_name(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text("workers = 7\n")
    facts = SiteFacts("mysite.settings", {"config": "/no/such/file"})
    sources = cli.collect({"config": str(path), "app": "a:b"}, {}, facts)
    assert config.resolve(sources).workers == 7


def test_the_table_has_a_row_per_option_and_no_password() -> None:
    merged = config.Config.defaults(data_store="redis://u:secret@h:1/0")
    lines = cli.table(merged).splitlines()
    assert [line.split()[0] for line in lines] == ["option", *(row.name for row in SETTABLE)]
    assert "secret" not in cli.table(merged)


SHOWN = {
    "limit_request_body": ("10m", "10m"),
    "limit_request_line": (8190, "8190"),
    "spool_directory": ("/var/spool", "/var/spool"),
    "request_timeout": ({"default": 30, "/reports/": 300}, "30,/reports/=300"),
    "trusted_proxies": (["10.0.0.0/8", "unix"], "10.0.0.0/8,unix"),
    "forwarded_headers": ("forwarded", "forwarded"),
    "tls_sni": ("a.example=/c:/k", "a.example=/c:/k"),
    "tls_minimum_version": (1.3, "1.3"),
    "sendfile_root": (["/srv/a", "/p/=/srv/b"], "/srv/a,/p/=/srv/b"),
    "live_path": ("", "none"),
    "request_id": (True, "true"),
    "write_min_rate": (1024, "1k"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_the_table_shows_a_value_as_it_may_be_written_again(name: str) -> None:
    raw, shown = SHOWN[name]
    lines = cli.table(config.Config.defaults(**{name: raw})).splitlines()
    (line,) = [line for line in lines if line.split()[0] == name]
    assert line.split(maxsplit=2) == [name, shown, "the caller"]


@pytest.mark.parametrize("option", SETTABLE, ids=lambda option: option.name)
def test_the_table_shows_each_default_in_one_word_and_whence_it_came(option: Any) -> None:
    (line,) = [
        line
        for line in cli.table(config.Config.defaults()).splitlines()
        if line.split()[0] == option.name
    ]
    assert line.endswith("  the default")
    assert line.split()[1] or option.default == ""


def test_the_help_says_each_default() -> None:
    text = " ".join(cli.parser().format_help().split())
    for option in SETTABLE:
        assert f"(default: {option.describe_default()})" in text, option.name


def test_check_surroundings_names_what_is_missing(tmp_path: Path) -> None:
    good = config.Config.defaults(pid_file=str(tmp_path / "pid"), access_log="-")
    assert cli.check_surroundings(good) == []
    bad = config.Config.defaults(
        pid_file="/no/such/place/pid", bind=["unix:/no/such/place/sock"], user="nosuchuser"
    )
    found = cli.check_surroundings(bad)
    assert [error.exit_status for error in found] == [8, 7, 7]
    assert isinstance(found[1], FileError)
    assert str(found[1]) == (
        "--pid-file /no/such/place/pid: the directory /no/such/place does not exist"
    )


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"gpulse {__version__}\n"


def test_an_error_is_one_line_and_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--no-such-flag"]) == 2
    assert capsys.readouterr().err == (
        "gpulse: unrecognized arguments: --no-such-flag; see --help\n"
    )


def test_an_interrupt_before_the_master_runs_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert cli.main([]) == cli.INTERRUPTED
    assert capsys.readouterr() == ("", "")


def test_notes_are_logged_once_the_log_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Served:
        def __init__(self, merged: object, entry: object, *, environ: object) -> None:
            pass

        def run(self) -> int:
            return 0

    stream = io.StringIO()
    top = logging.getLogger("gpulse")
    monkeypatch.setattr(cli, "Master", Served)
    monkeypatch.setattr("sys.stderr", stream)
    before = (top.handlers[:], top.level, top.propagate)
    environ = {"GPULSE_WORKRES": "2"}
    hand_over(FACTS, environ)
    try:
        assert cli._run(["mysite.wsgi"], environ) == 0
    finally:
        top.handlers[:], top.level, top.propagate = before
    assert "WARNING GPULSE_WORKRES (from the environment): no such option" in stream.getvalue()


def test_the_facts_cross_an_exec_with_the_path_and_leave_no_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environ: dict[str, str] = {}
    monkeypatch.setattr("sys.path", ["/one", "/two"])
    hand_over(FACTS, environ)
    monkeypatch.setattr("sys.path", ["/other"])
    assert take_over(environ) == FACTS
    assert environ == {}
    assert sys.path == ["/one", "/two"]
    assert take_over(environ) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"facts": {"x": 1}, "path": []}'])
def test_a_forged_variable_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"^{VARIABLE} is private"):
        take_over({VARIABLE: text})


def test_the_interpreter_keeps_its_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.warnoptions", ["error"])
    assert "-Werror" in interpreter()


class TestSurroundings:
    def check(self, **values):
        return [str(error) for error in cli.check_surroundings(Config.defaults(**values))]

    def test_folders_that_are_there_are_good(self, tmp_path):
        assert self.check(spool_directory=str(tmp_path), sendfile_root=(str(tmp_path),)) == []

    def test_folders_that_are_not_are_named(self, tmp_path):
        (tmp_path / "file").touch()
        missing, file = tmp_path / "missing", tmp_path / "file"
        found = self.check(spool_directory=str(missing), sendfile_root=(f"/p={file}",))
        assert found == [
            f"--spool-directory {missing}: is no directory",
            f"--sendfile-root {file}: is no directory",
        ]


@pytest.mark.parametrize(
    ("values", "rendered"),
    [
        ({"trusted_proxies": []}, ["--trusted-proxies="]),
        ({"trusted_proxies": ["10.0.0.0/8", "unix"]}, None),
        ({"request_timeout": {"default": 30, "/reports/": 300}}, None),
        ({"tls_sni": ["a.example=c.pem:k.pem"]}, None),
        ({"reload": True}, ["--reload"]),
        ({"request_id": False}, ["--no-request-id"]),
        ({"limit_request_body": 2**20}, None),
    ],
)
def test_native_values_are_passed_on_as_arguments_that_mean_the_same(values, rendered):
    arguments_given = arguments.render(values)
    if rendered is not None:
        assert arguments_given == rendered
    asked = arguments.given(vars(cli.parser().parse_args(arguments_given)))
    for name, value in values.items():
        option = BY_NAME[name]
        assert option.check(asked[name]) == option.check(value)
