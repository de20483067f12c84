"""The chat as people see it: real Chromium against the real server, two workers.

Every wait is playwright's: it polls until the deadline, so nothing here sleeps.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

Person = Callable[..., Page]

GUEST = re.compile(r"\Aan_[a-z]{6}\Z")


def enter(page: Page, url: str) -> str:
    """Open the chat and wait until the visitor is in; returns the visitor's name."""
    page.goto(url)
    name = page.locator("body").get_attribute("data-name")
    assert name
    expect(page.locator("#status")).to_have_text("Connected")
    expect(user(page, name)).to_be_visible()
    return name


def user(page: Page, name: str) -> Any:
    """The row of ``name`` in the users panel."""
    return page.locator("#users li").filter(has_text=name)


def say(page: Page, text: str) -> None:
    box = page.get_by_label("Your message")
    box.fill(text)
    box.press("Enter")


def last_text(page: Page) -> Any:
    return page.locator("#messages .text").last


def test_two_people_chat(chat_server: Any, person: Person) -> None:
    ann, bob = person(), person()
    names = enter(ann, chat_server.url), enter(bob, chat_server.url)
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
        expect(last_text(page)).to_have_text("hello ann")
    expect(ann.get_by_label("Your message")).to_have_value("")


def test_lines_are_joined_and_an_empty_message_is_not_sent(
    chat_server: Any, person: Person
) -> None:
    page = person()
    enter(page, chat_server.url)
    say(page, "   ")
    box = page.get_by_label("Your message")
    box.fill("")
    box.press_sequentially("  one ")
    box.press("Shift+Enter")
    box.press("Shift+Enter")
    box.press_sequentially(" two ")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#messages .text")).to_have_text(["one two"])


def test_markup_in_a_message_stays_text(chat_server: Any, person: Person) -> None:
    ann, bob = person(), person()
    enter(ann, chat_server.url)
    enter(bob, chat_server.url)
    run = "document.title='broken'"
    attack = f'<img src=x onerror="{run}"><script>{run}</script>'
    say(ann, attack)
    expect(last_text(bob)).to_have_text(attack)
    assert bob.locator("#messages img, #messages script").count() == 0
    assert bob.title() == "Chat"


def test_who_leaves_is_gone_but_not_with_the_second_tab(chat_server: Any, person: Person) -> None:
    ann, bob = person(), person()
    enter(ann, chat_server.url)
    name = enter(bob, chat_server.url)
    expect(user(ann, name)).to_have_count(1)
    second = bob.context.new_page()
    assert enter(second, chat_server.url) == name
    second.close()
    say(bob, "still here")
    expect(last_text(ann)).to_have_text("still here")
    expect(user(ann, name)).to_have_count(1)
    bob.close()
    expect(user(ann, name)).to_have_count(0)
    expect(ann.locator("#messages .note").last).to_have_text(f"{name} gone")
    expect(ann.locator("#messages .note").filter(has_text=name)).to_have_text(
        [f"{name} joined", f"{name} gone"]
    )


def test_the_name_stays_over_a_reload_of_the_page(chat_server: Any, person: Person) -> None:
    page = person()
    assert enter(page, chat_server.url) == enter(page, chat_server.url)
    expect(page.locator("#users li")).to_have_count(1)


def test_the_page_connects_again_and_keeps_what_was_typed(chat_server: Any, person: Person) -> None:
    page = person()
    sockets: list[Any] = []

    def through(route: Any) -> None:
        sockets.append(route)
        route.connect_to_server()

    page.route_web_socket(re.compile("/message$"), through)
    name = enter(page, chat_server.url)
    page.get_by_label("Your message").fill("half a sentence")
    sockets[0].close(code=1012, reason="restart")
    expect(page.locator("#status")).to_have_text("Connected")
    expect(user(page, name)).to_have_count(1)
    assert len(sockets) == 2
    expect(page.get_by_label("Your message")).to_have_value("half a sentence")
    page.get_by_label("Your message").press("Enter")
    expect(last_text(page)).to_have_text("half a sentence")


def test_the_limit_is_shown_and_kept(chat_server: Any, person: Person) -> None:
    page = person()
    enter(page, chat_server.url)
    box = page.get_by_label("Your message")
    box.fill("x" * 1950)
    expect(page.locator("#left")).to_have_text("50 characters left")
    box.fill("x" * 2000)
    box.press("y")
    expect(page.locator("#left")).to_have_text("0 characters left")
    box.press("Enter")
    expect(last_text(page)).to_have_text("x" * 2000)
    expect(page.locator("#left")).to_have_text("2000 characters left")


def test_the_keyboard_and_a_screen_reader_find_their_way(chat_server: Any, person: Person) -> None:
    page = person()
    enter(page, chat_server.url)
    expect(page.get_by_label("Your message")).to_be_focused()
    expect(page.get_by_role("log", name="Messages")).to_be_visible()
    expect(page.get_by_role("region", name="Users")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("Connected")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Send")).to_be_focused()


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
    chat_server: Any, person: Person, screenshots: Path, picture: str, options: dict[str, Any]
) -> None:
    page, other = person(**options), person()
    enter(page, chat_server.url)
    enter(other, chat_server.url)
    say(other, "Good morning! Is this the room for the release?")
    expect(last_text(page)).to_contain_text("release")
    say(page, "It is. The new workers took over ten minutes ago; nobody was disconnected.")
    say(page, "a-word-without-end-" * 12)
    expect(page.locator("#messages .text")).to_have_count(3)
    page.screenshot(path=screenshots / f"{picture}.png")
    overflow = page.evaluate(
        "(root => [root.scrollWidth - innerWidth, root.scrollHeight - innerHeight])"
        "(document.documentElement)"
    )
    assert max(overflow) <= 0, "the page scrolls as a whole: sideways, or away from the message box"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    darkness = sum(map(int, re.findall(r"\d+", background)[:3])) < 3 * 128
    assert darkness == (options["color_scheme"] == "dark")
    users, log = page.locator("#users").bounding_box(), page.locator("#messages").bounding_box()
    assert users
    assert log
    assert (users["y"] < log["y"]) == (picture == "phone"), "one column on a phone, two elsewhere"
