"""The bounds of the HTTP front in one object, as its parts use them.

What a site may choose is a row of ``gpulse.options``, which says the default and the precedent it
follows; the rest is said here.
"""

from dataclasses import dataclass, field
from typing import Any

from gpulse.config import Config
from gpulse.options import BY_NAME


def _option(name: str) -> Any:
    """The default and the name of the option that sets the field."""
    return field(default=BY_NAME[name].default, metadata={"option": name})


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, rates in bytes per second, the rest counts."""

    request_line: int = _option("limit_request_line")
    header_count: int = _option("limit_request_fields")
    head: int = _option("limit_request_head")
    body: int = _option("limit_request_body")
    chunk_overhead: int = _option("limit_chunk_overhead")
    trailers: int = _option("limit_trailers")
    spool: int = _option("spool_threshold")
    spool_memory: int = _option("spool_memory")
    spool_directory: str | None = _option("spool_directory")
    connections: int = _option("max_connections")
    connection_requests: int = _option("max_connection_requests")
    queue: int = _option("max_queued")
    queue_timeout: float = _option("queue_timeout")
    head_timeout: float = _option("head_timeout")
    body_stall: float = _option("body_timeout")
    body_rate: int = _option("body_min_rate")
    write_stall: float = _option("write_timeout")
    write_rate: int = _option("write_min_rate")
    pipelined: int = 65_536
    """Unparsed bytes kept while a request runs, beside the last read: then reading stops until the
    response is out."""
    linger: float = 2.0
    """Before a close with the client's bytes on the way: how long these are read and thrown away,
    so that the client sees the last response and not a reset (RFC 9112, 9.6)."""
    linger_bytes: int = 65_536
    """How much is read so; an endless upload is cut off."""

    @classmethod
    def of(cls, config: Config) -> "Limits":
        """The bounds that the options ask for."""
        chosen = {
            name: getattr(config, each.metadata["option"])
            for name, each in cls.__dataclass_fields__.items()
            if "option" in each.metadata
        }
        return cls(**chosen)
