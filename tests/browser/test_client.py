"""gpulse.js in a real Chromium against the real server: two workers, the embedded store, and a page
with a strict content security policy (a breach of it fails the test, see conftest)."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect
from pulse import Pulse, until

Person = Callable[..., Page]

SITE = Path(__file__).with_name("site")
REFUSED = """pulse.send({code: 429}).catch(
    ({code, retryAfter, message}) => [code, retryAfter, message])"""
DENIED = """new Promise((onError) => pulse.subscribe('secret', {onError})).then(
    ({code}) => code)"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulse]:
    pulse = Pulse(
        tmp_path_factory.mktemp("client"), "-w", "2", "--greenlet", "20", site=SITE
    ).ready()
    yield pulse
    try:
        assert pulse.stop() == 0
    finally:
        pulse.close()


def enter(page: Page, server: Pulse, socket: str = "socket", state: str = "open websocket") -> None:
    page.goto(f"{server.url}/?socket={quote(socket)}")
    expect(page.locator("#state")).to_have_text(state)
    if state.startswith("open"):
        expect(page.locator("#notes li").first).to_have_text("subscribed")


def publish(server: Pulse, *texts: str) -> None:
    """Each once, also when the worker that is asked for it dies."""
    for text in texts:
        query = urlencode({"channel": "room:a", "text": text, "key": uuid4().hex})
        until(lambda query=query: server.get(f"/publish?{query}")[0] == 204)


def events(page: Page) -> Any:
    return page.locator("#events li")


def test_a_message_goes_round(server: Pulse, person: Person) -> None:
    ann, bob = person(), person()
    enter(ann, server, "socket?name=ann")
    enter(bob, server, "socket?name=bob")
    for page in (ann, bob):
        expect(page.locator("#members")).to_have_text("ann bob")
    answer = ann.evaluate("pulse.send({text: 'hello'}, {key: 'k1'})")
    assert answer["key"] == "k1"
    ann.evaluate("pulse.send({text: 'hello'}, {key: 'k1'})")
    publish(server, "there")
    for page in (ann, bob):
        expect(events(page)).to_have_text(["hello", "there"])
    assert ann.evaluate("pulse.presence('room:a')") == {"ann": 1, "bob": 1}
    assert ann.evaluate(REFUSED) == [429, 2, "as you like"]
    assert ann.evaluate(DENIED) == 403
    bob.close()
    expect(ann.locator("#members")).to_have_text("ann")


def test_a_worker_is_killed_and_no_message_is_lost_or_doubled(
    server: Pulse, person: Person
) -> None:
    page = person()
    enter(page, server)
    said = [f"said-{number}" for number in range(30)]
    page.evaluate(
        """texts => {
            window.answers = Promise.all(texts.map(async (text, index) => {
                await new Promise((resolve) => setTimeout(resolve, index * 20));
                return pulse.send({text});
            }));
        }""",
        said,
    )
    published = [f"published-{number}" for number in range(30)]
    publish(server, *published[:10])
    os.kill(int(page.locator("#pid").inner_text()), signal.SIGKILL)
    publish(server, *published[10:])
    assert len(page.evaluate("answers")) == len(said)
    expect(events(page)).to_have_count(60)
    seen = events(page).all_inner_texts()
    assert sorted(seen) == sorted(said + published)
    assert [text for text in seen if text in published] == published
    assert "waiting 1006" in page.locator("#states li").all_inner_texts()
    assert "gap" not in page.locator("#notes li").all_inner_texts()
    until(lambda: len(server.workers()) == 2)


def test_offline_and_back(server: Pulse, person: Person) -> None:
    page = person()
    enter(page, server)
    page.context.set_offline(True)
    expect(page.locator("#state")).to_have_text("offline")
    page.evaluate("void (window.answer = pulse.send({text: 'from the tunnel'}))")
    publish(server, "one", "two", "three")
    page.context.set_offline(False)
    expect(page.locator("#state")).to_have_text("open websocket")
    expect(page.locator("#notes li").last).to_have_text("again, 3 missed")
    assert page.evaluate("answer")["key"]
    expect(events(page)).to_have_text(["one", "two", "three", "from the tunnel"])


def test_a_network_without_websockets(server: Pulse, person: Person) -> None:
    page = person()
    enter(page, server, "blocked?name=eve", "open stream")
    tried = page.locator("#states li").all_inner_texts()
    assert tried.count("waiting 1006") == 2
    expect(page.locator("#members")).to_contain_text("eve")
    publish(server, "down")
    expect(events(page)).to_have_text(["down"])
    assert page.evaluate("pulse.send({text: 'up'}, {key: 'k2'})")["key"] == "k2"
    expect(events(page)).to_have_text(["down", "up"])
    assert page.evaluate("pulse.presence('room:a')")["eve"] == 1
    assert page.evaluate(REFUSED) == [429, 2, "as you like"]
    # Another subscription is another stream, which goes on where the first one was.
    page.evaluate("new Promise((onSubscribed) => pulse.subscribe('news', {onSubscribed}))")
    os.kill(int(page.locator("#pid").inner_text()), signal.SIGKILL)
    publish(server, "one", "two", "three")
    expect(events(page)).to_have_text(["down", "up", "one", "two", "three"])
    until(lambda: len(server.workers()) == 2)
    assert page.evaluate(DENIED) == 403
    publish(server, "still here")
    expect(events(page).last).to_have_text("still here")


def test_the_end_for_good(server: Pulse, person: Person) -> None:
    page = person()
    enter(page, server)
    code = page.evaluate("pulse.send({close: 4401}).then(() => pulse.send({}), ({code}) => code)")
    assert code in ("closed", None)
    expect(page.locator("#state")).to_have_text("closed 4401")
    page.context.set_offline(True)
    page.context.set_offline(False)
    page.evaluate("pulse.reconnect()")
    expect(page.locator("#state")).to_have_text("closed 4401")
    assert page.evaluate("pulse.send(1).catch(({code}) => code)") == "closed"


def test_not_admitted(server: Pulse, person: Person, browser: Browser) -> None:
    """The close code tells a WebSocket, the status a stream."""
    enter(person(), server, "refused", "closed 4401")
    with browser.new_context() as context:  # not a person's: the browser says 401 on the console
        enter(context.new_page(), server, "refused-blocked", "closed 4401")
