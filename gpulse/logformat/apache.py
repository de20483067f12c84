"""Formats of the access log in the language of Apache's LogFormat.  Pure.

The language is taken as far as a WSGI server knows the answer, with one group of our own,
``%{...}g``.  What is not known is refused, for a log must not show a dash where its reader expects
a number.  Refused, too: conditions (``%400,501{...}i``), and whatever would make more than one
line.

Speed: this runs for every request, so a format becomes one Python function.  Its source holds
nothing but the code in the tables below and the ``repr()`` of checked texts.  Times are formatted
once a second.  Nothing is escaped unless something in the line needs it, which is found out for the
whole line at once, by counting the bytes that can end a field or a line: more of them than the
format itself has are a client's or the application's.  The line of the format "combined", 250 bytes
long, takes 1.6 us so, and took 5.2 us with three fields escaped one by one.

Source: https://httpd.apache.org/docs/2.4/mod/mod_log_config.html
"""

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gpulse.logformat.record import Answer, Line, Refusal, escape, peer_part

_UNSAFE = bytes((*range(32), 127, ord('"'), ord("\\")))
"""What :func:`escape` changes in a line of ASCII."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""Not strftime's, which speaks the language that an application sets."""


@dataclass(frozen=True, slots=True)
class Directive:
    """One value of a line.

    :param code: an expression in the function that is made, over the names that ``needs`` brings.
    :param needs: keys of ``_STEPS``, with spaces between.
    :param foreign: the text comes from a client or the application.
    :param refused: the expression for a request that was refused, over ``status`` (a text),
        ``peer`` and the names of the step "now".
    """

    code: str
    needs: str = ""
    foreign: bool = False
    refused: str = '"-"'


_STEPS = {
    "get": ("get = record.environ.get",),
    "request": ("request = record.request",),
    "target": ('target = record.request.target.decode("latin-1")',),
    "status": (
        "response = record.response",
        "if record.switched:",
        '    status = "101"; size = 0',
        "elif response is not None and response.status:",
        "    status = response.status[:3]; size = response.sent",
        "else:",
        '    status = "-"; size = 0',
    ),
    "now": (
        "now = clock()",
        "second = int(now)",
        "stamps = shared[0]",
        "if stamps[0] != second:",
        "    stamps = shared[0] = stamp(second)",
    ),
    "end": (
        "end = monotonic()",
        "started = record.started or end",
        "queued = record.queued_at or started",
    ),
}
"""What the function that is made begins with; each step is there if a directive needs it."""


def _number(code: str) -> Directive:
    return Directive(code, "end", refused='"0"')


_TOTAL = {
    "us": _number("int((end - queued) * 1000000)"),
    "ms": _number("int((end - queued) * 1000)"),
    "s": _number("int(end - queued)"),
}
_CLIENT = Directive('(get("REMOTE_ADDR") or "-")', "get", True, "peer")
_PORT = Directive('(get("SERVER_PORT") or "-")', "get", True)
_PID = Directive("getpid()", refused="getpid()")
_ID = Directive('(record.request_id or "-")', foreign=True)

PLAIN = {
    "h": _CLIENT,
    "a": _CLIENT,
    "l": Directive('"-"'),
    "u": Directive('(get("REMOTE_USER") or "-")', "get", True),
    "r": Directive(
        'f"{request.method} {target} HTTP/1.{0 if request.is_http_1_0 else 1}"',
        "request target",
        True,
    ),
    "s": Directive("status", "status", True, "status"),
    "b": Directive('(size or "-")', "status"),
    "B": Directive("size", "status", refused='"0"'),
    "D": _TOTAL["us"],
    "T": _TOTAL["s"],
    "m": Directive("request.method", "request", True),
    "U": Directive('target.partition("?")[0]', "target", True),
    "q": Directive('"".join(target.partition("?")[1:])', "target", True, '""'),
    "H": Directive('("HTTP/1.0" if request.is_http_1_0 else "HTTP/1.1")', "request"),
    "p": _PORT,
    "v": Directive('(get("SERVER_NAME") or "-")', "get", True),
    "V": Directive("host(get)", "get", True),
    "P": _PID,
    "L": _ID,
}
"""Directives without an argument, but for ``%t`` and ``%%``."""

ARGUMENTS = {
    "T": _TOTAL,
    "a": {"c": Directive("peer_part(record.peer, 0)", foreign=True, refused="peer")},
    "p": {
        "canonical": _PORT,
        "local": _PORT,
        "remote": Directive("peer_part(record.peer, 1)"),
    },
    "P": {"pid": _PID},
    "g": {
        "queued": _number("int((started - queued) * 1000000)"),
        "app": _number("int((end - started) * 1000000)"),
        "id": _ID,
        "connection": Directive("record.served", refused='"0"'),
        "worker": Directive("worker", refused="worker"),
    },
}
"""Directives whose argument is one of a few words."""

NAMES = "ioeC"
"""Directives whose argument is the name of a header, a key or a cookie."""

MOMENTS = {
    "sec": "second",
    "msec": "int(now * 1000)",
    "usec": "int(now * 1000000)",
    "msec_frac": '"%03d" % int(now % 1 * 1000)',
    "usec_frac": '"%06d" % int(now % 1 * 1000000)',
}
"""``%{...}t`` besides the formats of strftime(3)."""

_NOT_KNOWN = {
    "I": "%I, but bytes received are not counted",
    "O": "%O, but heads and framing are not counted; %B is the size of the body",
    "S": "%S, but bytes received are not counted",
}

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DIRECTIVE = re.compile(r"%(!?[0-9,]*)([<>]?)(?:\{([^}]*)\})?([A-Za-z%])")

_Stamp = Callable[[time.struct_time], str]


# -- from a text to its parts


class Format:
    """A format, taken apart.

    :raises ValueError: its text continues the sentence "--access-log-format X: ".
    """

    __slots__ = ("parts", "stamps")

    def __init__(self, text: str) -> None:
        self.parts: list[str | Directive] = []
        """Literal texts and directives in their order."""
        self.stamps: list[_Stamp] = []
        """What formats a second; a directive names it by its place, from 1."""
        at = 0
        while at < len(text):
            percent = text.find("%", at)
            literal = text[at : percent if percent >= 0 else len(text)]
            self.parts.append(_literal(literal))
            at += len(literal)
            if percent >= 0:
                found = _DIRECTIVE.match(text, at)
                if found is None:
                    begin = text[at : at + 10]
                    raise ValueError(f"has {begin!r}, which is no directive; %% is a percent sign")
                self.parts.append(self._directive(found))
                at = found.end()

    @property
    def directives(self) -> list[Directive]:
        return [part for part in self.parts if isinstance(part, Directive)]

    @property
    def template(self) -> str:
        """For the % operator, which the compiler turns into what an f-string is."""
        return "".join(
            part.replace("%", "%%") if isinstance(part, str) else "%s" for part in self.parts
        )

    @property
    def unsafe(self) -> int:
        """How many bytes of the format itself look as if they should be escaped."""
        literal = "".join(part for part in self.parts if isinstance(part, str)).encode()
        return len(literal) - len(literal.translate(None, _UNSAFE))

    def stamp(self, second: int) -> tuple[int | str, ...]:
        """The second, then all its texts."""
        moment = time.localtime(second)
        return (second, *(stamp(moment) for stamp in self.stamps))

    def _directive(self, found: re.Match[str]) -> str | Directive:
        shown = found[0]
        condition, edge, argument, letter = found.groups()
        if condition:
            raise ValueError(f"has {shown}: a directive for some statuses only is not known here")
        if edge and letter != "s":
            raise ValueError(f"has {shown}: only %s may have < or >")
        if letter == "t":
            return self._time(argument, shown)
        if argument is None and letter in PLAIN:
            return PLAIN[letter]
        if shown == "%%":
            return "%"
        if argument is not None and letter in ARGUMENTS:
            known = ARGUMENTS[letter]
            if argument not in known:
                raise ValueError(f"has {shown}; %{{...}}{letter} knows {', '.join(known)}")
            return known[argument]
        if argument is not None and letter in NAMES:
            return _named(letter, argument, shown)
        raise ValueError(f"has {_NOT_KNOWN.get(letter) or f'{shown}, which is not known here'}")

    def _time(self, argument: str | None, shown: str) -> Directive:
        if argument is None:
            return self._stamp(_apache_time)
        if argument.startswith("begin:"):
            raise ValueError(f"has {shown}, but the time in a line is that of the response's end")
        argument = argument.removeprefix("end:")
        if argument in MOMENTS:
            code = MOMENTS[argument]
            return Directive(code, "now", refused=code)

        def stamp(moment: time.struct_time) -> str:
            return escape(time.strftime(argument, moment))

        try:
            made = stamp(time.gmtime(0))
        except (ValueError, UnicodeError):
            made = ""
        if not made:
            raise ValueError(f"has {shown}, but the braces hold no format of strftime(3)")
        return self._stamp(stamp)

    def _stamp(self, stamp: _Stamp) -> Directive:
        self.stamps.append(stamp)
        code = f"stamps[{len(self.stamps)}]"
        return Directive(code, "now", refused=code)


def _apache_time(moment: time.struct_time) -> str:
    return time.strftime(f"[%d/{_MONTHS[moment.tm_mon - 1]}/%Y:%H:%M:%S %z]", moment)


def _named(letter: str, name: str, shown: str) -> Directive:
    """``%{NAME}i``, ``o``, ``e`` and ``C``."""
    if letter == "e":
        if not name or not name.isprintable():
            raise ValueError(f"has {shown}, but the braces hold no key of the environ")
        return Directive(f'get({name!r}, "-")', "get", True)
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"has {shown}, but the braces hold no name")
    if letter == "C":
        return Directive(f"cookie(get, {name!r})", "get", True)
    if letter == "o":
        return Directive(f"response_header(record.response, {name.lower()!r})", foreign=True)
    if "_" in name:
        raise ValueError(f"has {shown}, but headers with an underscore are dropped")
    key = name.upper().replace("-", "_")
    if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = f"HTTP_{key}"
    return Directive(f'get({key!r}, "-")', "get", True)


def _literal(text: str) -> str:
    r"""A text between directives; ``\"``, ``\\`` and ``\t`` mean what they mean to Apache."""
    text = re.sub(r'\\(["\\t])', lambda found: "\t" if found[1] == "t" else found[1], text)
    if re.search(r"\\[nr]", text) or not text.replace("\t", "").isprintable():
        raise ValueError("has a control character, and would not make one line")
    return text


# -- from its parts to a function


def line(
    text: str, worker: int, clock: Callable[[], float], monotonic: Callable[[], float]
) -> Line:
    """See :func:`gpulse.logformat.compile_format`."""
    form = Format(text)
    plain = [one.code for one in form.directives]
    escaped = [f"escape(str({one.code}))" if one.foreign else one.code for one in form.directives]
    needed = {step for one in form.directives for step in one.needs.split()}
    source = [
        "def line(record):",
        *(f"    {code}" for step, codes in _STEPS.items() if step in needed for code in codes),
        f"    text = {form.template!r} % ({', '.join(plain)},)",
        "    if text.isascii():",
        f"        if len(text.encode().translate(None, unsafe)) == len(text) - {form.unsafe}:",
        "            return text",
        f"    return {form.template!r} % ({', '.join(escaped)},)",
    ]
    made: Line = _make("line", source, form, worker, clock, monotonic)
    return made


def refusal(text: str, worker: int, clock: Callable[[], float]) -> Refusal:
    """See :func:`gpulse.logformat.compile_refusal`."""
    form = Format(text)
    values = [one.refused for one in form.directives]
    source = [
        "def refusal(number, peer, reason):",
        *(f"    {code}" for code in _STEPS["now"]),
        '    status = str(number or "-")',
        '    peer = escape(peer or "-")',
        f"    return {form.template + ' %s'!r} % ({', '.join([*values, 'escape(reason)'])},)",
    ]
    made: Refusal = _make("refusal", source, form, worker, clock, time.monotonic)
    return made


def _make(
    name: str,
    source: Sequence[str],
    form: Format,
    worker: int,
    clock: Callable[[], float],
    monotonic: Callable[[], float],
) -> Any:
    """The function ``name`` of ``source``, over all names that the tables use."""
    names: dict[str, Any] = {
        "clock": clock,
        "cookie": _cookie,
        "escape": escape,
        "getpid": os.getpid,
        "host": _host,
        "monotonic": monotonic,
        "peer_part": peer_part,
        "response_header": _response_header,
        "shared": [(-1,)],
        "stamp": form.stamp,
        "unsafe": _UNSAFE,
        "worker": worker,
    }
    exec(compile("\n".join(source), "<access log format>", "exec"), names)
    return names[name]


def _cookie(get: Callable[[str], Any], name: str) -> str:
    """The value of a request's cookie as it was sent."""
    for pair in str(get("HTTP_COOKIE") or "").split(";"):
        key, equals, value = pair.strip().partition("=")
        if equals and key == name:
            return value
    return "-"


def _response_header(response: Answer | None, name: str) -> str:
    """A header of the application's, by its name in lower case; one that repeats is joined."""
    if response is None:
        return "-"
    return ", ".join([value for key, value in response.headers if key.lower() == name]) or "-"


def _host(get: Callable[[str], Any]) -> str:
    """The name that the client asked for, without its port."""
    asked = str(get("HTTP_HOST") or get("SERVER_NAME") or "-")
    name, colon, port = asked.rpartition(":")
    return name if colon and port.isdecimal() else asked
