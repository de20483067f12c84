"""gpulse/runtimedir.py: the record of a running site, and who believes it."""

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpulse import runtimedir
from gpulse.errors import StoreError
from gpulse.runtimedir import Site, announce, find


class Place:
    """A directory in which sites may have theirs; nothing else is looked at."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.environ = {"XDG_RUNTIME_DIR": str(base)}
        self.sockets: list[socket.socket] = []

    def start(self, name: str = "mysite", settings: str = "/srv/settings.py") -> Path:
        directory = self.base / f"gpulse-{len(self.sockets)}"
        directory.mkdir(mode=0o700)
        listener = socket.socket(socket.AF_UNIX)
        self.sockets.append(listener)
        listener.bind(str(directory / "s"))
        listener.listen()
        announce(str(directory), self.site(directory, name, settings))
        return directory

    @staticmethod
    def site(directory: Path, name: str = "mysite", settings: str = "/srv/settings.py") -> Site:
        return Site(f"unix://{directory}/s?db=0", name, settings, (("room:*", 100, 300.0),))

    def find(self, name: str = "mysite", settings: str = "/srv/settings.py") -> Site | None:
        return find(name, settings, self.environ)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(runtimedir, "_services", list)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    made = Place(tmp_path)
    yield made
    for listener in made.sockets:
        listener.close()


def test_what_a_worker_announced_is_found_as_it_was(place: Place) -> None:
    directory = place.start()
    assert place.find() == place.site(directory)
    assert runtimedir.socket_path(place.site(directory)) == f"{directory}/s"
    assert (directory / "site.json").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in directory.iterdir()) == ["s", "site.json"]


def test_a_later_record_takes_the_place_of_the_earlier(place: Place) -> None:
    directory = place.start()
    announce(str(directory), replace(place.site(directory), history=()))
    found = place.find()
    assert found is not None
    assert found.history == ()


def test_another_name_and_other_settings_are_another_site(place: Place) -> None:
    place.start("one", "/srv/one.py")
    directory = place.start("two", "/srv/two.py")
    assert place.find("two", "/srv/two.py") == place.site(directory, "two", "/srv/two.py")
    assert place.find("two", "/srv/one.py") is None
    assert place.find("three", "/srv/one.py") is None


def test_a_process_without_django_goes_by_the_name(place: Place) -> None:
    directory = place.start()
    assert place.find(settings="") == place.site(directory)


def test_two_that_fit_are_refused_with_what_to_do(place: Place) -> None:
    place.start()
    place.start()
    with pytest.raises(StoreError, match=r"2 sites named 'mysite'.*GPULSE_DATA_STORE"):
        place.find()


def test_one_that_was_killed_is_passed_over(place: Place) -> None:
    place.start()
    directory = place.start()
    place.sockets[0].close()
    assert place.find() == place.site(directory)


def test_a_directory_that_others_can_enter_is_not_believed(place: Place) -> None:
    place.start().chmod(0o750)
    assert place.find() is None


def test_a_directory_of_another_user_is_not_believed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.start()
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert place.find() is None


def test_a_link_to_a_directory_is_not_followed(place: Place, tmp_path: Path) -> None:
    directory = place.start()
    (tmp_path / "gpulse-link").symlink_to(directory)
    directory.rename(tmp_path / "elsewhere")
    assert place.find() is None


def test_a_link_to_a_record_is_not_followed(place: Place, tmp_path: Path) -> None:
    directory = place.start()
    record = directory / "site.json"
    record.rename(tmp_path / "record")
    record.symlink_to(tmp_path / "record")
    assert place.find() is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "\xff",
        json.dumps({"url": 1, "app_name": "mysite", "settings_file": "", "history": []}),
        json.dumps(
            {
                "url": "unix:///tmp/other/s?db=0",  # a socket elsewhere
                "app_name": "mysite",
                "settings_file": "/srv/settings.py",
                "history": [],
            }
        ),
        " " * runtimedir.RECORD_BYTES + "{}",
    ],
)
def test_a_record_that_makes_no_sense_is_none(place: Place, content: str) -> None:
    directory = place.start()
    (directory / "site.json").write_text(content, encoding="latin-1")
    assert place.find() is None


def test_no_site_at_all_is_none(place: Place) -> None:
    assert place.find() is None


def test_the_record_is_ours_alone_whatever_the_umask(place: Place) -> None:
    earlier = os.umask(0)
    try:
        directory = place.start()
    finally:
        os.umask(earlier)
    assert (directory / "site.json").stat().st_mode & 0o777 == 0o600
