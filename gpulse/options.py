"""THE option table: one row per option, and nothing about an option is said anywhere else.

From a row come the flags of ``gpulse`` and of ``manage.py pulse`` with their ``--help``, the
``GPULSE_<NAME>`` environment variable, the key in ``settings.GPULSE`` and in the TOML file, the
default, the checks, and the reference page.  ``gpulse.config`` merges the sources.

Every source is checked by the same row: text (command line, environment) and native values (TOML,
settings) alike.  An empty text in a row that allows none means none, so that a higher source can
take back what a lower one sets (``--access-log ""``).

Refused: values out of bounds, values of another type (``workers = true``), numbers that are not
finite, and anything that would be found out later as a stack trace.

Imported by the cold master: standard library and ``gpulse`` leaf modules only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpulse import values
from gpulse.values import show_plain

DAY = 86_400.0
"""The longest time that can be given, in seconds: more is a typing error, 0 is how to say never."""


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table.

    :param name: attribute of ``Config`` and key in TOML and settings.
    :param flags: on the command line, the long one last; empty for a positional argument.
    :param parse: text or native value -> value; raises ValueError with the reason.
    :param help: one sentence without a final stop; ``--help`` and the docs add the default.
    :param unit: of the value, for the docs: "seconds", "workers".
    :param low: least value, inclusive.
    :param high: greatest value, inclusive.
    :param default_text: the default in words, where the value alone does not tell.
    :param bare: what the flag alone, without a value, stands for.
    :param repeatable: the flag may be given several times; the values make one list.
    :param binary_only: not an option of ``manage.py pulse``, where Django's manage.py decides it.
    :param in_settings: may be a key of ``settings.GPULSE``.
    :param action: does something else instead of serving; only a flag, never a variable or key.
    """

    name: str
    flags: tuple[str, ...]
    parse: Callable[[object], Any]
    default: Any
    group: str
    help: str
    metavar: str = ""
    unit: str = ""
    low: float | None = None
    high: float | None = None
    default_text: str = ""
    bare: str | None = None
    repeatable: bool = False
    binary_only: bool = False
    in_settings: bool = True
    action: bool = False
    show: Callable[[object], str] = show_plain

    @property
    def flag(self) -> str:
        """The long flag, or the metavar of a positional argument."""
        return self.flags[-1] if self.flags else self.metavar

    @property
    def env(self) -> str:
        """The environment variable."""
        return f"GPULSE_{self.name.upper()}"

    @property
    def is_flag(self) -> bool:
        """The option takes no value on the command line."""
        return self.parse is values.flag

    def check(self, raw: object) -> Any:
        """The value that ``raw`` (text or native) stands for.

        :raises ValueError: its text is the reason: "must be 1 or more".
        """
        value = self.parse(raw)
        if value is not None and self.low is not None and value < self.low:
            raise ValueError(f"must be {self.show(self._bound(self.low))} or more")
        if value is not None and self.high is not None and value > self.high:
            raise ValueError(f"must be {self.show(self._bound(self.high))} or less")
        return value

    def describe_default(self) -> str:
        """The default as a reader wants it."""
        return self.default_text or self.show(self.default)

    def _bound(self, bound: float) -> float:
        return int(bound) if bound == int(bound) else bound


_APPLICATION = "Application"
_PROCESSES = "Processes and pools"
_LISTENING = "Listening"
_STORE = "Data store"
_TIMES = "Deadlines"
_IDENTITY = "Process identity"
_LOGGING = "Logging"
_SOURCES = "Configuration"

GROUPS = (
    _APPLICATION,
    _PROCESSES,
    _LISTENING,
    _STORE,
    _TIMES,
    _IDENTITY,
    _LOGGING,
    _SOURCES,
)
"""The groups in the order of ``--help`` and of the reference page."""

OPTIONS: tuple[Option, ...] = (
    Option(
        "app",
        (),
        values.target,
        None,
        _APPLICATION,
        "the WSGI application, as MODULE:ATTRIBUTE or dotted; MODULE:FACTORY() is called once",
        metavar="APP",
        default_text="WSGI_APPLICATION of the Django settings",
        binary_only=True,
    ),
    Option(
        "settings",
        ("--settings",),
        values.module,
        None,
        _APPLICATION,
        "the Django settings module",
        metavar="MODULE",
        default_text="DJANGO_SETTINGS_MODULE",
        binary_only=True,
        in_settings=False,
    ),
    Option(
        "reload",
        ("--reload",),
        values.flag,
        False,
        _APPLICATION,
        "reload the code when a source file changes; for development",
    ),
    Option(
        "workers",
        ("-w", "--workers"),
        values.worker_count,
        1,
        _PROCESSES,
        "how many worker processes; auto is one per CPU that the cgroup allows",
        metavar="N|auto",
        unit="processes",
        low=1,
        high=values.MAX_WORKERS,
    ),
    Option(
        "greenlet",
        ("--greenlet",),
        values.pool_size,
        None,
        _PROCESSES,
        "serve requests on N greenlets per worker instead of threads; alone it means 100",
        metavar="N",
        unit="greenlets per worker",
        low=1,
        high=100_000,
        default_text="none: thread mode",
        bare=str(values.BARE_GREENLET),
    ),
    Option(
        "thread_workers",
        ("--thread-workers",),
        values.number,
        5,
        _PROCESSES,
        "serve requests on N native threads per worker",
        metavar="N",
        unit="threads per worker",
        low=1,
        high=1000,
    ),
    Option(
        "max_requests",
        ("--max-requests",),
        values.number,
        0,
        _PROCESSES,
        "replace a worker after this many requests; 0 is never",
        metavar="N",
        unit="requests",
        low=0,
        high=10**12,
    ),
    Option(
        "max_requests_jitter",
        ("--max-requests-jitter",),
        values.number,
        None,
        _PROCESSES,
        "add up to this many requests, at random, so that workers are not replaced all at once",
        metavar="N",
        unit="requests",
        low=0,
        high=10**12,
        default_text="a tenth of max_requests",
    ),
    Option(
        "bind",
        ("-b", "--bind"),
        values.addresses,
        ("127.0.0.1:8060",),
        _LISTENING,
        "where to listen: HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH; may be repeated",
        metavar="ADDRESS",
        repeatable=True,
    ),
    Option(
        "backlog",
        ("--backlog",),
        values.number,
        2048,
        _LISTENING,
        "connections that the kernel holds for each address until a worker accepts them",
        metavar="N",
        unit="connections",
        low=1,
        high=65_535,
    ),
    Option(
        "max_websockets",
        ("--max-websockets",),
        values.number,
        10_000,
        _LISTENING,
        "open WebSockets per worker; more are answered 503",
        metavar="N",
        unit="WebSockets per worker",
        low=0,
        high=1_000_000,
    ),
    Option(
        "data_store",
        ("--data-store",),
        values.data_store,
        "embedded",
        _STORE,
        "where channels live: embedded, memory://, or a redis://, rediss:// or unix:// URL",
        metavar="URL",
        show=values.show_store,
    ),
    Option(
        "pulse_app_name",
        ("--pulse-app-name",),
        values.app_name,
        "gpulse",
        _STORE,
        "name of the site: prefix of its channels in the store and of its process titles",
        metavar="NAME",
    ),
    Option(
        "timeout",
        ("-t", "--timeout"),
        values.seconds,
        30.0,
        _TIMES,
        "kill a worker whose hub has been blocked this long; 0 is never",
        metavar="SECONDS",
        unit="seconds",
        low=0,
        high=DAY,
    ),
    Option(
        "graceful_timeout",
        ("--graceful-timeout",),
        values.seconds,
        30.0,
        _TIMES,
        "how long a draining worker may finish its requests before it is killed",
        metavar="SECONDS",
        unit="seconds",
        low=0,
        high=DAY,
    ),
    Option(
        "boot_timeout",
        ("--boot-timeout",),
        values.seconds,
        60.0,
        _TIMES,
        "kill a worker that has not imported the application after this long",
        metavar="SECONDS",
        unit="seconds",
        low=0.1,
        high=DAY,
    ),
    Option(
        "keep_alive",
        ("--keep-alive",),
        values.seconds,
        5.0,
        _TIMES,
        "close a connection that has been idle this long; 0 closes it after every response",
        metavar="SECONDS",
        unit="seconds",
        low=0,
        high=DAY,
    ),
    Option(
        "pid_file",
        ("-p", "--pid-file"),
        values.text,
        None,
        _IDENTITY,
        "write the process id of the master here",
        metavar="PATH",
    ),
    Option(
        "user",
        ("-u", "--user"),
        values.account,
        None,
        _IDENTITY,
        "run the workers as this user (name or number); needs root",
        metavar="USER",
    ),
    Option(
        "group",
        ("-g", "--group"),
        values.account,
        None,
        _IDENTITY,
        "run the workers as this group (name or number)",
        metavar="GROUP",
    ),
    Option(
        "umask",
        ("--umask",),
        values.file_mode,
        None,
        _IDENTITY,
        "the file mode mask, in octal, of the master and its workers",
        metavar="MASK",
        low=0,
        high=0o777,
        default_text="as inherited",
        show=values.show_mode,
    ),
    Option(
        "log_level",
        ("--log-level",),
        values.level,
        "info",
        _LOGGING,
        "write messages of this level and above: debug, info, warning or error",
        metavar="LEVEL",
    ),
    Option(
        "access_log",
        ("--access-log",),
        values.text,
        None,
        _LOGGING,
        "write a line per request to this file; - is standard output",
        metavar="PATH",
        default_text="none",
    ),
    Option(
        "config",
        ("-c", "--config"),
        values.text,
        None,
        _SOURCES,
        "read options from this TOML file",
        metavar="PATH",
    ),
    Option(
        "check_config",
        ("--check-config",),
        values.flag,
        False,
        _SOURCES,
        "check the options and what they name, say everything that is wrong, and exit",
        action=True,
    ),
    Option(
        "print_config",
        ("--print-config",),
        values.flag,
        False,
        _SOURCES,
        "print every option with its value and where that came from, and exit",
        action=True,
    ),
    Option(
        "version",
        ("--version",),
        values.flag,
        False,
        _SOURCES,
        "print the version and exit",
        action=True,
    ),
)

BY_NAME: dict[str, Option] = {option.name: option for option in OPTIONS}
SETTABLE: tuple[Option, ...] = tuple(option for option in OPTIONS if not option.action)
"""The rows that make up a ``Config``: everything but the actions."""
