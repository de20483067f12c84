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

from gpulse import historyrules, logformat, paths, syslog, trust, values
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
_LIMITS = "Limits of a request"
_SOCKETS = "WebSockets"
_PROXIES = "Behind proxies"
_TLS = "TLS"
_FILES = "Files and health"
_STORE = "Data store"
_TIMES = "Deadlines"
_IDENTITY = "Process identity"
_LOGGING = "Logging"
_SOURCES = "Configuration"

GROUPS = (
    _APPLICATION,
    _PROCESSES,
    _LISTENING,
    _LIMITS,
    _TIMES,
    _SOCKETS,
    _PROXIES,
    _TLS,
    _FILES,
    _STORE,
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
        "max_connections",
        ("--max-connections",),
        values.number,
        20_000,
        _LISTENING,
        "open connections per worker; beyond it a worker leaves new ones to the others",
        metavar="N",
        unit="connections per worker",
        low=1,
        high=1_000_000,
    ),
    Option(
        "max_connection_requests",
        ("--max-connection-requests",),
        values.number,
        10_000,
        _LISTENING,
        "close a connection after this many requests, so that load spreads anew; 0 is never",
        metavar="N",
        unit="requests",
        low=0,
        high=10**12,
    ),
    Option(
        "max_queued",
        ("--max-queued",),
        values.number,
        1024,
        _LISTENING,
        "requests per worker that wait for a free greenlet or thread; more are answered 503",
        metavar="N",
        unit="requests per worker",
        low=1,
        high=1_000_000,
    ),
    Option(
        "limit_request_line",
        ("--limit-request-line",),
        values.size,
        8190,
        _LIMITS,
        "the longest request target (Apache's LimitRequestLine); longer is 414",
        metavar="BYTES",
        unit="bytes",
        low=64,
        high=65_536,
        show=values.show_size,
    ),
    Option(
        "limit_request_fields",
        ("--limit-request-fields",),
        values.number,
        100,
        _LIMITS,
        "the most header fields (Apache's LimitRequestFields, gunicorn); more is 431",
        metavar="N",
        unit="fields",
        low=1,
        high=10_000,
    ),
    Option(
        "limit_request_head",
        ("--limit-request-head",),
        values.size,
        65_536,
        _LIMITS,
        "the longest request line and header fields together (uWSGI's largest buffer-size; nginx "
        "allows 32 KiB); longer is 431",
        metavar="BYTES",
        unit="bytes",
        low=256,
        high=1_048_576,
        show=values.show_size,
    ),
    Option(
        "limit_request_body",
        ("--limit-request-body",),
        values.size,
        1_073_741_824,
        _LIMITS,
        "the longest request body (waitress' max_request_body_size); longer is 413, before it is "
        "read",
        metavar="BYTES",
        unit="bytes",
        low=0,
        high=2**50,
        show=values.show_size,
    ),
    Option(
        "limit_chunk_overhead",
        ("--limit-chunk-overhead",),
        values.size,
        16_384,
        _LIMITS,
        "the most bytes of chunk sizes and extensions beyond eight times the data (Go's net/http "
        "counts so too); more is 400",
        metavar="BYTES",
        unit="bytes",
        low=64,
        high=1_048_576,
        show=values.show_size,
    ),
    Option(
        "limit_trailers",
        ("--limit-trailers",),
        values.size,
        8192,
        _LIMITS,
        "the most bytes of trailers behind a chunked body (Node's maxHeaderSize was this long); "
        "more is 400",
        metavar="BYTES",
        unit="bytes",
        low=0,
        high=65_536,
        show=values.show_size,
    ),
    Option(
        "spool_threshold",
        ("--spool-threshold",),
        values.size,
        2_621_440,
        _LIMITS,
        "the bytes of one body kept in memory (as many as Django's FILE_UPLOAD_MAX_MEMORY_SIZE); a "
        "longer body goes to a temporary file",
        metavar="BYTES",
        unit="bytes",
        low=1024,
        high=1_073_741_824,
        show=values.show_size,
    ),
    Option(
        "spool_memory",
        ("--spool-memory",),
        values.size,
        67_108_864,
        _LIMITS,
        "the bytes of all bodies that a worker keeps in memory; beyond it bodies of 64 KiB and "
        "more go to temporary files, too",
        metavar="BYTES",
        unit="bytes per worker",
        low=0,
        high=2**40,
        show=values.show_size,
    ),
    Option(
        "spool_directory",
        ("--spool-directory",),
        values.text,
        None,
        _LIMITS,
        "where the temporary files of long bodies lie, nameless; a full disk is 507 for that "
        "request alone",
        metavar="PATH",
        default_text="TMPDIR, or /tmp",
    ),
    Option(
        "max_websockets",
        ("--max-websockets",),
        values.number,
        10_000,
        _SOCKETS,
        "open WebSockets per worker; more are answered 503",
        metavar="N",
        unit="WebSockets per worker",
        low=0,
        high=1_000_000,
    ),
    Option(
        "websocket_message",
        ("--websocket-message",),
        values.size,
        1_048_576,
        _SOCKETS,
        "the largest message of a client, unpacked; larger is closed with 1009",
        metavar="BYTES",
        unit="bytes",
        low=1,
        high=1_073_741_824,
        show=values.show_size,
    ),
    Option(
        "websocket_inbox",
        ("--websocket-inbox",),
        values.number,
        32,
        _SOCKETS,
        "messages of a WebSocket that wait for its handler before its client has to wait",
        metavar="N",
        unit="messages",
        low=1,
        high=100_000,
    ),
    Option(
        "websocket_events",
        ("--websocket-events",),
        values.number,
        1024,
        _SOCKETS,
        "events that wait for an on_event of the application; more close the WebSocket with 4408",
        metavar="N",
        unit="events",
        low=1,
        high=1_000_000,
    ),
    Option(
        "websocket_outgoing",
        ("--websocket-outgoing",),
        values.size,
        1_048_576,
        _SOCKETS,
        "bytes that may wait for a client that reads slowly",
        metavar="BYTES",
        unit="bytes",
        low=1024,
        high=1_073_741_824,
        show=values.show_size,
    ),
    Option(
        "websocket_outgoing_age",
        ("--websocket-outgoing-age",),
        values.seconds,
        60.0,
        _SOCKETS,
        "how long the oldest of them may wait; 0 is as long as the client reads at all",
        metavar="SECONDS",
        unit="seconds",
        low=0,
        high=DAY,
    ),
    Option(
        "websocket_slow",
        ("--websocket-slow",),
        values.slow_policy,
        "close",
        _SOCKETS,
        "what becomes of a client that reads more slowly than that: close (with 4408), or drop its "
        "oldest messages",
        metavar="POLICY",
    ),
    Option(
        "websocket_rate",
        ("--websocket-rate",),
        values.rate,
        0.0,
        _SOCKETS,
        "messages per second that a client may send in the long run; 0 is any",
        metavar="N",
        unit="messages per second",
        low=0,
        high=1_000_000,
    ),
    Option(
        "websocket_burst",
        ("--websocket-burst",),
        values.number,
        20,
        _SOCKETS,
        "messages that it may send at once within that rate",
        metavar="N",
        unit="messages",
        low=1,
        high=1_000_000,
    ),
    Option(
        "websocket_subscriptions",
        ("--websocket-subscriptions",),
        values.number,
        100,
        _SOCKETS,
        "channels that one WebSocket may subscribe",
        metavar="N",
        unit="channels",
        low=1,
        high=50_000,
    ),
    Option(
        "websocket_per_user",
        ("--websocket-per-user",),
        values.number,
        100,
        _SOCKETS,
        "open WebSockets and event streams of one user on a worker; beyond it the oldest is closed "
        "with 4409, but a new event stream is refused with 429; 0 is any",
        metavar="N",
        unit="WebSockets per worker",
        low=0,
        high=1_000_000,
    ),
    Option(
        "websocket_per_address",
        ("--websocket-per-address",),
        values.number,
        0,
        _SOCKETS,
        "open WebSockets of one client address on a worker; more are closed with 4429; 0 is any",
        metavar="N",
        unit="WebSockets per worker",
        low=0,
        high=1_000_000,
    ),
    Option(
        "websocket_idle_timeout",
        ("--websocket-idle-timeout",),
        values.seconds,
        0.0,
        _SOCKETS,
        "close a WebSocket whose client sent no message for so long; 0 is never",
        metavar="SECONDS",
        unit="seconds",
        low=0,
        high=DAY,
    ),
    Option(
        "websocket_ping_interval",
        ("--websocket-ping-interval",),
        values.seconds,
        20.0,
        _SOCKETS,
        "silence of a client after which it is sent a ping (websockets and uvicorn: 20)",
        metavar="SECONDS",
        unit="seconds",
        low=0.5,
        high=DAY,
    ),
    Option(
        "websocket_ping_timeout",
        ("--websocket-ping-timeout",),
        values.seconds,
        20.0,
        _SOCKETS,
        "how long it has then to send anything (websockets and uvicorn: 20)",
        metavar="SECONDS",
        unit="seconds",
        low=0.5,
        high=DAY,
    ),
    Option(
        "websocket_compress_from",
        ("--websocket-compress-from",),
        values.size,
        1024,
        _SOCKETS,
        "the shortest message that is compressed for clients that can (RFC 7692); 0 is none",
        metavar="BYTES",
        unit="bytes",
        low=0,
        high=1_073_741_824,
        show=values.show_size,
    ),
    Option(
        "data_store",
        ("--data-store",),
        values.data_store,
        "embedded",
        _STORE,
        "where channels live: embedded, memory://, or a redis://, rediss://, unix://, "
        "redis+sentinel:// or redis+cluster:// URL",
        metavar="URL",
        show=values.show_store,
    ),
    Option(
        "history",
        ("--history",),
        historyrules.parse_history,
        (),
        _STORE,
        "keep what is published on channels of a pattern, so that who was away gets what was "
        "missed: so many messages, for so many seconds; an asterisk is anything; may be repeated, "
        "and the first match counts",
        metavar="PATTERN=N/SECONDS",
        repeatable=True,
        default_text="no channel",
        show=historyrules.show_history,
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
        "head_timeout",
        ("--head-timeout",),
        values.seconds,
        10.0,
        _TIMES,
        "from a request's first byte to the end of its head; then 408",
        metavar="SECONDS",
        unit="seconds",
        low=0.1,
        high=DAY,
    ),
    Option(
        "body_timeout",
        ("--body-timeout",),
        values.seconds,
        30.0,
        _TIMES,
        "the longest silence within a body; then 408",
        metavar="SECONDS",
        unit="seconds",
        low=0.1,
        high=DAY,
    ),
    Option(
        "body_min_rate",
        ("--body-min-rate",),
        values.size,
        240,
        _TIMES,
        "the least bytes per second of a body (Kestrel's MinRequestBodyDataRate); one that falls "
        "behind by --body-timeout seconds is 408, and 0 bounds only its silence",
        metavar="BYTES",
        unit="bytes per second",
        low=0,
        high=1_073_741_824,
        show=values.show_size,
    ),
    Option(
        "write_timeout",
        ("--write-timeout",),
        values.seconds,
        30.0,
        _TIMES,
        "cut off a client that has not taken one byte of a waiting response for this long",
        metavar="SECONDS",
        unit="seconds",
        low=0.1,
        high=DAY,
    ),
    Option(
        "write_min_rate",
        ("--write-min-rate",),
        values.size,
        240,
        _TIMES,
        "the least bytes per second that a client must take of a waiting response (Kestrel's "
        "MinResponseDataRate); one that falls behind by --write-timeout seconds is cut off, and 0 "
        "bounds only its standstill",
        metavar="BYTES",
        unit="bytes per second",
        low=0,
        high=1_073_741_824,
        show=values.show_size,
    ),
    Option(
        "queue_timeout",
        ("--queue-timeout",),
        values.seconds,
        10.0,
        _TIMES,
        "the longest wait for a free greenlet or thread; then 503",
        metavar="SECONDS",
        unit="seconds",
        low=0.1,
        high=DAY,
    ),
    Option(
        "request_timeout",
        ("--request-timeout",),
        paths.parse_deadlines,
        (),
        _TIMES,
        "stop a request that the application has not answered after so many seconds, with 503; "
        "PATH=SECONDS is for paths that begin so; may be repeated, and 0 is never",
        metavar="[PATH=]SECONDS",
        repeatable=True,
        default_text="never",
        show=paths.show_deadlines,
    ),
    Option(
        "trusted_proxies",
        ("--trusted-proxies",),
        trust.trusted_proxies,
        trust.DEFAULT_PROXIES,
        _PROXIES,
        "addresses and networks whose forwarded headers are believed, and unix for peers of a unix "
        "socket; may be repeated, and none trusts nobody",
        metavar="ADDRESS",
        repeatable=True,
    ),
    Option(
        "forwarded_headers",
        ("--forwarded-headers",),
        trust.forwarded_headers,
        trust.DEFAULT_HEADERS,
        _PROXIES,
        "the headers that the trusted proxies set themselves and that are believed: "
        "x-forwarded-for, -proto, -host, -port, or forwarded, or none; all others are removed",
        metavar="HEADER",
        repeatable=True,
    ),
    Option(
        "proxy_protocol",
        ("--proxy-protocol",),
        values.flag,
        False,
        _PROXIES,
        "require a PROXY header (version 1 or 2) at the beginning of every connection, from a "
        "trusted proxy",
    ),
    Option(
        "tls_certificate",
        ("--tls-certificate",),
        values.text,
        None,
        _TLS,
        "speak TLS with the certificate chain in this PEM file",
        metavar="PATH",
        default_text="none: plain HTTP",
    ),
    Option(
        "tls_key",
        ("--tls-key",),
        values.text,
        None,
        _TLS,
        "the PEM file of the certificate's private key",
        metavar="PATH",
        default_text="the certificate's file",
    ),
    Option(
        "tls_sni",
        ("--tls-sni",),
        values.server_names,
        (),
        _TLS,
        "another certificate for clients that ask for this name, or for a name below it where it "
        "begins with an asterisk and a dot; may be repeated",
        metavar="NAME=CERTIFICATE[:KEY]",
        repeatable=True,
        default_text="none",
        show=values.show_server_names,
    ),
    Option(
        "tls_minimum_version",
        ("--tls-minimum-version",),
        values.tls_version,
        "1.2",
        _TLS,
        "the oldest version of TLS to speak: 1.2 or 1.3",
        metavar="VERSION",
    ),
    Option(
        "tls_ciphers",
        ("--tls-ciphers",),
        values.text,
        None,
        _TLS,
        "the ciphers of TLS 1.2, as openssl-ciphers(1) has it",
        metavar="LIST",
        default_text="Python's",
    ),
    Option(
        "tls_client_ca",
        ("--tls-client-ca",),
        values.text,
        None,
        _TLS,
        "the PEM file of the authorities that sign the certificates of clients",
        metavar="PATH",
    ),
    Option(
        "tls_client_certificates",
        ("--tls-client-certificates",),
        values.client_certificates,
        "off",
        _TLS,
        "ask clients for a certificate: off, optional or required",
        metavar="MODE",
    ),
    Option(
        "tls_handshake_timeout",
        ("--tls-handshake-timeout",),
        values.seconds,
        10.0,
        _TLS,
        "how long a TLS handshake may take",
        metavar="SECONDS",
        unit="seconds",
        low=0.1,
        high=DAY,
    ),
    Option(
        "sendfile_root",
        ("--sendfile-root",),
        values.sendfile_roots,
        (),
        _FILES,
        "send the files below this directory that views name in X-Sendfile, or, with a URL prefix, "
        "in X-Accel-Redirect; may be repeated",
        metavar="[/PREFIX=]PATH",
        repeatable=True,
        default_text="none",
        show=values.show_sendfile_roots,
    ),
    Option(
        "live_path",
        ("--live-path",),
        values.url_path,
        "/-/live",
        _FILES,
        "answer 200 here as long as the worker's hub runs; none turns it off",
        metavar="PATH",
    ),
    Option(
        "ready_path",
        ("--ready-path",),
        values.url_path,
        "/-/ready",
        _FILES,
        "answer 200 here while the worker takes requests, 503 while it drains or its queue is "
        "full; none turns it off",
        metavar="PATH",
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
        syslog.parse_target,
        None,
        _LOGGING,
        "write a line per request to this file; - is standard output, syslog: and journal: are "
        "the system's logs",
        metavar="TARGET",
        default_text="none",
    ),
    Option(
        "access_log_format",
        ("--access-log-format",),
        logformat.parse_format,
        "combined",
        _LOGGING,
        "the format of these lines: combined, common, json, or directives as Apache's LogFormat "
        "has them",
        metavar="FORMAT",
    ),
    Option(
        "request_id",
        ("--request-id",),
        values.flag,
        False,
        _LOGGING,
        "give each request an id, or keep the X-Request-ID that a trusted proxy sends; the "
        "application, the response and the log get it",
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
