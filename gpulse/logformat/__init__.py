"""Formats of the access log: the text of an option in, a function from a request to its line out.

Pure: time is passed in.  A leaf, so that the option table can check a format before anything runs;
the lines are made in the workers, by ``gpulse.http.accesslog``.

* :mod:`gpulse.logformat.record`: what is known of a request.
* :mod:`gpulse.logformat.apache`: formats made of directives, two of which have names.
* :mod:`gpulse.logformat.jsonline`: the format "json".

Locking: none.  Pool threads may call one function at once; what they share is replaced whole.
"""

import time
from collections.abc import Callable

from gpulse.logformat import apache, jsonline
from gpulse.logformat.record import Line, Record, Refusal, escape

__all__ = [
    "NAMED",
    "Line",
    "Record",
    "Refusal",
    "compile_format",
    "compile_refusal",
    "escape",
    "parse_format",
]

NAMED = {
    "combined": '%h %l %u %t "%r" %>s %B "%{Referer}i" "%{User-Agent}i" %{app}g',
    "common": '%h %l %u %t "%r" %>s %b',
}
"""The formats of directives that have a name."""


def parse_format(raw: object) -> str:
    """The value of the option: the format as it is written.

    :raises ValueError: its text continues the sentence "--access-log-format X: ".
    """
    if not isinstance(raw, str):
        raise ValueError("must be one line of text")
    text = raw.strip()
    compile_format(text)
    return text


def compile_format(
    text: str,
    *,
    worker: int = 0,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Line:
    """The function that makes the line of a request whose response is complete, which is now.

    :param text: combined, common, json, or directives.
    :param worker: the slot number.
    :param clock: seconds since the epoch.
    :param monotonic: seconds on the clock of ``Record.started``.
    :raises ValueError: as :func:`parse_format`.
    """
    if text == "json":
        return jsonline.line(worker, clock, monotonic)
    return apache.line(_directives(text), worker, clock, monotonic)


def compile_refusal(
    text: str, *, worker: int = 0, clock: Callable[[], float] = time.time
) -> Refusal:
    """The function that makes the line of a request that no application saw.

    It has the fields of the same format, most of them a dash or null, and the reason.

    :raises ValueError: as :func:`parse_format`.
    """
    if text == "json":
        return jsonline.refusal(worker, clock)
    return apache.refusal(_directives(text), worker, clock)


def _directives(text: str) -> str:
    if text not in NAMED and "%" not in text:
        raise ValueError(
            f"must be {', '.join(NAMED)}, json, or a text with directives such as '%h %t %s'"
        )
    return NAMED.get(text, text)
