"""The configuration: defaults < settings.GPULSE < TOML file < environment < command line.

A :class:`Source` is one of these, holding raw values by option name.  :func:`resolve` merges them,
checks each value with its row of ``gpulse.options`` and makes a frozen :class:`Config` that still
knows where each value came from.

``greenlet`` and ``thread_workers`` exclude each other.  Both in one source is refused; in two
sources the higher one decides the mode, so that ``--thread-workers 5`` tries out thread mode on a
site whose settings say ``greenlet``.

An unknown key in settings or the file is refused, for it is a setting that its writer believes in.
An unknown ``GPULSE_*`` variable is only noted: an orchestrator may well have put it there (a
Kubernetes service named "gpulse" makes ``GPULSE_PORT`` in every container).  An empty variable
counts as not set.

Runs in the cold master, before the first fork: standard library only.
"""

import difflib
import enum
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpulse.errors import FileError, UsageError
from gpulse.options import BY_NAME, SETTABLE, Option

MAX_FILE_BYTES = 1_000_000
"""The longest configuration file that is read; the table of options fits it a hundred times."""


class Layer(enum.IntEnum):
    """The sources, from the weakest to the strongest."""

    DJANGO = 0
    """What Django itself knows: DJANGO_SETTINGS_MODULE, WSGI_APPLICATION."""
    SETTINGS = 1
    FILE = 2
    ENVIRONMENT = 3
    COMMAND_LINE = 4


@dataclass(frozen=True, slots=True)
class Source:
    """Raw values from one place; ``name`` completes the sentence "it came from ..."."""

    layer: Layer
    name: str
    values: Mapping[str, object]
    unknown: tuple[str, ...] = ()
    """What was written there and is no option, as written."""

    def spell(self, option: Option) -> str:
        """How the option is written in this source."""
        if self.layer is Layer.COMMAND_LINE:
            return option.flag
        if self.layer is Layer.ENVIRONMENT:
            return option.env
        return option.name


@dataclass(frozen=True, slots=True)
class Config:
    """Every option's value; times in seconds.  Made by :func:`resolve` or :meth:`defaults`."""

    app: str | None
    settings: str | None
    reload: bool
    workers: int
    greenlet: int | None
    """Greenlets per worker; None is thread mode."""
    thread_workers: int
    max_requests: int
    max_requests_jitter: int
    bind: tuple[str, ...]
    backlog: int
    max_connections: int
    max_connection_requests: int
    max_queued: int
    limit_request_line: int
    limit_request_fields: int
    limit_request_head: int
    limit_request_body: int
    limit_chunk_overhead: int
    limit_trailers: int
    spool_threshold: int
    spool_memory: int
    spool_directory: str | None
    max_websockets: int
    websocket_message: int
    websocket_inbox: int
    websocket_events: int
    websocket_outgoing: int
    websocket_outgoing_age: float
    websocket_slow: str
    websocket_rate: float
    websocket_burst: int
    websocket_subscriptions: int
    websocket_per_user: int
    websocket_per_address: int
    websocket_idle_timeout: float
    websocket_ping_interval: float
    websocket_ping_timeout: float
    websocket_compress_from: int
    data_store: str
    history: tuple[tuple[str, int, float], ...]
    """Pattern, messages and seconds of each."""
    pulse_app_name: str
    timeout: float
    graceful_timeout: float
    boot_timeout: float
    keep_alive: float
    head_timeout: float
    body_timeout: float
    body_min_rate: int
    write_timeout: float
    write_min_rate: int
    queue_timeout: float
    request_timeout: tuple[tuple[str, float], ...]
    trusted_proxies: tuple[str, ...]
    forwarded_headers: tuple[str, ...]
    proxy_protocol: bool
    tls_certificate: str | None
    tls_key: str | None
    tls_sni: tuple[tuple[str, str, str], ...]
    """Name, certificate and key of each."""
    tls_minimum_version: str
    tls_ciphers: str | None
    tls_client_ca: str | None
    tls_client_certificates: str
    tls_handshake_timeout: float
    sendfile_root: tuple[tuple[str, str], ...]
    """URL prefix and directory of each; an empty prefix is X-Sendfile's."""
    live_path: str | None
    ready_path: str | None
    pid_file: str | None
    user: str | None
    group: str | None
    umask: int | None
    log_level: str
    access_log: str | None
    access_log_format: str
    request_id: bool
    config: str | None
    origins: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    notes: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """Lines worth a warning once the log is open."""

    @property
    def mode(self) -> str:
        """``"greenlet"`` or ``"thread"``."""
        return "thread" if self.greenlet is None else "greenlet"

    @property
    def pool_size(self) -> int:
        """Requests that a worker runs at once."""
        return self.thread_workers if self.greenlet is None else self.greenlet

    def origin(self, name: str) -> str:
        """Where the value of option ``name`` came from, in words."""
        return self.origins.get(name, "the default")

    @classmethod
    def defaults(cls, **overrides: object) -> "Config":
        """The defaults with some values replaced; the values are checked as any others.

        :raises UsageError: for a bad value or name.
        """
        return resolve([_source(Layer.SETTINGS, "the caller", overrides, BY_NAME)])


def from_command_line(values: Mapping[str, object]) -> Source:
    """``values`` holds only what was given."""
    return _source(Layer.COMMAND_LINE, "the command line", values, BY_NAME)


def from_environ(environ: Mapping[str, str]) -> Source:
    """The ``GPULSE_*`` variables."""
    by_env = {option.env: option.name for option in SETTABLE}
    given = {name: text for name, text in environ.items() if name.startswith("GPULSE_") and text}
    return Source(
        Layer.ENVIRONMENT,
        "the environment",
        {by_env[name]: text for name, text in given.items() if name in by_env},
        tuple(sorted(name for name in given if name not in by_env)),
    )


def from_file(path: str) -> Source:
    """The top-level keys of a TOML file.

    :raises FileError: the file is missing, too long or may not be read.
    :raises UsageError: the file is not TOML.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise FileError(f"cannot read the config file {path}: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise FileError(f"the config file {path} is longer than {MAX_FILE_BYTES} bytes")
    try:
        values = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the config file {path} is not TOML: {error}") from None
    allowed = {option.name for option in SETTABLE if option.name != "config"}
    return _source(Layer.FILE, path, values, allowed)


def from_settings(values: Mapping[str, object], module: str) -> Source:
    """``settings.GPULSE`` of the settings module."""
    allowed = {option.name for option in SETTABLE if option.in_settings}
    return _source(Layer.SETTINGS, f"GPULSE in {module}", values, allowed)


def from_django(name: str, **values: str | None) -> Source:
    """What Django says without gpulse: ``settings`` and ``app``."""
    return _source(Layer.DJANGO, name, values, BY_NAME)


def _source(
    layer: Layer, name: str, values: Mapping[str, object], allowed: Iterable[str]
) -> Source:
    known = set(allowed)
    return Source(
        layer,
        name,
        {key: value for key, value in values.items() if key in known and value is not None},
        tuple(key for key in values if key not in known),
    )


def peek(sources: Iterable[Source], name: str) -> Any:
    """The checked value of one option before all sources are known; None where none gives it.

    :raises UsageError: the value is wrong.
    """
    option = BY_NAME[name]
    for source in _strongest_first(sources):
        if name in source.values:
            values, problems = _checked(source, [option])
            if problems:
                raise UsageError(problems[0])
            return values[name]
    return None


def resolve(sources: Iterable[Source]) -> Config:
    """Merge the sources into a configuration.

    :raises UsageError: names the first problem; :func:`problems` lists them all.
    """
    config, found = _settle(list(sources))
    if config is None:
        raise UsageError(found[0])
    return config


def problems(sources: Iterable[Source]) -> list[str]:
    """Everything that :func:`resolve` would refuse, one line each."""
    return _settle(list(sources))[1]


def _settle(sources: list[Source]) -> tuple[Config | None, list[str]]:
    values: dict[str, Any] = {option.name: option.default for option in SETTABLE}
    origins: dict[str, str] = {}
    found: list[str] = []
    notes: list[str] = []
    for source in reversed(_strongest_first(sources)):
        for key in source.unknown:
            line = _unknown(source, key)
            (notes if source.layer is Layer.ENVIRONMENT else found).append(line)
        given, wrong = _checked(source, SETTABLE)
        found += wrong
        clash = _choose_mode(source, given, values, origins)
        if clash:
            found.append(clash)
        for name, value in given.items():
            values[name] = value
            auto = ", auto" if source.values[name] == "auto" else ""
            origins[name] = f"{source.name}{auto}"
    if found:
        return None, found
    if values["max_requests_jitter"] is None:
        values["max_requests_jitter"] = values["max_requests"] // 10
    return Config(**values, origins=origins, notes=tuple(notes)), []


def _strongest_first(sources: Iterable[Source]) -> list[Source]:
    return sorted(sources, key=lambda source: source.layer, reverse=True)


def _checked(source: Source, options: Sequence[Option]) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for option in options:
        if option.name not in source.values:
            continue
        raw = source.values[option.name]
        try:
            values[option.name] = option.check(raw)
        except ValueError as error:
            given = f"{source.spell(option)} {option.show(raw)}"
            wrong.append(f"{given} (from {source.name}): {error}")
    return values, wrong


def _choose_mode(
    source: Source, given: dict[str, Any], values: dict[str, Any], origins: dict[str, str]
) -> str | None:
    """Let ``source`` choose between greenlets and threads; a line if it chooses both."""
    greenlet, threads = BY_NAME["greenlet"], BY_NAME["thread_workers"]
    if given.get(greenlet.name) is None and threads.name not in given:
        return None
    if given.get(greenlet.name) is not None and threads.name in given:
        return (
            f"{source.spell(greenlet)} {given[greenlet.name]} and {source.spell(threads)} "
            f"{given[threads.name]} (from {source.name}) exclude each other: choose greenlets or "
            "native threads"
        )
    overruled = threads if threads.name not in given else greenlet
    values[overruled.name] = overruled.default
    origins.pop(overruled.name, None)
    return None


def _unknown(source: Source, key: str) -> str:
    prefix = "GPULSE_" if source.layer is Layer.ENVIRONMENT else ""
    asked = key.removeprefix(prefix).strip("-").replace("-", "_").lower()
    names = [option.name for option in SETTABLE]
    if key in names:
        return f"{key} (from {source.name}): cannot be set there"
    near = difflib.get_close_matches(asked, names, n=1, cutoff=0.65)
    hint = f"; did you mean {source.spell(BY_NAME[near[0]])}?" if near else ""
    return f"{key} (from {source.name}): no such option{hint}"
