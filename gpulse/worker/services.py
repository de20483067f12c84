"""What a worker offers to the code that runs in it; every environ carries it as
``gpulse.services``."""

from dataclasses import dataclass

from gpulse.store.base import Store
from gpulse.store.fanout import Fanout
from gpulse.store.presence import Presence
from gpulse.websocket.sockets import Sockets
from gpulse.websocket.watch import AccountWatch
from gpulse.worker.pools import Pool

ENVIRON_KEY = "gpulse.services"


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a worker that consumers use."""

    pool: Pool
    sockets: Sockets
    store: Store
    fanout: Fanout
    presence: Presence
    accounts: AccountWatch
