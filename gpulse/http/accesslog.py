"""The access log: one line per request in Apache's combined format, with the time taken in
microseconds.

Pool members call it; the line goes to a bounded writer whose native thread does the I/O, so neither
the hub nor a request waits for a disk.  Fields that come from the client are escaped: a quote or a
control character can neither end a field nor a line.
"""

import time
from collections.abc import Callable
from typing import Any

from gpulse.http.exchange import Exchange

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_ESCAPES[ord('"')] = '\\"'
_ESCAPES[ord("\\")] = "\\\\"


def escape(text: str) -> str:
    """A client's text, safe between double quotes on one line."""
    return text.translate(_ESCAPES)


class AccessLog:
    """Formats lines and hands them on.

    :param write: takes one line without its newline; must not block.
    :param clock: seconds since the epoch.
    """

    __slots__ = ("_clock", "_stamp", "_write")

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = time.time
    ) -> None:
        self._write = write
        self._clock = clock
        self._stamp = (0, "")

    def _time(self) -> str:
        now = int(self._clock())
        second, text = self._stamp
        if second != now:
            text = time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(now))
            self._stamp = (now, text)
        return text

    def write_exchange(self, exchange: Exchange) -> None:
        """One line for a request that an application answered."""
        environ: dict[str, Any] = exchange.environ
        request = exchange.request
        response = exchange.response
        status, size = "-", 0
        if exchange.switched:
            status = "101"
        elif response is not None and response.status:
            status, size = response.status[:3], response.sent
        taken = int((time.monotonic() - exchange.started) * 1_000_000)
        self._write(
            f"{environ.get('REMOTE_ADDR') or '-'} - - [{self._time()}] "
            f'"{request.method} {escape(request.target.decode("latin-1"))} '
            f'HTTP/1.{0 if request.is_http_1_0 else 1}" {status} {size} '
            f'"{escape(str(environ.get("HTTP_REFERER", "-")))}" '
            f'"{escape(str(environ.get("HTTP_USER_AGENT", "-")))}" {taken}'
        )

    def write_refusal(self, status: int, peer: str, reason: str) -> None:
        """One line for a request that no application saw."""
        self._write(f'{peer} - - [{self._time()}] "-" {status} 0 "-" "-" 0 {escape(reason)}')
