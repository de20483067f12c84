"""gpulse/store/__init__.py: the store of a URL and of a process; and the smallest parts."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gpulse import store
from gpulse.errors import PublishError, StoreError
from gpulse.store import MemoryStore, MissingStore, open_store
from gpulse.store.circuit import Circuit
from gpulse.store.client import RedisStore
from gpulse.store.quiet import Quiet


@pytest.fixture(autouse=True)
def no_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("GPULSE_DATA_STORE", "GPULSE_PULSE_APP_NAME", "DJANGO_SETTINGS_MODULE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("gpulse.store._django_settings", dict)
    # A site that runs on this machine has nothing to do with it.
    monkeypatch.setattr("gpulse.runtimedir.find", lambda *args: None)
    store.install(None)
    yield
    store.install(None)


def test_a_url_opens_its_store_without_connecting() -> None:
    assert isinstance(open_store("memory://"), MemoryStore)
    for url in ("redis://127.0.0.1:1/3", "unix:///nowhere/s", "valkeys://user:pw@h"):
        opened = open_store(url, "site")
        assert isinstance(opened, RedisStore)
        assert "pw" not in opened.describe()


def test_without_a_server_one_worker_needs_none_and_many_are_told() -> None:
    assert isinstance(open_store("", workers=1), MemoryStore)
    missing = open_store("", workers=2)
    assert isinstance(missing, MissingStore)
    with pytest.raises(PublishError, match=r"gpulse\[standard\]"):
        missing.publish("a", b"t")
    with pytest.raises(StoreError, match=r"gpulse\[standard\]"):
        missing.members("a")


def test_memory_with_many_workers_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    open_store("memory://", workers=3)
    assert "do not hear each other" in caplog.text


@pytest.mark.parametrize("name", ["", "a b", "a{b}", "x" * 65])
def test_an_app_name_that_cannot_prefix_is_refused(name: str) -> None:
    with pytest.raises(StoreError, match="app name"):
        open_store("memory://", name)


def test_publish_goes_to_the_installed_store() -> None:
    memory = MemoryStore()
    heard: list[object] = []
    memory.open_subscriber(lambda event: heard.append(event.message)).subscribe("a", print)
    store.install(memory)
    assert store.publish("a", {"n": 1}).receivers == 1
    assert store.current() is memory
    assert heard == [{"n": 1}]


def test_any_process_finds_its_store_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPULSE_DATA_STORE", "redis://127.0.0.1:1/5")
    assert store.current().describe() == "redis://127.0.0.1:1/5"
    assert store.current() is store.current()


def test_or_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"data_store": "redis://127.0.0.1:1/6", "pulse_app_name": "site"}
    monkeypatch.setattr("gpulse.store._django_settings", lambda: settings)
    assert store.current().describe() == "redis://127.0.0.1:1/6"


@pytest.mark.parametrize("url", ["", "embedded"])
def test_the_embedded_store_is_not_for_others(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GPULSE_DATA_STORE", url)
    with pytest.raises(PublishError, match="GPULSE_DATA_STORE"):
        store.publish("a", 1)


def test_a_circuit_opens_pauses_tries_once_and_closes() -> None:
    now = [0.0]
    circuit = Circuit(0.3, lambda: now[0])
    assert circuit.allows()
    circuit.open("dead")
    assert (circuit.allows(), circuit.cause) == (False, "dead")
    now[0] = 0.31
    assert [circuit.allows(), circuit.allows()] == [True, False]
    now[0] = 0.7
    assert circuit.allows()
    circuit.close()
    assert [circuit.allows(), circuit.allows(), circuit.cause] == [True, True, None]


def test_quiet_lets_one_line_through_and_counts_the_rest() -> None:
    now = [0.0]
    quiet = Quiet(10.0, lambda: now[0])
    assert [quiet.allows() for _ in range(3)] == [True, False, False]
    assert quiet.held_back == 2
    now[0] = 10.0
    assert quiet.allows()
    assert quiet.held_back == 0


def test_a_process_of_django_is_asked_for_its_settings() -> None:
    code = """
from gpulse import store
from django.conf import settings
assert store._django_settings() == {}
settings.configure(GPULSE={"data_store": "redis://127.0.0.1:1/7"})
print(store.current().describe())
"""
    environ = {key: value for key, value in os.environ.items() if key != "GPULSE_DATA_STORE"}
    environ.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environ
    )
    assert done.stdout == "redis://127.0.0.1:1/7\n", done.stderr
