"""The chat as people see it: real Chromium against the real server, two workers.

One server serves the module, for a start costs more than a test; each test has a room of its own.
Every wait polls until a deadline; the one fixed pause is that of the server's rate.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from pulse import CHAT, ROOT, Pulse, start_chat, until

Person = Callable[..., Page]

GUEST = re.compile(r"^an_[a-z]{6}$")
KEPT = 5
"""Messages of a room's history: few, so that a test can say more than it holds."""

_numbers = count(1)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulse]:
    """The chat on two workers with the embedded store.  The access log tells which worker took
    a socket: process, path, browser."""
    folder = tmp_path_factory.mktemp("chat")
    options = ["-w", "2", "--greenlet", "50", "--history", f"room:*={KEPT}/600"]
    log = ["--access-log", f"{folder}/access", "--access-log-format", "%P %U %{User-Agent}i"]
    pulse = start_chat(folder, *options, *log)
    yield pulse
    try:
        assert pulse.stop() == 0
    finally:
        pulse.close()


@pytest.fixture
def room(chat: Pulse) -> str:
    """The URL of an empty room."""
    number = next(_numbers)
    with database(chat) as rows:
        rows.execute(
            "INSERT INTO chat_room (slug, title) VALUES (?, ?)", (f"r{number}", f"R{number}")
        )
    return f"{chat.url}/rooms/r{number}/"


def database(chat: Pulse) -> sqlite3.Connection:
    return sqlite3.connect(chat.environ["DATABASE_URL"].removeprefix("sqlite:///"), timeout=10)


def enter(page: Page, url: str) -> str:
    """Open a room and wait until the visitor is in; returns the visitor's name."""
    page.goto(url)
    name = page.locator("body").get_attribute("data-name")
    assert name
    expect(page.locator("#state")).to_have_text("Connected")
    expect(user(page, name)).to_have_count(1)
    return name


def user(page: Page, name: str) -> Locator:
    """The row of ``name`` among the people."""
    return page.locator("#users li").filter(has_text=name)


def box(page: Page) -> Locator:
    return page.get_by_label("Your message")


def say(page: Page, text: str) -> None:
    box(page).fill(text)
    box(page).press("Enter")


def texts(page: Page) -> Locator:
    """What was said, and is acknowledged."""
    return page.locator("#messages .line:not(.pending) .text")


def last_text(page: Page) -> Locator:
    return page.locator("#messages .text").last


def stored(chat: Pulse, room: str) -> list[str]:
    """What the database has of a room."""
    path = room.removeprefix(chat.url)
    return [
        each["message"] for each in json.loads(chat.text(f"{path}messages/after/0"))["messages"]
    ]


def worker_of(chat: Pulse, agent: str) -> int:
    """The worker that took the latest socket of the browser that calls itself ``agent``."""

    def found() -> list[str]:
        lines = (chat.folder / "access").read_text().splitlines()
        return [line for line in lines if line.endswith(f"/socket {agent}")]

    return int(until(found, "a socket in the access log")[-1].split()[0])


def enter_on_both_workers(chat: Pulse, room: str, person: Person) -> tuple[Page, Page, int]:
    """Two people whose sockets two workers hold; and the worker of the first."""
    agents = (f"agent-{number}" for number in _numbers)
    first_agent = next(agents)
    first = person(user_agent=first_agent)
    enter(first, room)
    worker = worker_of(chat, first_agent)
    for _ in range(30):
        agent = next(agents)
        second = person(user_agent=agent)
        enter(second, room)
        if worker_of(chat, agent) != worker:
            return first, second, worker
        second.context.close()
    raise AssertionError("30 sockets, all on one worker")


# -- talking


def test_two_people_chat_across_two_workers(chat: Pulse, room: str, person: Person) -> None:
    ann, bob, _ = enter_on_both_workers(chat, room, person)
    names = [page.locator("body").get_attribute("data-name") or "" for page in (ann, bob)]
    assert all(GUEST.match(name) for name in names)
    assert names[0] != names[1]
    for page in (ann, bob):
        for name in names:
            expect(user(page, name)).to_have_count(1)
    say(ann, "hello bob")
    expect(last_text(bob)).to_have_text("hello bob")
    expect(bob.locator("#messages .line .name").last).to_have_text(names[0])
    say(bob, "hello ann")
    for page in (ann, bob):
        expect(texts(page)).to_have_text(["hello bob", "hello ann"])
    expect(box(ann)).to_have_value("")


def test_the_lobby_and_the_plain_socket_hear_each_other(chat: Pulse, person: Person) -> None:
    page = person()
    name = enter(page, chat.url)
    with chat.socket("/message") as plain:

        def frame(**expected: str) -> dict[str, Any]:
            while True:
                found: dict[str, Any] = json.loads(plain.recv(timeout=20))
                if expected.items() <= found.items():
                    return found

        frame(message="joined", user=name, channel="chatuser")
        plain.send("from the plain socket")
        other = frame(message="from the plain socket", channel="webchat")["user"]
        expect(last_text(page)).to_have_text("from the plain socket")
        expect(user(page, other)).to_have_count(1)
        say(page, "from the page")
        assert not frame(message="from the page", user=name, channel="webchat")["authenticated"]
        expect(texts(page).last).to_have_text("from the page")
        box(page).press("ArrowUp")
        say(page, "from the page, edited")
        frame(message="from the page, edited", user=name, channel="edited")
        leaver = person()
        gone = enter(leaver, chat.url)
        leaver.context.close()
        frame(message="gone", user=gone, channel="chatuser")
    expect(page.locator("#messages .note").last).to_have_text(f"{other} gone")


def test_lines_stay_and_an_empty_message_is_not_sent(
    chat: Pulse, room: str, person: Person
) -> None:
    page = person()
    enter(page, room)
    say(page, "   ")
    box(page).fill("")
    box(page).press_sequentially("  one ")
    box(page).press("Shift+Enter")
    box(page).press_sequentially("two ")
    page.get_by_role("button", name="Send").click()
    expect(texts(page)).to_have_text(["one two"])
    assert stored(chat, room) == ["one \ntwo"]


def test_markup_stays_text_and_links_lead_only_to_the_web(room: str, person: Person) -> None:
    ann, bob = person(), person()
    enter(ann, room)
    enter(bob, room)
    run = "document.title='broken'"
    attacks = [
        f'<img src=x onerror="{run}"><script>{run}</script>',
        f"[click](javascript:{run}) javascript:{run}",
        "[click](data:text/html,<script>alert(1)</script>)",
        f'https://example.org/"onmouseover="{run}',
        f"`<svg onload={run}>` **<iframe src=javascript:{run}>**",
        f"```\n</code></pre><script>{run}</script>\n```",
        "&lt;b&gt; &#60;i&#62; \u202e \\u003cscript\\u003e",
    ]
    for attack in attacks:
        say(ann, attack)
    expect(texts(bob)).to_have_count(len(attacks))
    expect(texts(bob).first).to_have_text(attacks[0])
    expect(texts(bob).last).to_have_text(attacks[-1])
    for page in (ann, bob):
        made = page.eval_on_selector_all(
            "#messages .text *", "all => all.map(each => each.localName)"
        )
        assert set(made) <= {"p", "a", "code", "pre", "strong", "em"}
        links = page.eval_on_selector_all(
            "#messages a", "all => all.map(({protocol, rel}) => [protocol, rel])"
        )
        assert links == [["https:", "noopener noreferrer nofollow"]]
        assert page.title().startswith("R")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "**bold** and *italic* and _too_",
            "<p><strong>bold</strong> and <em>italic</em> and <em>too</em></p>",
        ),
        ("**bold *in* bold**", "<p><strong>bold <em>in</em> bold</strong></p>"),
        ("snake_case_name 2 * 3 * 4 ** 5", "<p>snake_case_name 2 * 3 * 4 ** 5</p>"),
        ("`**as it is**`", "<p><code>**as it is**</code></p>"),
        ("a\n```py\nx = 1\n\ny\n```\nb", "<p>a</p><pre><code>x = 1\n\ny</code></pre><p>b</p>"),
        ("one\ntwo", "<p>one\ntwo</p>"),
        ("``` unclosed **b", "<p>``` unclosed **b</p>"),
        ("*" * 2000, f"<p>{'*' * 2000}</p>"),
        (
            "(see https://a.example/b_(c)).",
            '<p>(see <a href="https://a.example/b_(c)">https://a.example/b_(c)</a>).</p>',
        ),
        (
            "[here](http://a.example/)!",
            '<p><a href="http://a.example/" title="http://a.example/">here</a>!</p>',
        ),
        (
            "https:// [x](https://[) ftp://a.example",
            "<p>https:// [x](https://[) ftp://a.example</p>",
        ),
    ],
)
def test_markdown(blank: Page, text: str, expected: str) -> None:
    made = blank.evaluate(
        """async text => {
            const { markdown } = await import("/static/chat/markdown.js");
            const into = document.createElement("div");
            into.append(markdown(text));
            for (const link of into.querySelectorAll("a")) {
                link.removeAttribute("rel");
                link.removeAttribute("target");
            }
            return into.innerHTML;
        }""",
        text,
    )
    assert made == expected


@pytest.fixture(scope="module")
def blank(chat: Pulse, browser: Any) -> Iterator[Page]:
    """A page of the chat's origin without a room."""
    page = browser.new_page()
    page.goto(f"{chat.url}/rooms/")
    yield page
    page.context.close()


def test_edit_and_delete(room: str, person: Person) -> None:
    ann, bob = person(), person()
    enter(ann, room)
    enter(bob, room)
    say(ann, "a mistake")
    say(ann, "a secret")
    expect(texts(bob)).to_have_text(["a mistake", "a secret"])
    first = ann.locator("#messages .line").first
    first.hover()
    first.get_by_role("button", name="Edit this message").click()
    expect(box(ann)).to_have_value("a mistake")
    say(ann, "no mistake")
    for page in (ann, bob):
        expect(texts(page)).to_have_text(["no mistake (edited)", "a secret"])
    second = ann.locator("#messages .line").last
    second.hover()
    second.get_by_role("button", name="Delete this message").click()
    expect(texts(bob).last).to_have_text("a secret")  # it asks first
    second.get_by_role("button", name="Delete this message").click()
    for page in (ann, bob):
        expect(texts(page)).to_have_text(["no mistake (edited)", "Message deleted"])
    expect(box(ann)).to_be_focused()
    assert bob.get_by_role("button", name="Edit this message").count() == 0
    bob.reload()
    expect(texts(bob)).to_have_text(["no mistake (edited)", "Message deleted"])


def test_a_message_of_another_cannot_be_changed(room: str, person: Person) -> None:
    ann, bob = person(), person()
    enter(ann, room)
    enter(bob, room)
    say(ann, "mine")
    expect(texts(bob)).to_have_text(["mine"])
    answer = bob.evaluate(
        """async () => {
            const { connect } = await import("/static/gpulse/gpulse.js");
            const pulse = connect(location.pathname + "socket");
            const id = Number(document.querySelector("#messages .line").frame.id);
            const asked = [{ do: "edit", id, text: "yours" }, { do: "delete", id }, { do: "sing" }];
            const code = each => pulse.send(each).then(() => "done", error => error.code);
            const answer = await Promise.all(asked.map(code));
            pulse.close();
            return answer;
        }"""
    )
    assert answer == [404, 404, 400]
    expect(texts(ann)).to_have_text(["mine"])


def test_who_is_typing_is_shown_until_it_is_said(room: str, person: Person) -> None:
    ann, bob = person(), person()
    name = enter(ann, room)
    enter(bob, room)
    box(ann).press_sequentially("well")
    expect(bob.locator("#typing")).to_have_text(f"{name} is typing…")
    expect(ann.locator("#typing")).to_have_text("")
    box(ann).press("Enter")
    expect(last_text(bob)).to_have_text("well")
    expect(bob.locator("#typing")).to_have_text("")


def test_who_leaves_is_gone_but_not_with_the_second_tab(room: str, person: Person) -> None:
    ann, bob = person(), person()
    enter(ann, room)
    name = enter(bob, room)
    expect(user(ann, name)).to_have_count(1)
    second = bob.context.new_page()
    assert enter(second, room) == name
    second.close()
    say(bob, "still here")
    expect(last_text(ann)).to_have_text("still here")
    expect(user(ann, name)).to_have_count(1)
    bob.close()
    expect(user(ann, name)).to_have_count(0)
    expect(ann.locator("#messages .note").filter(has_text=name)).to_have_text(
        [f"{name} joined", f"{name} gone"]
    )


def test_the_name_stays_over_a_reload_of_the_page(room: str, person: Person) -> None:
    page = person()
    assert enter(page, room) == enter(page, room)
    expect(page.locator("#users li")).to_have_count(1)


def test_a_user_logs_in_and_out(chat: Pulse, room: str, person: Person) -> None:
    made = subprocess.run(
        [sys.executable, "manage.py", "createsuperuser", "--no-input", "--username", "ann"],
        cwd=CHAT,
        env={
            **chat.environ,
            "PYTHONPATH": str(ROOT),
            "DJANGO_SUPERUSER_PASSWORD": "correct horse",
            "DJANGO_SUPERUSER_EMAIL": "ann@example.org",
        },
        capture_output=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    page = person()
    enter(page, room)
    page.get_by_role("link", name="Log in").click()
    page.get_by_label("Username").fill("ann")
    page.get_by_label("Password").fill("correct horse")
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(room)
    expect(user(page, "ann").get_by_role("img", name="logged in")).to_be_visible()
    say(page, "it is me")
    expect(page.locator("#messages .name").last).to_contain_text("ann")
    second = page.context.new_page()
    assert enter(second, room) == "ann"
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("body")).to_have_attribute("data-name", GUEST)
    expect(page.locator("#users .name")).to_contain_text(["an_"])
    expect(second.locator("#state")).to_contain_text("You were logged out")


# -- history, read and unread


def seed(chat: Pulse, room: str, texts: list[str]) -> None:
    """Messages of somebody who left long ago."""
    slug = room.rstrip("/").rpartition("/")[2]
    with database(chat) as rows:
        ((pk,),) = rows.execute("SELECT id FROM chat_room WHERE slug = ?", (slug,)).fetchall()
        rows.executemany(
            "INSERT INTO chat_message (room_id, author, key, text, created, revision, deleted)"
            " VALUES (?, 'guest:an_before', ?, ?, '2026-01-02 03:04:05', 0, 0)",
            [(pk, f"seed-{number}", text) for number, text in enumerate(texts)],
        )


def test_history_is_paged_upwards(chat: Pulse, room: str, person: Person) -> None:
    seed(chat, room, [f"message {number}" for number in range(250)])
    page = person()
    enter(page, room)
    expect(last_text(page)).to_have_text("message 249")
    expect(texts(page)).to_have_count(100)
    expect(last_text(page)).to_be_in_viewport()
    second_page = texts(page).first
    expect(second_page).to_have_text("message 150")
    page.locator("#scroller").evaluate("scroller => scroller.scrollTop = 0")
    expect(texts(page)).to_have_count(200)
    expect(texts(page).nth(100)).to_have_text("message 150")
    expect(texts(page).nth(100)).to_be_in_viewport()  # the reader's place is kept
    page.get_by_role("button", name="Older messages").dispatch_event("click")
    expect(texts(page)).to_have_text([f"message {number}" for number in range(250)])
    expect(page.get_by_role("button", name="Older messages")).to_be_hidden()
    say(page, "and now")
    expect(last_text(page)).to_be_in_viewport()


def test_unread_messages_are_counted(chat: Pulse, room: str, person: Person) -> None:
    ann, bob = person(), person()
    enter(ann, room)
    enter(bob, room)
    say(ann, "first")
    with bob.expect_response(re.compile("/read/")):
        expect(last_text(bob)).to_have_text("first")
    link = bob.locator("#rooms a", has_text=re.compile(r"^\s*R\d+")).and_(
        bob.locator(f"[data-slug='{room.rstrip('/').rpartition('/')[2]}']")
    )
    enter(bob, chat.url)
    expect(link.locator(".unread")).to_be_hidden()
    say(ann, "second")
    expect(link.locator(".unread")).to_have_text("1 unread")  # it comes by itself
    say(ann, "third")
    expect(link.locator(".unread")).to_have_text("2 unread")
    bob.goto(f"{chat.url}/rooms/")
    expect(link.locator(".unread")).to_have_text("2 unread")  # and the server counts the same
    with bob.expect_response(re.compile("/read/")):
        link.click()
        expect(bob.locator(".first-unread .text")).to_have_text("second")
    bob.goto(f"{chat.url}/rooms/")
    expect(link.locator(".unread")).to_be_hidden()


def test_the_title_and_a_button_tell_of_what_is_out_of_sight(
    chat: Pulse, room: str, person: Person
) -> None:
    seed(chat, room, [f"message {number}" for number in range(60)])
    ann, bob = person(), person()
    enter(ann, room)
    enter(bob, room)
    expect(texts(bob)).to_have_count(60)
    title = bob.title()
    bob.locator("#scroller").evaluate("scroller => scroller.scrollTop = 300")
    expect(texts(bob).last).not_to_be_in_viewport()
    say(ann, "down here")
    expect(bob).to_have_title(f"(1) {title}")
    bob.get_by_role("button", name="1 new message").click()
    expect(last_text(bob)).to_be_in_viewport()
    expect(bob).to_have_title(title)
    expect(box(bob)).to_be_focused()


def test_a_room_is_made_and_everybody_sees_it(chat: Pulse, person: Person) -> None:
    ann, bob = person(), person()
    enter(bob, chat.url)
    enter(ann, chat.url)
    ann.get_by_label("Name of a new room").fill("Über uns")
    ann.get_by_role("button", name="Create").click()
    expect(ann.get_by_role("heading", level=1)).to_have_text("Über uns")
    assert ann.url.endswith("/rooms/%C3%BCber-uns/")
    bob.get_by_role("link", name="Über uns").click()
    expect(bob.locator("#state")).to_have_text("Connected")
    say(ann, "welcome")
    expect(texts(bob)).to_have_text(["welcome"])
    assert chat.get("/rooms/nowhere/")[0] == 404


# -- what goes wrong


def test_a_killed_worker_loses_and_doubles_nothing(chat: Pulse, room: str, person: Person) -> None:
    ann, bob, worker = enter_on_both_workers(chat, room, person)
    said = [f"number {number}" for number in range(12)]
    for number, text in enumerate(said):
        if number == 6:
            os.kill(worker, signal.SIGKILL)
        say(ann, text)
    for page in (ann, bob):
        expect(texts(page)).to_have_text(said)
    expect(ann.locator(".pending")).to_have_count(0)
    assert stored(chat, room) == said
    expect(ann.locator("#state")).to_have_text(re.compile("Connected|Caught up"))


def test_what_was_missed_offline_is_caught_up_from_the_store(room: str, person: Person) -> None:
    ann, bob = person(), person()
    enter(ann, room)
    name = enter(bob, room)
    say(bob, "before")
    for page in (ann, bob):
        expect(texts(page)).to_have_text(["before"])
    bob.context.set_offline(True)
    expect(bob.locator("#state")).to_have_text("Offline")
    expect(user(ann, name)).to_have_count(0)
    for number in range(3):
        say(ann, f"missed {number}")
    expect(texts(ann)).to_have_count(4)
    say(bob, "written offline")
    expect(bob.locator(".pending")).to_have_text(re.compile("written offline"))
    bob.context.set_offline(False)
    expect(bob.locator("#state")).to_have_text("Caught up 3 messages")
    everything = ["before", "missed 0", "missed 1", "missed 2", "written offline"]
    for page in (ann, bob):
        expect(texts(page)).to_have_text(everything)
    expect(bob.locator("#state")).to_have_text("Connected")


def test_what_the_history_no_longer_has_comes_from_the_database(room: str, person: Person) -> None:
    ann, bob = person(), person()
    enter(ann, room)
    name = enter(bob, room)
    say(ann, "before")
    expect(texts(bob)).to_have_text(["before"])
    bob.context.set_offline(True)
    expect(user(ann, name)).to_have_count(0)
    box(ann).press("ArrowUp")
    say(ann, "before, edited")
    expect(texts(ann)).to_have_text(["before, edited (edited)"])
    said = [f"missed {number}" for number in range(KEPT + 2)]
    for text in said:
        say(ann, text)
    expect(texts(ann)).to_have_count(1 + len(said))
    bob.context.set_offline(False)
    expect(bob.locator("#state")).to_have_text(f"Caught up {len(said)} messages")
    expect(texts(bob)).to_have_text(["before, edited (edited)", *said])


def test_what_was_stored_while_the_store_was_away_is_seen_when_it_is_back(
    chat: Pulse, room: str, person: Person
) -> None:
    ann, bob = person(), person()
    enter(ann, room)
    enter(bob, room)
    say(ann, "before")
    expect(texts(bob)).to_have_text(["before"])
    store = chat.store()
    os.kill(store, signal.SIGSTOP)
    try:
        say(ann, "into the void")
        until(lambda: stored(chat, room) == ["before", "into the void"], "it is in the database")
        expect(ann.locator(".pending")).to_have_count(1)
        ann.context.close()  # and will not send it again
    finally:
        os.kill(store, signal.SIGKILL)
    expect(texts(bob)).to_have_text(["before", "into the void"])
    say(bob, "it is back")
    expect(texts(bob)).to_have_text(["before", "into the void", "it is back"])
    assert stored(chat, room) == ["before", "into the void", "it is back"]


def test_a_message_waits_for_the_store_and_is_delivered_once(
    chat: Pulse, room: str, person: Person
) -> None:
    ann, bob = person(), person()
    enter(ann, room)
    enter(bob, room)
    os.kill(chat.store(), signal.SIGKILL)
    said = [f"number {number}" for number in range(3)]
    for text in said:
        say(ann, text)
    for page in (ann, bob):
        expect(texts(page)).to_have_text(said)
    expect(ann.locator(".pending")).to_have_count(0)
    assert sorted(stored(chat, room)) == said


def test_the_page_connects_again_and_keeps_what_was_typed(room: str, person: Person) -> None:
    page = person()
    sockets: list[Any] = []

    def through(route: Any) -> None:
        sockets.append(route)
        route.connect_to_server()

    page.route_web_socket(re.compile("/socket$"), through)
    name = enter(page, room)
    box(page).fill("half a sentence")
    sockets[0].close(code=4408, reason="too slow")  # after that it waits for three seconds
    expect(page.locator("#state")).to_have_text("Reconnecting")
    expect(page.locator("#wait")).to_have_text(re.compile(r"in [1-5] s…"))
    page.get_by_role("button", name="Try now").click()
    expect(page.locator("#state")).to_have_text("Connected")
    expect(user(page, name)).to_have_count(1)
    assert len(sockets) == 2
    expect(box(page)).to_have_value("half a sentence")
    box(page).press("Enter")
    expect(texts(page)).to_have_text(["half a sentence"])


def test_the_chat_works_without_websockets(room: str, person: Person) -> None:
    ann, bob = person(), person()
    ann.add_init_script("delete window.WebSocket")
    name = enter(ann, room)
    enter(bob, room)
    say(ann, "by post")
    expect(texts(bob)).to_have_text(["by post"])
    say(bob, "by stream")
    for page in (ann, bob):
        expect(texts(page)).to_have_text(["by post", "by stream"])
    expect(user(bob, name)).to_have_count(1)


def test_who_is_too_fast_keeps_the_text_and_is_told_when(
    chat: Pulse, room: str, person: Person
) -> None:
    page = person()
    enter(page, room)
    page.evaluate(
        """() => {
            for (let number = 0; number < 40; number++) {
                document.getElementById("message").value = `number ${number}`;
                document.getElementById("composer").requestSubmit();
            }
        }"""
    )
    expect(page.locator("#problem")).to_contain_text("Too fast: you can send again in 1 second")
    expect(page.locator("#problem")).to_have_text("")  # it may go on
    expect(page.locator(".pending")).to_have_count(0)
    sent = stored(chat, room)
    kept = box(page).input_value().splitlines()
    # A slow machine has a token again before the last of them comes.
    numbers = [[int(line.split()[1]) for line in lines] for lines in (sent, kept)]
    assert all(some == sorted(some) for some in numbers)
    assert sorted(numbers[0] + numbers[1]) == list(range(40))
    assert len(sent) >= 20
    assert kept
    box(page).press("Enter")
    expect(last_text(page)).to_have_text(" ".join(kept))


def test_the_limit_is_shown_and_kept(room: str, person: Person) -> None:
    page = person()
    enter(page, room)
    expect(page.locator("#left")).to_be_hidden()
    box(page).fill("x" * 1950)
    expect(page.locator("#left")).to_have_text("50 characters left")
    box(page).fill("x" * 2000)
    box(page).press("y")
    expect(page.locator("#left")).to_have_text("0 characters left")
    box(page).press("Enter")
    expect(last_text(page)).to_have_text("x" * 2000)
    expect(page.locator("#left")).to_be_hidden()


# -- for everybody


def test_the_keyboard_is_enough(room: str, person: Person) -> None:
    page = person()
    enter(page, room)
    press, write = page.keyboard.press, page.keyboard.type
    expect(box(page)).to_be_focused()
    write("on")
    press("Shift+Enter")
    write("e")
    press("Enter")
    expect(texts(page)).to_have_text(["on e"])
    write("a draft")
    press("ArrowUp")  # there is text: the arrow only moves in it
    expect(box(page)).to_have_value("a draft")
    box(page).fill("")
    press("ArrowUp")
    expect(page.get_by_text("Editing a message")).to_be_visible()
    expect(box(page)).to_have_value("on\ne")
    press("Escape")
    expect(box(page)).to_have_value("")
    press("ArrowUp")
    press("Control+a")
    write("two")
    press("Enter")
    expect(texts(page)).to_have_text(["two (edited)"])
    expect(box(page)).to_be_focused()
    press("Shift+Tab")  # backwards from the box: the message's buttons
    expect(page.get_by_role("button", name="Delete this message")).to_be_focused()
    press("Enter")
    press("Enter")
    expect(texts(page)).to_have_text(["Message deleted"])
    expect(box(page)).to_be_focused()
    press("Tab")
    expect(page.get_by_role("button", name="Send")).to_be_focused()


def test_a_screen_reader_finds_its_way(room: str, person: Person) -> None:
    page = person()
    enter(page, room)
    expect(page.get_by_role("log", name="Messages")).to_be_attached()
    expect(page.get_by_role("region", name="People here")).to_be_visible()
    expect(page.get_by_role("navigation", name="Rooms")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("Connected")
    expect(page.get_by_role("textbox", name="Your message")).to_be_focused()
    assert page.locator("#rooms [aria-current=page]").count() == 1
    unnamed = page.eval_on_selector_all(
        "button, a, input:not([type=hidden]), textarea",
        "all => all.filter(each => !(each.innerText || each.ariaLabel || each.labels?.length))",
    )
    assert unnamed == []


@pytest.mark.parametrize(
    ("picture", "options"),
    [
        ("desktop", {"viewport": {"width": 1180, "height": 760}, "color_scheme": "light"}),
        ("dark", {"viewport": {"width": 1180, "height": 760}, "color_scheme": "dark"}),
        (
            "phone",
            {
                "viewport": {"width": 360, "height": 700},
                "color_scheme": "light",
                "device_scale_factor": 2,
                "is_mobile": True,
                "has_touch": True,
            },
        ),
    ],
)
def test_the_page_looks_right(
    room: str, person: Person, screenshots: Path, picture: str, options: dict[str, Any]
) -> None:
    page, other = person(**options), person()
    enter(page, room)
    name = enter(other, room)
    say(other, "Good morning! Is this the room for the **release**?")
    expect(last_text(page)).to_contain_text("release")
    say(page, "It is. The new workers took over ten minutes ago; *nobody* was disconnected.")
    say(page, "```sh\npython manage.py pulse --workers 4 --greenlet 200\n```")
    say(page, "a-word-without-end-" * 12)
    expect(texts(page)).to_have_count(4)
    box(page).press("ArrowUp")
    say(page, "See https://example.org/notes")
    expect(last_text(page)).to_contain_text("(edited)")
    box(other).press_sequentially("Wow")
    expect(page.locator("#typing")).to_have_text(f"{name} is typing…")
    page.screenshot(path=screenshots / f"{picture}.png")
    overflow = page.evaluate(
        "(root => [root.scrollWidth - innerWidth, root.scrollHeight - innerHeight])"
        "(document.documentElement)"
    )
    assert max(overflow) <= 0, "the page scrolls as a whole: sideways, or away from the message box"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    darkness = sum(map(int, re.findall(r"\d+", background)[:3])) < 3 * 128
    assert darkness == (options["color_scheme"] == "dark")
    log, people = page.get_by_role("log").bounding_box(), page.locator("#here")
    assert log
    if picture != "phone":
        beside = people.bounding_box()
        assert beside
        assert beside["x"] > log["x"] + log["width"] / 2
        return
    expect(people).to_be_hidden()
    assert log["width"] > 300, "one column, as wide as the phone"
    page.get_by_role("button", name="2 here").click()
    expect(user(page, name)).to_be_visible()
    page.screenshot(path=screenshots / "phone-people.png")
    page.get_by_role("link", name="Rooms").click()
    expect(page.get_by_role("navigation", name="Rooms")).to_be_visible()
    page.screenshot(path=screenshots / "phone-rooms.png")
