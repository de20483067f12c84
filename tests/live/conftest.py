"""Fixtures of the live tests: a pulse in either mode, stopped and inspected at the end."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from master_process import MasterProcess
from pulse import Pulse, start_chat
from services import start_valkey

MODES = {"greenlet": ["--greenlet", "50"], "thread": ["--thread-workers", "5"]}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Pulse]]:
    """Start a pulse with the given options; whatever it left running is ended."""
    started: list[Pulse] = []

    def start_pulse(*options: str, **keywords: object) -> Pulse:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        pulse = Pulse(folder, *options, **keywords)  # type: ignore[arg-type]
        started.append(pulse)
        return pulse

    yield start_pulse
    for pulse in started:
        pulse.close()


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Callable[..., Pulse]]:
    """Start the chat example, which has users, with its own database."""
    started: list[Pulse] = []

    def start_with(*options: str) -> Pulse:
        started.append(start_chat(tmp_path, *options))
        return started[-1]

    yield start_with
    for pulse in started:
        pulse.close()


@pytest.fixture(params=["embedded", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    """The options of one data store."""
    if request.param == "embedded":
        yield []
        return
    directory = tmp_path / "valkey"
    directory.mkdir()
    with start_valkey(directory, port=True) as server:
        yield ["--data-store", server.url]


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> list[str]:
    """The options of one mode."""
    return MODES[request.param]


@pytest.fixture
def start_master(tmp_path: Path) -> Iterator[Callable[..., MasterProcess]]:
    """Start a master over its stub worker; at the end nothing of it may be left."""
    started: list[MasterProcess] = []

    def start_process(**options: object) -> MasterProcess:
        master = MasterProcess(tmp_path, **options)
        started.append(master)
        return master

    yield start_process
    for master in started:
        master.close()
        master.assert_gone()
