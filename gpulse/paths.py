"""Times by path: the value of ``--request-timeout`` and which time a request's path has.

One number is for all paths, ``/PREFIX=SECONDS`` for the paths that begin so:
``30,/reports/=300,/export=0``.  0 is no bound.  The longest prefix that matches decides, wherever
it stands.  A prefix matches whole segments: ``/reports`` is the page ``/reports`` and all below
it, but not ``/reportsx``; ``/reports/`` is what lies below, and not ``/reports`` itself; ``/`` is
everything.

A prefix is written as in a URL, where ``%2C`` is a comma, and compared with the path as the
application sees it, so that a client cannot choose another time by writing ``/re%70orts``.  Dot
segments and double slashes are compared as they are, as Django does.

Pure; imported by the cold master.
"""

import math
import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote_to_bytes

MAX_PREFIXES = 100
"""Prefixes with a time of their own: all may be compared with each request's path."""
MAX_PREFIX_LENGTH = 200
"""Characters of a prefix, as it is written."""
LONGEST_DEADLINE = 86_400.0
"""Seconds, a day: more is a typing error, 0 is how to say never."""

EVERYWHERE = ""
"""The prefix of the number that stands alone."""
_DEFAULT = "default"
"""The key of that number in a table."""
_SHOWN = 200

_Pairs = tuple[tuple[str, float], ...]


def parse_deadlines(raw: object) -> _Pairs:
    """Prefixes, as they were written, and their seconds; the number for all paths comes first.

    :param raw: text with commas or spaces between its parts, a number, a list of these, or a table
        (``{"default": 30, "/reports/": 300}``).  Nothing at all is no bound anywhere.
    :raises ValueError: the reason, to continue a sentence.
    """
    found: dict[str, tuple[str, float]] = {}
    for prefix, seconds in _pairs(raw):
        path = _path(prefix)
        if path in found:
            raise ValueError(f"names {prefix} twice" if prefix else "has two times for all paths")
        found[path] = (prefix, _seconds(seconds))
    if len(found) - (EVERYWHERE in found) > MAX_PREFIXES:
        raise ValueError(f"may have at most {MAX_PREFIXES} prefixes")
    everywhere = found.pop(EVERYWHERE, None)
    return (*((everywhere,) if everywhere else ()), *found.values())


def _pairs(raw: object) -> Iterable[tuple[str, object]]:
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            yield (EVERYWHERE if key == _DEFAULT else _prefix(str(key))), value
    elif isinstance(raw, (list, tuple)):
        for item in raw:
            if not isinstance(item, (str, int, float)):
                raise ValueError("must be a list of texts such as /reports/=300")
            yield from _pairs(item)
    elif isinstance(raw, str):
        for word in raw.replace(",", " ").split():
            prefix, equals, value = word.rpartition("=")
            yield (_prefix(prefix) if equals else EVERYWHERE), value
    else:
        yield EVERYWHERE, raw


def _prefix(text: str) -> str:
    if len(text) > MAX_PREFIX_LENGTH:
        raise ValueError(f"{text[:40]}... is longer than {MAX_PREFIX_LENGTH} characters")
    if not re.fullmatch(r"/[^\s,?#]*", text) or not text.isprintable():
        raise ValueError(
            f"{text!r} must be a path: it begins with / and has no space, comma, ? or #"
        )
    return text


def _path(prefix: str) -> str:
    """As PEP 3333 has it in PATH_INFO: bytes, each a character."""
    return unquote_to_bytes(prefix).decode("latin-1")


def _seconds(raw: object) -> float:
    value = math.nan
    if isinstance(raw, (int, float, str)) and not isinstance(raw, bool):
        try:
            value = float(raw)
        except (ValueError, OverflowError):
            value = math.nan
    if not math.isfinite(value):
        raise ValueError("must be SECONDS or /PREFIX=SECONDS, such as 30,/reports/=300")
    if not 0 <= value <= LONGEST_DEADLINE:
        raise ValueError(f"must be from 0 to {LONGEST_DEADLINE:g} seconds")
    return value


def show_deadlines(value: object) -> str:
    """On one line, so that :func:`parse_deadlines` reads it again; also for what it refused."""
    if isinstance(value, Mapping):
        value = tuple(value.items())
    if not isinstance(value, (list, tuple)):
        value = (value,)
    shown = ",".join(_show_one(item) for item in value) or "none"
    return shown if shown.isprintable() else repr(shown)[1:-1]


def _show_one(item: object) -> str:
    if isinstance(item, tuple) and len(item) == 2:
        prefix, seconds = item
        return f"{prefix}={_show_one(seconds)}" if prefix else _show_one(seconds)
    # Not %g, which would round 1234567 to 1.23457e+06.
    shown = str(item).removesuffix(".0") if isinstance(item, float) else str(item)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


class Deadlines:
    """Gives a path its seconds; a value of :func:`parse_deadlines`, made for many questions."""

    __slots__ = ("_default", "_rules", "_starts")

    def __init__(self, pairs: _Pairs) -> None:
        self._default = dict(pairs).get(EVERYWHERE, 0.0)
        paths = [(_path(prefix), seconds) for prefix, seconds in pairs if prefix != EVERYWHERE]
        paths.sort(key=lambda pair: len(pair[0]), reverse=True)
        self._rules = [
            (path, path if path.endswith("/") else f"{path}/", seconds) for path, seconds in paths
        ]
        self._starts = tuple(path for path, _ in paths)

    def __bool__(self) -> bool:
        """Some path may have a bound."""
        return self._default > 0 or any(seconds > 0 for _, _, seconds in self._rules)

    def of(self, path: str) -> float:
        """Seconds for a path as PATH_INFO has it (PEP 3333: percent-decoded, each byte a
        character); 0 for no bound."""
        # Most paths match no prefix, and this finds that out in one call.
        if not self._starts or not path.startswith(self._starts):
            return self._default
        for prefix, below, seconds in self._rules:
            if path == prefix or path.startswith(below):
                return seconds
        return self._default
