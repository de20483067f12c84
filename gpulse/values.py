"""Option values: how text and native values are read, refused and shown.

A parser takes what a source holds, text (command line, environment) or a native value (TOML,
settings), and returns the value of the option.  Its ValueError carries a reason which continues the
sentence "--workers x (from the command line): ...".  A parser that takes an empty text returns None
for it.  A show function makes the one line that messages and ``--print-config`` print: never a
secret, never a control character.

Pure, but for ``worker_count("auto")``, which reads the limits of the cgroup (``gpulse.cpus``).
Bounds are not checked here: they are columns of the table in ``gpulse.options``.
"""

import math
import posixpath
import re
from collections.abc import Callable
from typing import TypeVar

from gpulse import address, cpus, storeurl
from gpulse.errors import GpulseError

_Row = TypeVar("_Row", bound=tuple[str, ...])

MAX_WORKERS = 512
"""Half of the scoreboard's slots: a reload runs old and new workers side by side for a while."""
NONE = "none"
"""What is shown for no value; options that may be turned off take it, too, since an empty variable
of the environment counts as not set."""
BARE_GREENLET = 100
"""What ``--greenlet`` alone means."""


def number(raw: object) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", raw.strip()):
        return int(raw)
    raise ValueError("must be a whole number")


def worker_count(raw: object) -> int:
    if raw == "auto":
        return min(cpus.available(), MAX_WORKERS)
    try:
        return number(raw)
    except ValueError:
        raise ValueError("must be a whole number, or auto for one per CPU") from None


def pool_size(raw: object) -> int | None:
    """A number; ``true`` is the bare flag and ``false`` takes back a lower source's choice."""
    if raw is True:
        return BARE_GREENLET
    if raw is False:
        return None
    return number(raw)


def seconds(raw: object) -> float:
    value = math.nan
    if isinstance(raw, (int, float, str)) and not isinstance(raw, bool):
        try:
            value = float(raw)
        except (ValueError, OverflowError):
            value = math.nan
    if not math.isfinite(value):
        raise ValueError("must be a number of seconds")
    return value


def rate(raw: object) -> float:
    """So many per second."""
    try:
        return seconds(raw)
    except ValueError:
        raise ValueError("must be a number per second") from None


def slow_policy(raw: object) -> str:
    """What becomes of a client that reads too slowly."""
    if raw not in ("close", "drop"):
        raise ValueError("must be close or drop")
    return str(raw)


_SIZES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def size(raw: object) -> int:
    """Bytes: a number, or a text such as 64k, 10m, 1g (powers of 1,024)."""
    if isinstance(raw, str):
        found = re.fullmatch(r"([0-9]{1,18})([kmg]?)b?", raw.strip().lower())
        if found:
            return int(found[1]) * _SIZES[found[2]]
    elif isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    raise ValueError("must be a number of bytes, such as 65536, 64k, 10m or 1g")


def text(raw: object) -> str | None:
    if not isinstance(raw, str) or not raw.isprintable():
        raise ValueError("must be one line of text")
    return raw.strip() or None


def account(raw: object) -> str | None:
    """A user or group: its name or its number."""
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return str(raw)
    return text(raw)


def flag(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    words = {"1": True, "true": True, "yes": True, "on": True}
    words |= {"0": False, "false": False, "no": False, "off": False, "": False}
    if isinstance(raw, str) and raw.strip().lower() in words:
        return words[raw.strip().lower()]
    raise ValueError("must be true or false")


def file_mode(raw: object) -> int | None:
    """Octal as text ("027", "0o27"); a native integer is taken as it is (TOML: ``0o27``)."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if raw == "":
        return None
    if isinstance(raw, str) and re.fullmatch(r"(0o)?[0-7]{1,4}", raw.strip()):
        return int(raw, 8)
    raise ValueError("must be an octal number such as 027")


def level(raw: object) -> str:
    levels = ("debug", "info", "warning", "error")
    if isinstance(raw, str) and raw.strip().lower() in levels:
        return raw.strip().lower()
    raise ValueError(f"must be one of {', '.join(levels)}")


def app_name(raw: object) -> str:
    if isinstance(raw, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", raw):
        return raw
    raise ValueError("must be 1 to 64 letters, digits, dots, dashes or underscores")


def module(raw: object) -> str | None:
    if raw == "":
        return None
    if isinstance(raw, str) and all(part.isidentifier() for part in raw.split(".")):
        return raw
    raise ValueError("must be a dotted module name such as mysite.settings")


def target(raw: object) -> str | None:
    if raw == "":
        return None
    if isinstance(raw, str):
        path, _, attribute = raw.removesuffix("()").partition(":")
        parts = path.split(".") + (attribute.split(".") if ":" in raw else [])
        if all(part.isidentifier() for part in parts):
            return raw
    raise ValueError("must be MODULE:ATTRIBUTE such as mysite.wsgi:application")


def addresses(raw: object) -> tuple[str, ...]:
    """Bind addresses: a list, or text with commas or spaces between them."""
    texts = _words(raw, "an address or a list of addresses")
    if not texts:
        raise ValueError("must name at least one address such as 127.0.0.1:8060")
    for text in texts:
        try:
            address.parse(text)
        except GpulseError as error:
            # The message names the option itself; the caller's sentence already does.
            reason = str(error).removeprefix(f"bind {text!r}").lstrip(": ")
            raise ValueError(f"{text} {reason}" if len(texts) > 1 else reason) from None
        if texts.count(text) > 1:
            raise ValueError(f"names {text} twice")
    return tuple(texts)


def _words(raw: object, what: str) -> list[str]:
    """Texts: a list, or one text with commas or spaces between them."""
    if isinstance(raw, (list, tuple)):
        return [word for item in raw for word in _words(item, what)]
    if isinstance(raw, str):
        if not raw.isprintable():
            raise ValueError("must be one line of text")
        return raw.replace(",", " ").split()
    if isinstance(raw, int) and not isinstance(raw, bool):
        return [str(raw)]
    raise ValueError(f"must be {what}")


def tls_version(raw: object) -> str:
    if isinstance(raw, float):  # TOML: 1.2
        raw = str(raw)
    if raw in ("1.2", "1.3"):
        return str(raw)
    raise ValueError("must be 1.2 or 1.3")


def client_certificates(raw: object) -> str:
    if raw in ("off", "optional", "required"):
        return str(raw)
    if raw is False:  # YAML's and TOML's habit of what off means
        return "off"
    raise ValueError("must be off, optional or required")


def server_names(raw: object) -> tuple[tuple[str, str, str], ...]:
    """``NAME=CERTIFICATE[:KEY]``; the key is in the certificate's file unless one is named."""
    found = []
    for word in _words(raw, "NAME=CERTIFICATE or a list of such texts"):
        name, equals, paths = word.partition("=")
        certificate, _, key = paths.partition(":")
        if not equals or not certificate:
            raise ValueError(f"{word} is not NAME=CERTIFICATE or NAME=CERTIFICATE:KEY")
        if not re.fullmatch(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", name.lower()):
            raise ValueError(f"{name} is no host name")
        found.append((name.lower(), certificate, key or certificate))
    return _each_once(found)


def _each_once(rows: list[_Row]) -> tuple[_Row, ...]:
    """Refuse two rows for one name, the first column, and a row that stands there twice."""
    names = [row[0] or row[1] for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"names {name} twice")
    return tuple(rows)


def show_server_names(value: object) -> str:
    return _show_rows(value, 3, lambda row: f"{row[0]}={row[1]}:{row[2]}")


def _show_rows(value: object, size: int, show: Callable[[tuple[str, ...]], str]) -> str:
    """A checked value row by row; what was refused as it came."""
    if not isinstance(value, tuple) or not all(
        isinstance(row, tuple) and len(row) == size for row in value
    ):
        return show_plain(value)
    return ",".join(map(show, value)) or NONE


def sendfile_roots(raw: object) -> tuple[tuple[str, str], ...]:
    """``PATH`` or ``/PREFIX=PATH``; the directory must be given from the root."""
    found = []
    for word in _words(raw, "a directory or a list of directories"):
        prefix, equals, path = word.rpartition("=")
        if equals and not re.fullmatch(r"/[\x21-\x7e]*", prefix):
            raise ValueError(f"{word}: the prefix must begin with /, as in /protected/=/srv/files")
        if not path.startswith("/") or posixpath.normpath(path).strip("/") == "":
            raise ValueError(f"{word}: must name a directory from the root, and not the root")
        found.append((prefix, path))
    return _each_once(found)


def show_sendfile_roots(value: object) -> str:
    return _show_rows(value, 2, lambda row: "=".join(row) if row[0] else row[1])


def url_path(raw: object) -> str | None:
    if raw in ("", NONE):
        return None
    if isinstance(raw, str) and re.fullmatch(r"/[\x21\x22\x24-\x3e\x40-\x7e]*", raw):
        return raw
    raise ValueError(f"must be a path such as /-/live, or {NONE}")


def data_store(raw: object) -> str:
    if raw == "embedded":
        return "embedded"
    if not isinstance(raw, str) or not raw:
        raise ValueError("must be embedded or a URL such as redis://127.0.0.1:6379/0")
    try:
        storeurl.parse(raw)
    except GpulseError as error:
        _, _, reason = str(error).rpartition("not usable: ")
        raise ValueError(f"{reason} (or embedded)" if "://" not in raw else reason) from None
    return raw


def show_plain(value: object) -> str:
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ",".join(show_plain(item) for item in value) or NONE
    shown = str(value)
    if not shown or not shown.isprintable() or " " in shown:
        shown = repr(shown)
    return shown if len(shown) <= 200 else f"{shown[:200]}..."


def show_size(value: object) -> str:
    """The largest unit that needs no fraction."""
    if isinstance(value, int) and not isinstance(value, bool) and value:
        for unit in ("g", "m", "k"):
            if value % _SIZES[unit] == 0:
                return f"{value // _SIZES[unit]}{unit}"
    return show_plain(value)


def show_mode(value: object) -> str:
    return f"{value:03o}" if isinstance(value, int) else show_plain(value)


def show_store(value: object) -> str:
    return "embedded" if value == "embedded" else storeurl.redact(str(value))
