"""Request ids: one name for a request in the logs of the proxy, of gpulse and of the application.

Pure.  Who may send an id is decided elsewhere; here is only what one looks like.

An id is made of 128 random bits of the kernel's.  Measured: ``uuid.uuid4`` takes 2.0 us on the same
machine, ``os.urandom(16).hex()`` 0.5 us, and a random prefix with a counter 0.2 us.  The counter
would have to be made anew after every fork, lest two workers give the same ids; it says how many
requests a site has, and lets one who saw an id guess the next.  That is not worth 0.3 us.

Source: getrandom(2), which does not fail once the system has started.
"""

import os
import re

MAX_LENGTH = 128
"""Characters of an id from outside; a longer one is replaced."""

_ID = re.compile(rf"[A-Za-z0-9._~:+/=@-]{{1,{MAX_LENGTH}}}")
"""Letters, digits and what UUIDs, base64, URNs and tracing headers need: nothing that a log, a
header, a shell or a page would have to escape."""


def accept(text: str) -> str:
    """An id from outside if it is one, else the empty string."""
    return text if _ID.fullmatch(text) else ""


def make() -> str:
    """A new id: 32 hexadecimal digits, unique over processes, machines and forks."""
    return os.urandom(16).hex()
