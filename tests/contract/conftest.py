"""The stores that one contract is tested on: in memory, and a real Valkey reached in three ways."""

from collections.abc import Iterator

import pytest
from contract.store_ground import Ear, Ground
from services import Valkey, start_valkey

from gpulse.store import Store

KINDS = ("memory", "unix", "tcp db 3", "password")


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[Valkey]:
    with start_valkey(port=True, db=3) as valkey:
        yield valkey


@pytest.fixture(scope="session")
def guarded_valkey() -> Iterator[Valkey]:
    with start_valkey(port=True, password="p@ss/word") as valkey:
        yield valkey


@pytest.fixture(params=KINDS)
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    if request.param == "memory":
        url = "memory://"
    elif request.param == "password":
        url = request.getfixturevalue("guarded_valkey").url
    else:
        valkey = request.getfixturevalue("shared_valkey")
        url = valkey.unix_url if request.param == "unix" else valkey.url
    place = Ground(url)
    yield place
    place.close()


@pytest.fixture
def store(ground: Ground) -> Store:
    return ground.open()


@pytest.fixture
def ear(ground: Ground, store: Store) -> Ear:
    return ground.ear(store)
