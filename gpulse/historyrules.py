"""Which channels keep a history: the value of ``--history`` and what it says of a channel.

``PATTERN=MESSAGES/SECONDS``: channels that match keep their newest messages, so many and no older
than that.  ``*`` is any run of characters, all else stands for itself.  The first pattern that
matches decides: ``room:archive=0/1,room:*=100/300`` excepts one channel, for a size of 0 is none.

Pure; imported by the cold master.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

MAX_RULES = 100
"""Patterns: all may be compared with a channel that is met for the first time."""
MAX_PATTERN = 200
"""Characters of a pattern, as of a channel's bytes."""
MAX_SIZE = 10_000
"""Messages of one channel: a client that was away gets all of them at once."""
MAX_AGE = 604_800.0
"""Seconds, a week: a history bridges an absence; what is to last belongs into a database."""
REMEMBERED = 10_000
"""Channels whose rule is remembered."""

_Row = tuple[str, int, float]


class HistoryRule(NamedTuple):
    """What is kept of one channel."""

    size: int
    """Messages at most, 1 to ``MAX_SIZE``."""
    age: float
    """Seconds at most, 1 to ``MAX_AGE``."""


def parse_history(raw: object) -> tuple[_Row, ...]:
    """Patterns with the messages and seconds of each, in their order.

    :param raw: text with commas or spaces between its parts, a list of these, or a table
        (``{"room:*": {"size": 100, "age": 300}}`` or ``{"room:*": "100/300"}``).
    :raises ValueError: the reason, to continue a sentence.
    """
    rows = tuple(_rows(raw))
    if len(rows) > MAX_RULES:
        raise ValueError(f"may have at most {MAX_RULES} patterns")
    patterns = [pattern for pattern, _, _ in rows]
    for pattern in patterns:
        if patterns.count(pattern) > 1:
            raise ValueError(f"names {pattern} twice")
    return rows


def show_history(value: object) -> str:
    """On one line, so that :func:`parse_history` reads it again; also for what it refused."""
    try:
        rows = value if isinstance(value, tuple) else tuple(_rows(value))
        shown = ",".join(f"{pattern}={size}/{age:g}" for pattern, size, age in rows) or "none"
    except (TypeError, ValueError):
        shown = repr(value)  # what was refused is shown, too
    return shown if shown.isprintable() else repr(shown)[1:-1]


def _rows(raw: object) -> Iterable[_Row]:
    if isinstance(raw, Mapping):
        for pattern, value in raw.items():
            if isinstance(value, Mapping) and set(value) == {"size", "age"}:
                yield _row(str(pattern), value["size"], value["age"])
            elif isinstance(value, str):
                yield _row(str(pattern), *_split(value))
            else:
                raise ValueError(f"must be a size and an age for {pattern!r}, as 100/300")
    elif isinstance(raw, str):
        for word in raw.replace(",", " ").split():
            pattern, equals, value = word.rpartition("=")
            if not equals:
                raise ValueError(f"{word!r} must be PATTERN=MESSAGES/SECONDS, as room:*=100/300")
            yield _row(pattern, *_split(value))
    elif isinstance(raw, (list, tuple)):
        for item in raw:
            if isinstance(item, str):
                yield from _rows(item)
            elif isinstance(item, (list, tuple)) and len(item) == 3:
                yield _row(str(item[0]), item[1], item[2])
            else:
                raise ValueError("must be a list of texts such as room:*=100/300")
    else:
        raise ValueError("must be PATTERN=MESSAGES/SECONDS, as room:*=100/300")


def _split(value: str) -> tuple[str, str]:
    size, slash, age = value.partition("/")
    if not slash:
        raise ValueError(f"{value!r} must be MESSAGES/SECONDS, as 100/300")
    return size, age


def _row(pattern: str, size: object, age: object) -> _Row:
    if not 0 < len(pattern) <= MAX_PATTERN or not pattern.isprintable() or " " in pattern:
        raise ValueError(f"a pattern has 1 to {MAX_PATTERN} characters without spaces")
    try:
        messages, seconds = int(str(size)), float(str(age))
    except ValueError:
        raise ValueError(f"the size and age of {pattern} must be numbers") from None
    if not 0 <= messages <= MAX_SIZE:
        raise ValueError(f"the size of {pattern} must be 0 to {MAX_SIZE}")
    if not 1 <= seconds <= MAX_AGE:
        raise ValueError(f"the age of {pattern} must be 1 to {MAX_AGE:g} seconds")
    return pattern, messages, seconds


class HistoryRules:
    """What a site keeps.

    :param rows: of :func:`parse_history`.
    """

    def __init__(self, rows: Iterable[_Row] = ()) -> None:
        self._rules = [
            (
                re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL),
                HistoryRule(size, age) if size else None,
            )
            for pattern, size, age in rows
        ]
        self._known: dict[str, HistoryRule | None] = {}

    def __bool__(self) -> bool:
        return bool(self._rules)

    def of(self, channel: str) -> HistoryRule | None:
        """What is kept of ``channel``, None for nothing."""
        if not self._rules:
            return None
        try:
            return self._known[channel]
        except KeyError:
            pass
        found = next((rule for each, rule in self._rules if each.fullmatch(channel)), None)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[channel] = found
        return found
