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
import re

from gpulse import address, cpus, storeurl
from gpulse.errors import GpulseError

MAX_WORKERS = 512
"""Half of the scoreboard's slots: a reload runs old and new workers side by side for a while."""
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
    texts = _words(raw)
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


def _words(raw: object) -> list[str]:
    if isinstance(raw, (list, tuple)):
        return [word for item in raw for word in _words(item)]
    if isinstance(raw, str):
        return raw.replace(",", " ").split()
    if isinstance(raw, int) and not isinstance(raw, bool):
        return [str(raw)]
    raise ValueError("must be an address or a list of addresses")


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
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ",".join(show_plain(item) for item in value)
    shown = str(value)
    if not shown or not shown.isprintable() or " " in shown:
        shown = repr(shown)
    return shown if len(shown) <= 200 else f"{shown[:200]}..."


def show_mode(value: object) -> str:
    return f"{value:03o}" if isinstance(value, int) else show_plain(value)


def show_store(value: object) -> str:
    return "embedded" if value == "embedded" else storeurl.redact(str(value))
