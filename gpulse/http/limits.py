"""The bounds of the HTTP front, in one place, each with the precedent it follows."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, the rest counts."""

    request_line: int = 8190
    """Longest request target (Apache's LimitRequestLine); longer is 414."""
    header_count: int = 100
    """Most header fields (Apache's LimitRequestFields, gunicorn); more is 431."""
    head: int = 65_536
    """Longest request head (uWSGI's largest buffer-size; nginx allows 32 KiB); longer is 431."""
    body: int = 1_073_741_824
    """Longest request body (waitress' max_request_body_size); longer is 413, before it is read."""
    spool: int = 524_288
    """Body bytes kept in memory (waitress' inbuf_overflow); the rest goes to a temporary file."""
    chunk_overhead: int = 16_384
    """Most bytes of chunk sizes, extensions and trailers beyond eight times the data (Go's net/http
    counts so too); more is 400."""
    pipelined: int = 65_536
    """Unparsed bytes kept while a request runs; then reading stops until its response is out."""
    queue: int = 1024
    """Requests that wait for a pool member; more are answered 503."""
    queue_timeout: float = 10.0
    """Longest wait for a pool member; then 503."""
    head_timeout: float = 10.0
    """From a request's first byte to the end of its head; then 408."""
    body_stall: float = 30.0
    """Longest silence within a body; then 408."""
    write_stall: float = 30.0
    """Longest time in which a client takes not one byte of a buffered response; then it is cut
    off."""
    linger: float = 2.0
    """After an error: how long the rest of the request is read and thrown away, so that the client
    sees the answer and not a reset (RFC 9112, 9.6)."""
    linger_bytes: int = 65_536
    """How much is read so; an endless upload is cut off."""
