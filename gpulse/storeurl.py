"""The grammar of data store URLs: read, check and print them.

::

    memory://                                                one process, nothing leaves it
    redis://[[USER]:PASSWORD@][HOST][:PORT][/DB]             TCP; also valkey://
    rediss://[[USER]:PASSWORD@][HOST][:PORT][/DB][?ssl_...]  TCP with TLS; also valkeys://
    unix://[[USER]:PASSWORD@]/PATH[?db=DB]                   a unix socket

    redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/SERVICE[/DB][?sentinel_...]
    redis+cluster://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]

The hosts of the last two are sentinels (port 26379) who know the primary of SERVICE, and some nodes
of a cluster (port 6379) who know the others.  ``rediss+`` and ``valkeys+`` are the same with TLS,
to the sentinels too; ``valkey+`` is an alias of ``redis+``.  USER and PASSWORD are the data nodes',
``sentinel_username`` and ``sentinel_password`` are the sentinels'.

``replicas=N`` has a message of a channel with a history acknowledged only when N replicas have it.

User, password, service and socket path are percent-decoded.  ``?db=N`` is understood everywhere but
for a cluster, which has database 0 only.  The TLS keys are those of redis-py: ``ssl_ca_certs``,
``ssl_certfile``, ``ssl_keyfile`` (file names), ``ssl_cert_reqs`` (``required`` or ``none``) and
``ssl_check_hostname`` (``true`` or ``false``).  Any other query key is refused: it would be a
setting that has no effect.

``embedded`` is the value of an option and not a URL: the caller deals with it before it comes here.
Standard library only and no I/O, for the cold master and the option checks import this file.

No message made here shows a password.  As a password with an unescaped ``/`` or ``@`` can end up in
any part of the URL's authority, messages name that part and never quote it.

Source: https://www.iana.org/assignments/uri-schemes/prov/redis and redis-py's ``from_url``.
"""

import re
from dataclasses import dataclass, replace
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from gpulse.errors import StoreError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379
MAX_NODES = 50
"""The most hosts in one URL: each is asked in turn."""
MAX_DB = 999_999
"""The highest database number taken here; the server, which usually has 16, says if it has it."""
MAX_SOCKET_PATH = 107
"""Bytes of a unix socket's path: ``sun_path`` less its NUL (unix(7))."""

SCHEMES = {
    "memory": "memory",
    "redis": "redis",
    "valkey": "redis",
    "rediss": "rediss",
    "valkeys": "rediss",
    "unix": "unix",
    "redis+sentinel": "redis+sentinel",
    "valkey+sentinel": "redis+sentinel",
    "rediss+sentinel": "rediss+sentinel",
    "valkeys+sentinel": "rediss+sentinel",
    "redis+cluster": "redis+cluster",
    "valkey+cluster": "redis+cluster",
    "rediss+cluster": "rediss+cluster",
    "valkeys+cluster": "rediss+cluster",
}
"""What may be written -> what :attr:`StoreURL.scheme` holds."""

TLS_KEYS = {
    "ssl_ca_certs": None,
    "ssl_certfile": None,
    "ssl_keyfile": None,
    "ssl_cert_reqs": ("required", "none"),
    "ssl_check_hostname": ("true", "false"),
}
"""Query key of a TLS URL -> its permitted values, None for a file name."""

MAX_REPLICAS = 9
"""The most replicas that may have to confirm a message."""

SENTINEL_KEYS = ("sentinel_username", "sentinel_password")
"""Query keys of a URL with sentinels."""


@dataclass(frozen=True, slots=True, repr=False)
class StoreURL:
    """A checked data store URL.  Neither ``repr`` nor ``str`` shows the password."""

    scheme: str
    """``memory``, ``redis``, ``unix``, ``redis+sentinel`` or ``redis+cluster``, or one of these
    with ``rediss``; aliases are resolved."""
    host: str = ""
    """Name or address without brackets; empty for ``memory`` and ``unix``, and with ``nodes``."""
    port: int = 0
    """1..65535; 0 where ``host`` is empty."""
    path: str = ""
    """Absolute path of the unix socket, else empty."""
    db: int = 0
    """0..``MAX_DB``."""
    username: str | None = None
    password: str | None = None
    tls: bool = False
    tls_options: tuple[tuple[str, str], ...] = ()
    """The query keys of ``TLS_KEYS`` that were given."""
    nodes: tuple[tuple[str, int], ...] = ()
    """Host and port of each sentinel, or of the named nodes of a cluster."""
    service: str = ""
    """The name under which the sentinels know the primary."""
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    replicas: int = 0
    """How many replicas have to have a message of a history before ``publish`` returns."""

    @property
    def kind(self) -> str:
        """``memory``, ``unix``, ``single``, ``sentinel`` or ``cluster``."""
        _, plus, kind = self.scheme.partition("+")
        return kind if plus else self.scheme if self.scheme in ("memory", "unix") else "single"

    def __repr__(self) -> str:
        return f"<StoreURL {self}>"

    def __str__(self) -> str:
        """The URL with ``***`` for the password: what logs and ``--print-config`` show."""
        if self.scheme == "memory":
            return "memory://"
        login = "" if self.password is None else f"{quote(self.username or '', safe='')}:***@"
        if self.scheme == "unix":
            replicas = f"&replicas={self.replicas}" if self.replicas else ""
            return f"unix://{login}{quote(self.path)}?db={self.db}{replicas}"
        hosts = ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            for host, port in self.nodes or ((self.host, self.port),)
        )
        path = "" if self.kind == "cluster" else f"/{self.db}"
        options = list(self.tls_options)
        if self.replicas:
            options.append(("replicas", str(self.replicas)))
        if self.kind == "sentinel":
            path = f"/{quote(self.service, safe='')}{path}"
            if self.sentinel_username is not None:
                options.append(("sentinel_username", self.sentinel_username))
            if self.sentinel_password is not None:
                options.append(("sentinel_password", "***"))
        query = f"?{urlencode(options, safe='/*')}" if options else ""
        return f"{self.scheme}://{login}{hosts}{path}{query}"


def parse(url: str) -> StoreURL:
    """Read a data store URL.

    :raises StoreError: one line that names the bad part, without the password.
    """
    if not url.isprintable() or " " in url:
        raise _bad("it holds a space or a control character; percent-encode it")
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise _bad(f"it has no scheme; write one of {_written_schemes()}")
    known = SCHEMES.get(scheme.lower())
    if known is None:
        raise _bad(f"its scheme is none of {_written_schemes()}")
    hosts = ""
    if "+" in known:
        # urlsplit knows of one host only.
        authority = re.split("[/?#]", url.partition("://")[2], maxsplit=1)[0]
        hosts = authority.rpartition("@")[2]
        url = url.replace(authority, authority[: len(authority) - len(hosts)] + "h", 1)
    parts = _split(url)
    if parts.fragment or (known != "unix" and "@" in parts.path + parts.query):
        raise _bad("percent-encode / ? # and @ in user and password (%2F %3F %23 %40)")
    if known == "memory":
        if parts.netloc or parts.path or parts.query:
            raise _bad("memory:// takes nothing after it")
        return StoreURL("memory")
    username, password = _credentials(parts)
    query = _query(parts, known)
    options = tuple((key, value) for key, value in query.items() if key in TLS_KEYS)
    tls = known.startswith("rediss")
    if "+" in known:
        found = _of_many(known, hosts, parts, query, username, password, tls, options)
    elif known == "unix":
        path = _socket_path(parts)
        found = StoreURL("unix", "", 0, path, _database("", query), username, password)
    else:
        host, port = _endpoint(parts)
        db = _database(parts.path.strip("/"), query)
        found = StoreURL(known, host, port, "", db, username, password, tls, options)
    return replace(found, replicas=_replicas(query))


def _of_many(
    known: str,
    hosts: str,
    parts: SplitResult,
    query: dict[str, str],
    username: str | None,
    password: str | None,
    tls: bool,
    options: tuple[tuple[str, str], ...],
) -> StoreURL:
    """The URL of sentinels or of a cluster."""
    sentinels = known.endswith("sentinel")
    nodes = _nodes(hosts, DEFAULT_SENTINEL_PORT if sentinels else DEFAULT_PORT)
    if not sentinels:
        if parts.path.strip("/"):
            raise _bad("a cluster has database 0 only; write nothing after its hosts")
        return StoreURL(known, "", 0, "", 0, username, password, tls, options, nodes)
    service, _, database = parts.path.strip("/").partition("/")
    service = unquote(service)
    if not (service and service.isprintable() and " " not in service):
        raise _bad(
            "it does not name the service that the sentinels watch; write it after the hosts"
        )
    db = _database(database, query)
    user, word = query.get("sentinel_username"), query.get("sentinel_password")
    if user is not None and word is None:
        raise _bad("it has a sentinel_username but no sentinel_password")
    return StoreURL(
        known, "", 0, "", db, username, password, tls, options, nodes, service, user, word
    )


def redact(url: str) -> str:
    """``url`` as it may be shown: without a password, and without its whole tail if it is bad."""
    try:
        return str(parse(url))
    except StoreError:
        scheme, separator, _ = url.partition("://")
        return f"{scheme}://***" if separator and scheme.lower() in SCHEMES else "***"


def _bad(reason: str) -> StoreError:
    return StoreError(f"the data store URL is not usable: {reason}")


def _written_schemes() -> str:
    return ", ".join(f"{scheme}://" for scheme, known in SCHEMES.items() if scheme == known)


def _credentials(parts: SplitResult) -> tuple[str | None, str | None]:
    login, at, _ = parts.netloc.rpartition("@")
    if not at:
        return None, None
    username, colon, password = login.partition(":")
    if not colon or not password:
        # A lone word is most often the password of a server without users.
        raise _bad("it has a user but no password; write USER:PASSWORD@ or :PASSWORD@")
    return unquote(username) or None, unquote(password)


def _endpoint(parts: SplitResult, default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise _bad("its port is not a number from 1 to 65535")
    return parts.hostname or DEFAULT_HOST, default_port if port is None else port


def _nodes(written: str, default_port: int) -> tuple[tuple[str, int], ...]:
    hosts = written.split(",")
    if not all(hosts):
        raise _bad("a host is missing; write HOST:PORT,HOST:PORT")
    if len(hosts) > MAX_NODES:
        raise _bad(f"it names more than {MAX_NODES} hosts")
    each = tuple(_endpoint(_split(f"//{host}"), default_port) for host in hosts)
    if len(set(each)) < len(each):
        raise _bad("it names a host twice")
    return each


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise _bad("its host is not a name or address; write an IPv6 address as [::1]") from None


def _socket_path(parts: SplitResult) -> str:
    if parts.netloc.rpartition("@")[2]:
        raise _bad("the path of its socket is not absolute; write unix:///run/store.sock")
    path = unquote(parts.path)
    if path in ("", "/"):
        raise _bad("it names no socket; write unix:///run/store.sock")
    if "\0" in path or len(path.encode("utf-8", "surrogateescape")) > MAX_SOCKET_PATH:
        raise _bad(f"the path of its socket is longer than {MAX_SOCKET_PATH} bytes")
    return path


def _query(parts: SplitResult, scheme: str) -> dict[str, str]:
    taken = ["replicas"] if scheme.endswith("cluster") else ["db", "replicas"]
    taken += TLS_KEYS if scheme.startswith("rediss") else ()
    taken += SENTINEL_KEYS if scheme.endswith("sentinel") else ()
    query: dict[str, str] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key in query:
            raise _bad(f"{key} is given twice")
        if key not in taken:
            raise _bad(f"its query may hold {', '.join(taken)} and nothing else")
        allowed = TLS_KEYS.get(key)
        if allowed is not None and value not in allowed:
            raise _bad(f"{key} is neither {' nor '.join(allowed)}")
        query[key] = value
    return query


def _replicas(query: dict[str, str]) -> int:
    text = query.get("replicas", "0")
    if not (text.isascii() and text.isdigit() and len(text) == 1):
        raise _bad(f"replicas is not a number from 0 to {MAX_REPLICAS}")
    return int(text)


def _database(from_path: str, query: dict[str, str]) -> int:
    from_query = query.get("db", "")
    if from_path and from_query and from_path != from_query:
        raise _bad("its path and its query name two databases")
    text = from_path or from_query or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= MAX_DB):
        raise _bad(f"its database is not a number from 0 to {MAX_DB}")
    return int(text)
