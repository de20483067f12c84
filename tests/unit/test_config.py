"""Merging: who wins, who is refused, and what the refusal says."""

from pathlib import Path

import pytest

from gpulse import config
from gpulse.config import Config, Source, resolve
from gpulse.errors import FileError, UsageError


def settings(**values: object) -> Source:
    return config.from_settings(values, "mysite.settings")


def cli(**values: object) -> Source:
    return config.from_command_line(values)


def env(**values: str) -> Source:
    return config.from_environ(values)


def toml(tmp_path: Path, text: str) -> Source:
    path = tmp_path / "site.toml"
    path.write_text(text)
    return config.from_file(str(path))


def refusal(*sources: Source) -> str:
    with pytest.raises(UsageError) as refused:
        resolve(sources)
    return str(refused.value)


def test_the_defaults() -> None:
    made = Config.defaults()
    assert (made.mode, made.pool_size, made.workers) == ("thread", 5, 1)
    assert made.bind == ("127.0.0.1:8060",)
    assert made.origin("workers") == "the default"


def test_a_stronger_source_wins_and_is_remembered(tmp_path: Path) -> None:
    sources = [
        cli(workers="5"),
        settings(workers=2, backlog=20, timeout=2, keep_alive=2),
        env(GPULSE_WORKERS="4", GPULSE_BACKLOG="40"),
        toml(tmp_path, "workers = 3\nbacklog = 30\ntimeout = 3\n"),
    ]
    made = resolve(sources)
    assert (made.workers, made.backlog, made.timeout, made.keep_alive) == (5, 40, 3.0, 2.0)
    assert made.origin("workers") == "the command line"
    assert made.origin("backlog") == "the environment"
    assert made.origin("timeout") == str(tmp_path / "site.toml")
    assert made.origin("keep_alive") == "GPULSE in mysite.settings"
    assert made.origin("user") == "the default"


def test_an_address_replaces_those_of_weaker_sources() -> None:
    assert resolve([settings(bind=[":1", ":2"]), cli(bind=[":3", ":4"])]).bind == (":3", ":4")


def test_an_empty_variable_is_not_set_and_an_empty_argument_takes_back() -> None:
    sources = [settings(access_log="-"), env(GPULSE_ACCESS_LOG="", GPULSE_WORKERS="")]
    assert resolve(sources).access_log == "-"
    assert resolve([*sources, cli(access_log="")]).access_log is None


def test_none_in_settings_is_not_set() -> None:
    assert resolve([settings(workers=None)]).workers == 1


def test_auto_shows_in_the_origin() -> None:
    assert resolve([cli(workers="auto")]).origin("workers") == "the command line, auto"


@pytest.mark.parametrize(
    ("weaker", "stronger", "expected"),
    [
        ({"greenlet": 200}, {"thread_workers": "7"}, ("thread", 7)),
        ({"thread_workers": 7}, {"greenlet": "200"}, ("greenlet", 200)),
        ({"greenlet": 200}, {"workers": "2"}, ("greenlet", 200)),
        ({"greenlet": 200}, {"greenlet": False}, ("thread", 5)),
        ({"greenlet": True}, {}, ("greenlet", 100)),
    ],
)
def test_the_stronger_source_chooses_the_mode(
    weaker: dict[str, object], stronger: dict[str, object], expected: tuple[str, int]
) -> None:
    made = resolve([settings(**weaker), cli(**stronger)])
    assert (made.mode, made.pool_size) == expected


def test_an_overruled_mode_is_forgotten() -> None:
    made = resolve([settings(thread_workers=7), cli(greenlet="9")])
    assert (made.thread_workers, made.origin("thread_workers")) == (5, "the default")


def test_greenlets_and_threads_in_one_source_are_refused() -> None:
    assert refusal(cli(greenlet="9", thread_workers="5")) == (
        "--greenlet 9 and --thread-workers 5 (from the command line) exclude each other: choose "
        "greenlets or native threads"
    )
    assert refusal(env(GPULSE_GREENLET="9", GPULSE_THREAD_WORKERS="5")).startswith(
        "GPULSE_GREENLET 9 and GPULSE_THREAD_WORKERS 5 (from the environment)"
    )


def test_greenlets_and_threads_in_one_source_are_refused_though_a_stronger_one_decides() -> None:
    both = settings(greenlet=9, thread_workers=5)
    assert "exclude each other" in refusal(both, cli(greenlet="3"))


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (cli(workers="0"), "--workers 0 (from the command line): must be 1 or more"),
        (env(GPULSE_WORKERS="0"), "GPULSE_WORKERS 0 (from the environment): must be 1 or more"),
        (
            settings(workers=0),
            "workers 0 (from GPULSE in mysite.settings): must be 1 or more",
        ),
        (
            settings(wrokers=2),
            "wrokers (from GPULSE in mysite.settings): no such option; did you mean workers?",
        ),
        (
            settings(**{"thread-workers": 2}),
            "thread-workers (from GPULSE in mysite.settings): no such option; "
            "did you mean thread_workers?",
        ),
        (settings(zzz=2), "zzz (from GPULSE in mysite.settings): no such option"),
        (
            settings(settings="a.b"),
            "settings (from GPULSE in mysite.settings): cannot be set there",
        ),
        (
            cli(data_store="redis://:hush@h:x"),
            "--data-store redis://*** (from the command line): "
            "its port is not a number from 1 to 65535",
        ),
    ],
)
def test_a_refusal_names_the_value_and_where_it_came_from(source: Source, line: str) -> None:
    assert refusal(source) == line


@pytest.mark.parametrize(
    ("name", "raw", "line"),
    [
        (
            "sendfile_root",
            ("srv",),
            "sendfile_root srv (from GPULSE in mysite.settings): srv: must",
        ),
        (
            "sendfile_root",
            ("ab", "cd"),
            "sendfile_root ab,cd (from GPULSE in mysite.settings): ab:",
        ),
        ("tls_sni", ("abc",), "tls_sni abc (from GPULSE in mysite.settings): abc is not NAME="),
        ("tls_sni", [("a", "b")], "tls_sni a,b (from GPULSE in mysite.settings): a is not NAME="),
        ("request_timeout", ("soon",), "request_timeout soon (from GPULSE in mysite.settings): "),
        ("request_timeout", {"/a": "x"}, "request_timeout /a=x (from GPULSE in mysite.settings): "),
        ("trusted_proxies", ("here",), "trusted_proxies here (from GPULSE in mysite.settings): "),
        ("forwarded_headers", ("x",), "forwarded_headers x (from GPULSE in mysite.settings): "),
        (
            "limit_request_body",
            "1t",
            "limit_request_body 1t (from GPULSE in mysite.settings): must",
        ),
        (
            "limit_request_line",
            1,
            "limit_request_line 1 (from GPULSE in mysite.settings): must be 64",
        ),
    ],
)
def test_a_refusal_shows_values_of_any_shape(name: str, raw: object, line: str) -> None:
    """As somebody may well have written them in the settings: a tuple, a table."""
    found = refusal(settings(**{name: raw}))
    assert found.startswith(line)
    assert found.isprintable()


def test_lists_and_sizes_in_a_file(tmp_path: Path) -> None:
    made = resolve(
        [
            toml(
                tmp_path,
                'limit_request_body = "10m"\nspool_threshold = 4096\n'
                'sendfile_root = ["/srv/a", "/p/=/srv/b"]\ntls_sni = ["a.example=/c.pem"]\n'
                'tls_minimum_version = 1.3\ntrusted_proxies = ["10.0.0.0/8"]\nlive_path = ""\n'
                '[request_timeout]\ndefault = 30\n"/reports/" = 300\n',
            )
        ]
    )
    assert (made.limit_request_body, made.spool_threshold) == (10 * 2**20, 4096)
    assert made.sendfile_root == (("", "/srv/a"), ("/p/", "/srv/b"))
    assert made.tls_sni == (("a.example", "/c.pem", "/c.pem"),)
    assert (made.tls_minimum_version, made.live_path) == ("1.3", None)
    assert made.trusted_proxies == ("10.0.0.0/8",)
    assert made.request_timeout == (("", 30.0), ("/reports/", 300.0))


def test_a_list_replaces_that_of_a_weaker_source() -> None:
    weaker = settings(sendfile_root=["/a"], trusted_proxies=["10.0.0.1"], request_timeout=30)
    made = resolve([weaker, cli(sendfile_root=["/b"], trusted_proxies=[""], request_timeout=["0"])])
    assert made.sendfile_root == (("", "/b"),)
    assert made.trusted_proxies == ()
    assert made.request_timeout == (("", 0.0),)


def test_a_weaker_value_is_checked_though_a_stronger_one_replaces_it() -> None:
    assert refusal(settings(workers=0), cli(workers="2")).startswith("workers 0")


def test_all_problems_are_listed() -> None:
    found = config.problems([cli(workers="0", timeout="x"), settings(nope=1)])
    assert len(found) == 3


def test_an_unknown_variable_is_a_note_and_not_an_error() -> None:
    made = resolve([env(GPULSE_WORKRES="3", GPULSE_PORT="tcp://10.0.0.1:80", OTHER="x")])
    assert made.notes == (
        "GPULSE_PORT (from the environment): no such option",
        "GPULSE_WORKRES (from the environment): no such option; did you mean GPULSE_WORKERS?",
    )


def test_the_jitter_is_a_tenth_unless_it_is_given() -> None:
    assert resolve([cli(max_requests="1000")]).max_requests_jitter == 100
    assert resolve([cli(max_requests="1000", max_requests_jitter="0")]).max_requests_jitter == 0


def test_a_file_that_is_missing_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"^cannot read the config file .*: No such file"):
        config.from_file(str(tmp_path / "none.toml"))
    with pytest.raises(FileError, match=r"^cannot read the config file .*: Is a directory"):
        config.from_file(str(tmp_path))
    with pytest.raises(UsageError, match=r"is not TOML: .*line 1"):
        toml(tmp_path, "workers: 2\n")


def test_a_file_cannot_name_another(tmp_path: Path) -> None:
    assert refusal(toml(tmp_path, 'config = "b"')).endswith("cannot be set there")


def test_peek_takes_the_strongest() -> None:
    sources = [config.from_django("DJANGO_SETTINGS_MODULE", settings="a.b"), cli(settings="c.d")]
    assert config.peek(sources, "settings") == "c.d"
    assert config.peek(sources, "app") is None
    with pytest.raises(UsageError):
        config.peek([cli(app="a b")], "app")


def test_defaults_with_overrides_are_checked() -> None:
    assert Config.defaults(greenlet=3, keep_alive=0.5).pool_size == 3
    with pytest.raises(UsageError, match=r"^workers 0 \(from the caller\)"):
        Config.defaults(workers=0)
    with pytest.raises(UsageError, match="no such option"):
        Config.defaults(worker=1)
