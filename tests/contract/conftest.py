"""What one contract is tested on: stores in memory, in a real Valkey reached in three ways,
behind real sentinels and in a real cluster, and sites on greenlets and on threads."""

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from contract.store_ground import Ear, Ground
from contract.wsgi_site import Site, open_descriptors, until
from services import Cluster, Sentinels, Valkey, start_cluster, start_sentinels, start_valkey

from gpulse.store import Store
from gpulse.worker.greenlets import GreenletPool
from gpulse.worker.threads import ThreadPool

KINDS = ("memory", "unix", "tcp db 3", "password", "sentinel", "cluster")


SERVERS = {
    "password": "guarded_valkey",
    "sentinel": "shared_sentinels",
    "cluster": "shared_cluster",
}


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[Valkey]:
    with start_valkey(port=True, db=3) as valkey:
        yield valkey


@pytest.fixture(scope="session")
def guarded_valkey() -> Iterator[Valkey]:
    with start_valkey(port=True, password="p@ss/word") as valkey:
        yield valkey


@pytest.fixture(scope="session")
def shared_sentinels() -> Iterator[Sentinels]:
    with start_sentinels() as sentinels:
        yield sentinels


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    with start_cluster() as cluster:
        yield cluster


@pytest.fixture(params=KINDS)
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    if request.param == "memory":
        url = "memory://"
    elif request.param in ("password", "sentinel", "cluster"):
        url = request.getfixturevalue(SERVERS[request.param]).url
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


@pytest.fixture(params=[GreenletPool, ThreadPool], ids=["greenlets", "threads"])
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[..., Site]]:
    """``serve(application, **site)`` gives a Site; at the end nothing of it may be left open."""
    sites: list[tuple[Site, int]] = []

    def start(application: Any, **kwargs: Any) -> Site:
        # gevent's file threads and their descriptors stay for the next test.
        gevent.get_hub().threadpool.apply(int)
        before = open_descriptors()
        site = Site(request.param, application, **kwargs)
        sites.append((site, before))
        return site

    yield start
    for site, before in reversed(sites):
        site.close()
        until(lambda before=before: open_descriptors() <= before)
