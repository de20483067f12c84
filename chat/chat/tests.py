"""Tests of the chat without a server: ``python manage.py test``.

The page is asked for through Django's test client.  The consumer is ordinary code: the tests give
it a written stand-in for what the server does (send, publish, presence) and look at what it said.
"""

import json
from types import SimpleNamespace
from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.test import RequestFactory, SimpleTestCase, TestCase

from chat.consumers import MESSAGE_LIMIT, ROOM, Room, one_line
from chat.visitors import Visitor, named


class PageTest(TestCase):
    def name_on_page(self) -> str:
        return self.client.get("/").context["visitor"].name

    def test_a_newcomer_is_given_a_name_once(self) -> None:
        name = self.name_on_page()
        self.assertRegex(name, r"\Aan_[a-z]{6}\Z")
        self.assertEqual(self.name_on_page(), name)
        self.assertNotEqual(self.client_class().get("/").context["visitor"].name, name)

    def test_a_user_is_called_by_the_username(self) -> None:
        self.client.force_login(User.objects.create_user("ann"))
        self.assertEqual(self.name_on_page(), "ann")
        self.assertContains(self.client.get("/"), "Log out")

    def test_who_logs_out_is_a_guest_again(self) -> None:
        self.client.force_login(User.objects.create_user("ann"))
        self.assertRedirects(self.client.post("/accounts/logout/"), "/")
        self.assertRegex(self.name_on_page(), r"\Aan_[a-z]{6}\Z")

    def test_a_name_is_escaped(self) -> None:
        self.client.force_login(User.objects.create_user("<b>ann</b>"))
        self.assertContains(self.client.get("/"), 'data-name="&lt;b&gt;ann&lt;/b&gt;"')
        self.assertNotContains(self.client.get("/"), "<b>ann</b>")

    def test_nothing_on_the_page_needs_an_exception_from_the_policy(self) -> None:
        response = self.client.get("/")
        self.assertIn("default-src 'none'", response["Content-Security-Policy"])
        self.assertNotIn("unsafe", response["Content-Security-Policy"])
        self.assertNotContains(response, "<style")
        forbidden = r"<script(?![^>]* src=)|\s(style|on\w+)=|https?://"
        self.assertNotRegex(response.content.decode(), forbidden)

    def test_the_page_tells_the_limit(self) -> None:
        self.assertContains(self.client.get("/"), f'maxlength="{MESSAGE_LIMIT}"')

    def test_login_and_admin_answer(self) -> None:
        self.assertContains(self.client.get("/accounts/login/"), "<h1>Log in</h1>")
        self.assertRedirects(self.client.get("/admin/"), "/admin/login/?next=/admin/")

    def test_login_leads_to_the_page(self) -> None:
        who = {"username": "ann", "password": "correct horse"}
        User.objects.create_user(**who)
        self.assertRedirects(self.client.post("/accounts/login/", who), "/")


class VisitorTest(SimpleTestCase):
    def test_a_member_stands_for_one_visitor(self) -> None:
        for visitor in (Visitor("ann", True), Visitor("an_abcdef", False), Visitor("a:b", True)):
            with self.subTest(visitor):
                self.assertEqual(Visitor.from_member(visitor.member), visitor)
        self.assertNotEqual(Visitor("an_abcdef", True).member, Visitor("an_abcdef", False).member)

    def test_a_view_finds_the_name_in_the_session(self) -> None:
        seen = []
        request = a_request()
        named(lambda request: seen.append(dict(request.session)))(request)
        self.assertEqual(seen, [{"chat_name": Visitor.of(request).name}])


class FakePresence:
    """Presence with one process and no store: counts sockets, and says hello and will by itself."""

    def __init__(self, store: "FakeStore") -> None:
        self.store = store
        self.sockets: dict[str, int] = {}
        self.wills: dict[str, Any] = {}

    def join(self, channel: str, member: str, hello: Any = None, will: Any = None) -> bool:
        self.sockets[member] = self.sockets.get(member, 0) + 1
        self.wills[member] = will
        if self.sockets[member] == 1:
            self.store.publish(channel, hello)
        return self.sockets[member] == 1

    def leave(self, channel: str, member: str) -> bool:
        self.sockets[member] -= 1
        if self.sockets[member]:
            return False
        del self.sockets[member]
        self.store.publish(channel, self.wills.pop(member))
        return True

    def members(self, channel: str) -> list[str]:
        return list(self.sockets)


class FakeStore:
    """Brings what is published to all subscribed consumers, at once."""

    def __init__(self) -> None:
        self.subscribed: list[FakeRoom] = []
        self.presence = FakePresence(self)

    def publish(self, channel: str, message: Any) -> None:
        assert channel == ROOM
        for consumer in self.subscribed:
            consumer.send(message)


class FakeRoom(Room):
    """The consumer with the server's part played by a :class:`FakeStore`."""

    presence: Any = None
    request: Any = None
    state: Any = None

    def __init__(self, store: FakeStore, request: Any) -> None:
        self.store = store
        self.presence = store.presence
        self.request = request
        self.state = {}
        self.sent: list[Any] = []
        self.closed: tuple[int, str] | None = None

    def send(self, message: Any) -> None:
        self.sent.append(json.loads(json.dumps(message)))

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = (code, reason)

    def subscribe(self, channel: str, **_: Any) -> None:
        assert channel == ROOM
        self.store.subscribed.append(self)

    def publish(self, channel: str, message: Any) -> None:
        self.store.publish(channel, message)

    def goes(self) -> None:
        """The client is gone: the server takes the socket away, then calls on_close."""
        self.store.subscribed.remove(self)
        self.on_close(1001, "")

    def heard(self) -> list[tuple[str, str]]:
        """(user, message) of all frames so far; forgets them."""
        heard, self.sent = [(frame["user"], frame["message"]) for frame in self.sent], []
        return heard


def a_request(name: str = "", user: Any = None) -> Any:
    request = RequestFactory().get("/message")
    request.session = {"chat_name": name} if name else {}
    request.user = user or AnonymousUser()
    return request


class RoomTest(SimpleTestCase):
    def setUp(self) -> None:
        self.store = FakeStore()

    def enter(self, name: str = "an_aaaaaa", user: Any = None) -> FakeRoom:
        consumer = FakeRoom(self.store, a_request(name, user))
        consumer.on_open()
        return consumer

    def test_a_message_reaches_everybody_with_the_four_keys(self) -> None:
        one, other = self.enter("an_aaaaaa"), self.enter("an_bbbbbb")
        one.on_message("hello")
        frame = {
            "message": "hello",
            "user": "an_aaaaaa",
            "authenticated": False,
            "channel": "webchat",
        }
        self.assertEqual([one.sent[-1], other.sent[-1]], [frame, frame])

    def test_a_user_speaks_under_the_username(self) -> None:
        user = SimpleNamespace(is_authenticated=True, get_username=lambda: "ann")
        consumer = self.enter("an_aaaaaa", user)
        frame = {"message": "joined", "user": "ann", "authenticated": True, "channel": "chatuser"}
        self.assertEqual(consumer.sent, [frame])

    def test_lines_are_stripped_and_joined_and_empty_ones_left_out(self) -> None:
        self.assertEqual(one_line("  one \r\n\n\t two\n"), "one two")
        consumer = self.enter()
        consumer.heard()
        for empty in ("", " ", "\n \t\r\n"):
            consumer.on_message(empty)
        self.assertEqual((consumer.heard(), consumer.closed), ([], None))

    def test_a_newcomer_sees_who_is_there_and_the_own_name_last_and_once(self) -> None:
        self.enter("an_zzzzzz")
        self.enter("an_bbbbbb")
        newcomer = self.enter("an_kkkkkk")
        names = ["an_bbbbbb", "an_zzzzzz", "an_kkkkkk"]
        self.assertEqual(newcomer.heard(), [(name, "joined") for name in names])
        self.assertEqual(self.enter("an_bbbbbb").heard()[-1], ("an_bbbbbb", "joined"))

    def test_joined_and_gone_are_said_once_for_two_tabs(self) -> None:
        watcher = self.enter("an_wwwwww")
        tabs = [self.enter("an_tttttt"), self.enter("an_tttttt")]
        for tab in tabs:
            tab.goes()
        told = [("an_wwwwww", "joined"), ("an_tttttt", "joined"), ("an_tttttt", "gone")]
        self.assertEqual(watcher.heard(), told)

    def test_a_message_at_the_limit_passes_and_a_longer_one_closes(self) -> None:
        consumer = self.enter()
        consumer.on_message("x" * MESSAGE_LIMIT)
        self.assertIsNone(consumer.closed)
        consumer.heard()
        consumer.on_message("x" * (MESSAGE_LIMIT + 1))
        self.assertEqual((consumer.heard(), consumer.closed[0]), ([], 1009))

    def test_bytes_close_with_unsupported_data(self) -> None:
        consumer = self.enter()
        consumer.on_message(b"hello")
        self.assertEqual(consumer.closed[0], 1003)

    def test_a_socket_that_never_joined_does_not_leave(self) -> None:
        watcher = self.enter("an_aaaaaa")
        FakeRoom(self.store, a_request("an_aaaaaa")).on_close(1006, "")
        self.assertEqual(watcher.heard(), [("an_aaaaaa", "joined")])

    def test_what_a_reload_must_carry_over_is_in_the_state_as_json(self) -> None:
        before = self.enter("an_aaaaaa")
        after = FakeRoom(self.store, request=None)
        after.state = json.loads(json.dumps(before.state))
        before.heard()
        after.on_message("still here")
        self.assertEqual(before.heard(), [("an_aaaaaa", "still here")])
