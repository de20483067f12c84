"""Where a server is.  Pure; a leaf, for the maps of a cluster are made of these."""

from typing import NamedTuple


class Endpoint(NamedTuple):
    """An address to connect to: a host and port, or a unix socket."""

    host: str
    """Name or address without brackets; empty for a unix socket."""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
