"""``manage.py gpulse``: what it prints and how it fails."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError

from gpulse import store
from gpulse.historyrules import HistoryRules, parse_history
from gpulse.management.commands.gpulse import Command
from gpulse.store import MemoryStore, MissingStore


@pytest.fixture(autouse=True)
def memory() -> Iterator[MemoryStore]:
    if not settings.configured:
        settings.configure()
    made = MemoryStore(rules=HistoryRules(parse_history("room:*=10/60")))
    former = store.installed()
    store.install(made)
    yield made
    store.install(former)


def listen(memory: MemoryStore, channel: str) -> list[Any]:
    heard: list[Any] = []
    subscriber = memory.open_subscriber(lambda event: heard.append(event.message))
    subscriber.subscribe(channel, lambda error: None)
    return heard


def run(*arguments: str) -> str:
    output = io.StringIO()
    call_command(Command(), *arguments, stdout=output)
    return output.getvalue()


class FakeInput:
    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


class TestPublish:
    @pytest.mark.parametrize(
        ("arguments", "heard"),
        [
            (["hello"], "hello"),
            (["{}"], "{}"),
            (['{"a": [1]}', "--json"], {"a": [1]}),
            (['"text"', "--json"], "text"),
        ],
    )
    def test_the_message_arrives_as_what_it_is(self, memory, arguments, heard):
        found = listen(memory, "news")
        assert run("publish", "news", *arguments) == "to 1 worker\n"
        assert found == [heard]

    @pytest.mark.parametrize(
        ("data", "heard"), [(b"from a pipe\n", "from a pipe"), (b"\n\n", "\n"), (b"\xff", b"\xff")]
    )
    def test_a_dash_reads_standard_input(self, memory, monkeypatch, data, heard):
        monkeypatch.setattr("sys.stdin", FakeInput(data))
        found = listen(memory, "news")
        run("publish", "news", "-")
        assert found == [heard]

    def test_nobody_is_no_error(self):
        assert run("publish", "news", "hello") == "to 0 workers\n"

    def test_a_channel_with_a_history_gives_a_position(self):
        first, second = run("publish", "room:a", "1"), run("publish", "room:a", "2")
        assert first.startswith("to 0 workers, as ")
        epoch, _, offset = second.split()[-1].partition("-")
        assert first.split()[-1] == f"{epoch}-{int(offset) - 1}"

    def test_a_key_publishes_once(self, memory):
        found = listen(memory, "room:a")
        once = run("publish", "room:a", "hello", "--key", "k1")
        again = run("publish", "room:a", "hello", "--key", "k1")
        assert again == f"published before, as {once.split()[-1]}\n"
        assert found == ["hello"]

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["a b", "x"], "space"),
            (["news", "{", "--json"], "MESSAGE is not JSON"),
            (["news", "x", "--key", "k"], "history"),
        ],
    )
    def test_what_is_wrong_is_one_line_and_status_2(self, arguments, reason):
        with pytest.raises(CommandError, match=reason) as caught:
            run("publish", *arguments)
        assert caught.value.returncode == 2
        assert "\n" not in str(caught.value)


class TestLists:
    def test_channels_in_columns(self, memory):
        for channel in ("room:b", "room:a", "room:a", "news"):
            listen(memory, channel)
        assert run("channels") == (
            "CHANNEL  WORKERS\nnews     1\nroom:a   2\nroom:b   1\n"
        )  # fmt: skip
        assert run("channels", "room:*", "--json") == '{"room:a": 2, "room:b": 1}\n'

    def test_members_in_columns(self, memory):
        for owner in ("one", "two"):
            memory.join("lobby", "ann", owner)
        memory.join("lobby", "a member with a long name", "one")
        assert run("presence", "lobby").splitlines() == [
            "MEMBER                     SOCKETS",
            "a member with a long name  1",
            "ann                        2",
        ]
        assert json.loads(run("presence", "lobby", "--json"))["ann"] == 2

    def test_a_name_cannot_move_the_cursor(self, memory):
        memory.join("lobby", "\x1b[2Jann\n", "one")
        assert "\x1b" not in run("presence", "lobby")
        assert len(run("presence", "lobby").splitlines()) == 2

    def test_nothing_is_only_the_head(self):
        assert run("channels") == "CHANNEL  WORKERS\n"
        assert run("presence", "lobby", "--json") == "{}\n"


@pytest.mark.parametrize(
    "arguments", [["publish", "news", "x"], ["channels"], ["presence", "lobby"]]
)
def test_without_a_store_it_is_refused_with_status_6(arguments):
    store.install(MissingStore())
    with pytest.raises(CommandError, match=r"gpulse\[standard\]") as caught:
        run(*arguments)
    assert caught.value.returncode == 6
