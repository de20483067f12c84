"""gpulse/store/__init__.py: the embedded store of a running site, from another process of it."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from gpulse import runtimedir, store
from gpulse.errors import PublishError, StoreError
from gpulse.runtimedir import Site
from gpulse.store.client import RedisStore


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("GPULSE_DATA_STORE", "GPULSE_HISTORY", "DJANGO_SETTINGS_MODULE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GPULSE_PULSE_APP_NAME", "found-by-a-test")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("gpulse.store._is_django", lambda: False)
    former = store.installed()
    store.install(None)
    yield tmp_path
    store.install(former)


def start(base: Path, name: str) -> socket.socket:
    directory = base / name
    directory.mkdir(mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{directory}/s")
    listener.listen()
    history = (("room:*", 10, 60.0),)
    site = Site(f"unix://{directory}/s?db=0", "found-by-a-test", "/srv/settings.py", history)
    runtimedir.announce(str(directory), site)
    return listener


def test_it_is_found_with_its_history(base: Path) -> None:
    with start(base, "gpulse-1"):
        found = store.current()
        assert isinstance(found, RedisStore)
        assert f"{base}/gpulse-1/s" in found.describe()
        assert found.rules.of("room:a") == (10, 60.0)
        assert found.rules.of("news") is None
        assert store.current() is found


def test_a_site_that_was_started_again_is_found_anew(base: Path) -> None:
    with start(base, "gpulse-1"):
        former = store.current()
    Path(base, "gpulse-1", "s").unlink()
    with start(base, "gpulse-2"):
        assert store.current() is not former
        assert f"{base}/gpulse-2/s" in store.current().describe()


def test_while_it_is_down_that_is_said_and_then_it_is_found(base: Path) -> None:
    with start(base, "gpulse-1"):
        store.current()
    Path(base, "gpulse-1", "s").unlink()
    for _ in range(2):
        with pytest.raises(PublishError, match="no site with an embedded store runs here"):
            store.current()
    with start(base, "gpulse-2"):
        assert f"{base}/gpulse-2/s" in store.current().describe()


def test_a_url_that_is_set_is_not_looked_for(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPULSE_DATA_STORE", "redis://127.0.0.1:1/3")
    with start(base, "gpulse-1"):
        assert store.current().describe() == "redis://127.0.0.1:1/3"


def test_what_was_installed_stays_whatever_else_runs(base: Path) -> None:
    installed = store.open_store("memory://")
    with start(base, "gpulse-1"):
        store.current()
        store.install(installed)
    Path(base, "gpulse-1", "s").unlink()
    assert store.current() is installed


def test_the_settings_file_is_that_of_the_settings_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "settings.py"
    target.touch()
    (tmp_path / "link.py").symlink_to(target)
    module = ModuleType("settings_of_a_test")
    module.__file__ = str(tmp_path / "link.py")
    conf = SimpleNamespace(
        settings=SimpleNamespace(configured=True, SETTINGS_MODULE="settings_of_a_test")
    )
    monkeypatch.setitem(sys.modules, "settings_of_a_test", module)
    monkeypatch.setitem(sys.modules, "django.conf", conf)
    assert store.settings_file() == os.path.realpath(target)
    conf.settings.SETTINGS_MODULE = None
    assert store.settings_file() == ""


@pytest.mark.parametrize("raw", ["room:*=5/60", {"room:*": {"size": 5, "age": 60}}])
def test_with_a_url_the_history_is_that_of_the_settings(
    base: Path, monkeypatch: pytest.MonkeyPatch, raw: object
) -> None:
    settings = {"data_store": "redis://127.0.0.1:1/3", "history": raw}
    monkeypatch.setattr("gpulse.store._django_settings", lambda: settings)
    assert store.current().rules.of("room:a") == (5, 60.0)
    store.install(None)
    monkeypatch.setenv("GPULSE_HISTORY", "room:*=7/60")
    assert store.current().rules.of("room:a") == (7, 60.0)


def test_a_history_that_cannot_be_read_is_refused_in_one_line(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPULSE_DATA_STORE", "redis://127.0.0.1:1/3")
    monkeypatch.setenv("GPULSE_HISTORY", "room")
    with pytest.raises(StoreError, match=r"GPULSE_HISTORY .*PATTERN=MESSAGES/SECONDS"):
        store.current()
