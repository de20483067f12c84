"""Tests of the chat without a server: ``python manage.py test``.

Pages are asked for through Django's test client, sockets through gpulse's: the URLs, the middleware
and the consumers are the real ones, and nothing goes over a network.
"""

import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

from django.contrib.auth.models import User
from django.db import connection
from django.test import Client, SimpleTestCase, TestCase
from django.test.utils import CaptureQueriesContext

from chat.consumers import MESSAGE_LIMIT, one_line
from chat.models import LOBBY, ROOMS, Message, ReadMark, Room
from chat.views import PAGE
from chat.visitors import Visitor
from gpulse.errors import PublishError
from gpulse.testing import InlineWorker, WebSocketClient

FORBIDDEN = r"<script(?![^>]* src=)|\s(style|on\w+)=|https?://"
"""What needs an exception from the policy: scripts and styles in the page, other sites."""


class ChatTest(TestCase):
    """A test with the lobby, in a worker that holds the channels."""

    def setUp(self) -> None:
        self.worker = InlineWorker()
        self.worker.__enter__()
        self.addCleanup(self.worker.__exit__, None, None, None)
        self.lobby = Room.objects.get(slug=LOBBY)

    def open(self, path: str, user: User | None = None, **options: Any) -> WebSocketClient:
        """A socket that is open until the test ends; without a user, a guest's."""
        client = self.enterContext(WebSocketClient(path, user=user, **options))
        assert client.response.status_code == 101, client
        return client

    def enter(self, user: User | None = None, slug: str = LOBBY) -> "Page":
        """A page's socket, subscribed as chat.js does it."""
        return Page(self.open(f"/rooms/{slug}/socket", user, subprotocols=["gpulse.v1"]), slug)


class Page:
    """The socket of a page.  What it has heard of channels is read with :meth:`heard`."""

    def __init__(self, socket: WebSocketClient, slug: str) -> None:
        self.socket = socket
        assert socket.receive_json()["type"] == "welcome"
        self.subscribe(f"typing:{slug}")
        self.subscribe(ROOMS)
        self.members = self.subscribe(f"room:{slug}", presence=True)["members"]
        self.heard()

    def subscribe(self, channel: str, **options: Any) -> Any:
        return self.socket.request({"type": "subscribe", "channel": channel, **options})

    def ask(self, key: str = "", **data: Any) -> Any:
        """The reply to a request of the page."""
        return self.socket.request({"type": "send", "data": data, "key": key})

    def say(self, text: str, key: str = "") -> Any:
        """The frame that acknowledges a message."""
        return self.ask(key, do="say", text=text)["data"]

    def heard(self, channel: str = f"room:{LOBBY}") -> list[Any]:
        """What was published on a channel since the last call; for presence, (type, member)."""
        found = [json.loads(message) for message in self.socket.received]
        found = [each for each in found if each.get("channel") == channel]
        return [each.get("data") or (each["type"], each["member"]) for each in found]


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

    def test_names_and_titles_are_escaped(self) -> None:
        Room.objects.create(slug="x", title="<i>x</i>")
        self.client.force_login(User.objects.create_user("<b>ann</b>"))
        for path in ("/", "/rooms/", "/rooms/x/"):
            page = self.client.get(path)
            self.assertContains(page, "&lt;b&gt;ann&lt;/b&gt;")
            self.assertContains(page, "&lt;i&gt;x&lt;/i&gt;")
            self.assertNotContains(page, "<b>ann</b>")
            self.assertNotContains(page, "<i>")

    def test_nothing_on_the_pages_needs_an_exception_from_the_policy(self) -> None:
        for path in ("/", "/rooms/", "/accounts/login/"):
            page = self.client.get(path)
            self.assertIn("default-src 'none'", page["Content-Security-Policy"])
            self.assertNotIn("unsafe", page["Content-Security-Policy"])
            self.assertNotContains(page, "<style")
            self.assertNotRegex(page.content.decode(), FORBIDDEN)
            self.assertIn("no-store", page["Cache-Control"])

    def test_the_scripts_never_make_html_of_text(self) -> None:
        scripts = sorted(Path(__file__).with_name("static").rglob("*.js"))
        self.assertEqual([script.name for script in scripts], ["chat.js", "markdown.js"])
        for script in scripts:
            ways = r"HTML\b|document\.write|DOMParser|\beval\b|new Function"
            code = re.sub(r"(?s:/\*.*?\*/)|//.*", "", script.read_text())
            self.assertNotRegex(code, ways)

    def test_the_page_tells_the_limit(self) -> None:
        self.assertContains(self.client.get("/"), f'maxlength="{MESSAGE_LIMIT}"')

    def test_login_and_admin_answer(self) -> None:
        self.assertContains(self.client.get("/accounts/login/"), "<h1>Log in</h1>")
        self.assertRedirects(self.client.get("/admin/"), "/admin/login/?next=/admin/")

    def test_login_leads_back_to_the_room(self) -> None:
        who = {"username": "ann", "password": "correct horse"}
        User.objects.create_user(**who)
        Room.objects.create(slug="tea", title="Tea")
        self.assertContains(self.client.get("/rooms/tea/"), "/accounts/login/?next=/rooms/tea/")
        back = self.client.post("/accounts/login/?next=/rooms/tea/", who)
        self.assertRedirects(back, "/rooms/tea/")

    def test_a_room_that_is_not_there_is_not_found(self) -> None:
        for path in ("", "messages/after/0", "messages/before/9"):
            self.assertEqual(self.client.get(f"/rooms/none/{path}").status_code, 404)
        self.assertEqual(self.client.post("/rooms/none/read/1").status_code, 404)


class VisitorTest(SimpleTestCase):
    def test_a_member_stands_for_one_visitor(self) -> None:
        for visitor in (Visitor("ann", True), Visitor("an_abcdef", False), Visitor("a:b", True)):
            with self.subTest(visitor):
                self.assertEqual(Visitor.from_member(visitor.member), visitor)
        self.assertNotEqual(Visitor("an_abcdef", True).member, Visitor("an_abcdef", False).member)


class RoomsTest(ChatTest):
    def test_a_room_is_made_once_and_announced(self) -> None:
        page = self.enter()
        for title in ("Über uns!", "über uns"):
            with self.captureOnCommitCallbacks(execute=True):
                made = self.client.post("/rooms/", {"title": title})
            self.assertEqual(made.headers["Location"], "/rooms/%C3%BCber-uns/")
        self.assertContains(self.client.get("/rooms/über-uns/"), "<h1>Über uns!</h1>")
        note = {"slug": "über-uns", "title": "Über uns!", "member": ""}
        self.assertEqual(page.heard(ROOMS), [note])

    def test_a_title_without_letters_makes_no_room(self) -> None:
        for title in ("", "  ", "?!", "/", "\0"):
            page = self.client.post("/rooms/", {"title": title})
            self.assertContains(page, "letters or digits")
        self.assertEqual(Room.objects.count(), 1)

    def test_a_long_title_is_cut_to_what_fits(self) -> None:
        for letter in "x\ufdfa":  # one that is written out in eighteen
            self.client.post("/rooms/", {"title": letter * 80})
            room = Room.objects.latest("id")
            self.assertEqual(room.title, letter * 50)
            self.assertEqual(len(room.slug), 50)

    def test_a_message_is_announced_to_the_pages_of_other_rooms(self) -> None:
        Room.objects.create(slug="tea", title="Tea")
        page = self.enter(slug="tea")
        self.enter(User.objects.create_user("ann")).say("hello")
        note = {"slug": "lobby", "title": "Lobby", "member": "user:ann"}
        self.assertEqual(page.heard(ROOMS), [note])
        self.assertEqual(page.heard(), [])


class UnreadTest(ChatTest):
    def unread(self, client: Client) -> dict[str, int]:
        rooms = client.get("/rooms/?json").json()["rooms"]
        return {room["slug"]: room["unread"] for room in rooms}

    def check(self, client: Client, me: str) -> None:
        tea = Room.objects.create(slug="tea", title="Tea")
        first, second = (self.lobby.say("user:bob", text) for text in ("one", "two"))
        tea.say("user:bob", "three")
        self.lobby.say(me, "mine")
        self.lobby.change("user:bob", self.lobby.say("user:bob", "oops").pk, None)
        self.assertEqual(self.unread(client), {"lobby": 2, "tea": 1})
        for message in (second, first):  # a mark never goes back
            self.assertEqual(client.post(f"/rooms/lobby/read/{message.pk}").status_code, 204)
            self.assertEqual(self.unread(client), {"lobby": 0, "tea": 1})
        self.lobby.say("user:bob", "four")
        self.assertEqual(self.unread(client), {"lobby": 1, "tea": 1})
        self.assertContains(client.get("/rooms/"), '<span class="many">1</span>', count=2)
        self.assertContains(client.get("/"), f'data-read="{second.pk}"')
        self.assertEqual(client.post(f"/rooms/tea/read/{second.pk}").status_code, 404)
        self.assertEqual(client.post(f"/rooms/lobby/read/{10**30}").status_code, 404)
        self.assertEqual(client.get(f"/rooms/lobby/read/{second.pk}").status_code, 405)

    def test_a_user_has_marks_in_the_database(self) -> None:
        self.client.force_login(User.objects.create_user("ann"))
        self.check(self.client, "user:ann")
        self.assertEqual(ReadMark.objects.count(), 1)

    def test_a_guest_has_marks_in_the_session(self) -> None:
        name = self.client.get("/").context["visitor"].name
        self.check(self.client, f"guest:{name}")
        self.assertEqual(ReadMark.objects.count(), 0)

    def test_all_rooms_are_counted_in_one_query(self) -> None:
        self.client.force_login(User.objects.create_user("ann"))
        counts = []
        for number in range(2):
            Room.objects.create(slug=f"r{number}", title="R").say("user:bob", "hello")
            with CaptureQueriesContext(
                connection,
            ) as queries:
                self.client.get("/rooms/?json")
            counts.append(len(queries))
        self.assertEqual(counts[0], counts[1])


class HistoryTest(ChatTest):
    def page(self, order: str, pk: int) -> tuple[list[str], bool]:
        page = self.client.get(f"/rooms/lobby/messages/{order}/{pk}").json()
        return [frame["message"] for frame in page["messages"]], page["more"]

    def test_pages_go_up_and_down_by_ids(self) -> None:
        rows = [
            Message(room=self.lobby, author="user:ann", key=f"{number}", text=f"{number}")
            for number in range(PAGE + 20)
        ]
        Message.objects.bulk_create(rows)
        Room.objects.create(slug="tea", title="Tea").say("user:ann", "elsewhere")
        texts = [f"{number}" for number in range(PAGE + 20)]
        ids = list(self.lobby.messages.order_by("id").values_list("id", flat=True))
        self.assertEqual(self.page("before", 2**53 - 1), (texts[20:], True))
        self.assertEqual(self.page("before", ids[20]), (texts[:20], False))
        self.assertEqual(self.page("after", 0), (texts[:PAGE], True))
        self.assertEqual(self.page("after", ids[PAGE - 1]), (texts[PAGE:], False))
        self.assertEqual(self.page("before", ids[0]), ([], False))

    def test_the_frames_are_those_of_the_socket(self) -> None:
        page = self.enter()
        page.say("hello", key="k1")
        (event,) = page.heard()
        (stored,) = self.client.get("/rooms/lobby/messages/after/0").json()["messages"]
        self.assertEqual(stored, event)


class RoomSocketTest(ChatTest):
    def setUp(self) -> None:
        super().setUp()
        self.ann, self.bob = (self.enter(User.objects.create_user(name)) for name in ("ann", "bob"))
        self.ann.heard()

    def test_a_message_is_stored_acknowledged_and_heard(self) -> None:
        frame = self.ann.say("hello\n**bob**", key="k1")
        message = self.lobby.messages.get()
        expected = {
            "message": "hello\n**bob**",
            "user": "ann",
            "authenticated": True,
            "channel": "webchat",
            "id": message.pk,
            "key": "k1",
            "revision": 0,
            "time": message.created.isoformat(),
        }
        self.assertEqual(frame, expected)
        self.assertEqual([self.ann.heard(), self.bob.heard()], [[expected], [expected]])

    def test_a_message_that_comes_again_is_stored_and_heard_once(self) -> None:
        first = self.ann.say("hello", key="k1")
        self.assertEqual(self.ann.say("hello", key="k1"), first)
        self.assertEqual(self.bob.heard(), [first])
        self.assertEqual(self.lobby.messages.count(), 1)
        other = self.bob.say("hello", key="k1")  # another author's key is another key
        self.assertNotEqual(other["id"], first["id"])

    def test_what_was_stored_but_not_published_is_published_when_it_comes_again(self) -> None:
        away = patch.object(self.worker.store, "publish", side_effect=PublishError("away"))
        with away, self.assertLogs("gpulse.websocket", "ERROR"):
            reply = self.ann.ask("k1", do="say", text="hello")
        self.assertEqual((reply["type"], reply["code"]), ("error", 503))
        self.assertGreater(reply["retry_after"], 0)
        self.assertEqual((self.lobby.messages.count(), self.bob.heard()), (1, []))
        frame = self.ann.say("hello", key="k1")
        self.assertEqual((self.lobby.messages.count(), self.bob.heard()), (1, [frame]))

    def test_an_edit_and_a_deletion_carry_the_whole_message(self) -> None:
        said = self.ann.say("helo", key="k1")
        edited = self.ann.ask(do="edit", id=said["id"], text=" hello ")["data"]
        change = {"message": "hello", "channel": "edited", "revision": 1}
        self.assertEqual(edited, said | change)
        deleted = self.ann.ask(do="delete", id=said["id"])["data"]
        self.assertEqual(deleted, said | {"message": "", "channel": "deleted", "revision": 2})
        self.assertEqual(self.bob.heard(), [said, edited, deleted])
        self.assertEqual(self.lobby.messages.get().text, "")

    def test_a_change_that_comes_again_changes_nothing(self) -> None:
        said = self.ann.say("helo")
        self.bob.heard()
        for request in ({"do": "edit", "text": "hello"}, {"do": "delete"}):
            replies = [self.ann.ask(**request, id=said["id"])["data"] for _ in range(2)]
            self.assertEqual(replies[0], replies[1])
            self.assertEqual(self.bob.heard(), replies[:1])

    def test_only_the_author_changes_a_message_and_only_in_its_room(self) -> None:
        said = self.ann.say("mine")
        Room.objects.create(slug="tea", title="Tea")
        elsewhere = self.enter(User.objects.get(username="ann"), slug="tea")
        for page in (self.bob, elsewhere):
            for request in ({"do": "edit", "text": "yours"}, {"do": "delete"}):
                self.assertEqual(page.ask(**request, id=said["id"])["code"], 404)
        self.ann.ask(do="delete", id=said["id"])
        self.assertEqual(self.ann.ask(do="edit", id=said["id"], text="back")["code"], 404)
        self.assertEqual(self.ann.ask(do="delete", id=10**30)["code"], 404)

    def test_what_is_no_message_is_refused(self) -> None:
        for text in ("", " \n ", "\0", "x" * (MESSAGE_LIMIT + 1)):
            self.assertEqual(self.ann.ask(do="say", text=text)["code"], 400, text)
        for data in ({"do": "say"}, {"do": "say", "text": 1}, {"do": "edit", "id": "1"}, {}):
            self.assertEqual(self.ann.ask(**data)["code"], 400, data)
        self.assertEqual(self.ann.socket.request({"type": "send", "data": None})["code"], 400)
        self.assertEqual(self.ann.say("x" * MESSAGE_LIMIT)["message"], "x" * MESSAGE_LIMIT)
        self.assertEqual(self.ann.say("a\0b")["message"], "ab")

    def test_typing_is_heard_and_not_kept(self) -> None:
        self.ann.ask(do="typing")
        self.assertEqual(self.bob.heard(f"typing:{LOBBY}"), [{"member": "user:ann"}])
        late = self.enter()
        self.assertIsNone(late.subscribe(f"typing:{LOBBY}")["position"])
        self.assertEqual(Message.objects.count(), 0)

    def test_a_page_hears_its_room_and_no_other(self) -> None:
        Room.objects.create(slug="tea", title="Tea")
        for channel in ("room:tea", "typing:tea", "room:", "room:*"):
            self.assertEqual(self.ann.subscribe(channel)["code"], 403, channel)
        with WebSocketClient("/rooms/none/socket", subprotocols=["gpulse.v1"]) as nowhere:
            self.assertEqual(nowhere.response.status_code, 404)

    def test_who_was_away_gets_what_was_missed(self) -> None:
        position = self.ann.subscribe(f"room:{LOBBY}")["position"]
        self.ann.socket.vanish()
        said = [self.bob.say(text) for text in ("one", "two")]
        with WebSocketClient(
            f"/rooms/{LOBBY}/socket", subprotocols=["gpulse.v1"], client=self.ann.socket.client
        ) as again:
            request = {"type": "subscribe", "channel": f"room:{LOBBY}", "since": position}
            reply = again.request(request)
            self.assertEqual((reply["recovered"], reply["missed"]), (True, 2))
            events = [json.loads(message) for message in again.received]
            self.assertEqual([each["data"] for each in events if "data" in each], said)

    def test_who_is_too_fast_is_told_when(self) -> None:
        replies = [self.ann.ask(do="typing") for _ in range(40)]
        refused = [reply for reply in replies if reply["type"] == "error"]
        self.assertTrue(refused)
        self.assertEqual({reply["code"] for reply in refused}, {429})
        self.ann.socket.advance(refused[-1]["retry_after"] + 0.1)
        self.assertEqual(self.ann.say("now")["message"], "now")

    def test_it_works_by_post(self) -> None:
        sent = {"type": "send", "id": 1, "data": {"do": "say", "text": "by post"}, "key": "k"}
        reply = self.ann.socket.post(sent).json()
        self.assertEqual(reply["data"]["user"], "ann")
        self.assertEqual(self.bob.heard(), [reply["data"]])

    def test_the_roster_has_pages_and_plain_sockets(self) -> None:
        self.open("/message", User.objects.create_user("eve"))
        self.assertEqual(self.bob.heard(), [("join", "user:eve")])
        members = ["user:ann", "user:bob", "user:eve"]
        self.assertEqual(sorted(self.enter(User.objects.get(username="ann")).members), members)
        self.assertEqual(self.bob.heard(), [])  # the second tab


class MessageSocketTest(ChatTest):
    def names(self, socket: WebSocketClient) -> list[tuple[str, str]]:
        """(user, message) of all frames so far."""
        frames = [json.loads(message) for message in socket.received]
        return [(frame["user"], frame["message"]) for frame in frames]

    def users(self, *names: str) -> list[User]:
        return [User.objects.create_user(name) for name in names]

    def test_the_frames_have_the_four_keys(self) -> None:
        one, other = self.open("/message"), self.open("/message")
        name = one.receive_json()["user"]
        self.assertRegex(name, r"\Aan_[a-z]{6}\Z")
        for socket in (one, other):
            self.names(socket)
        one.send("hello")
        expected = {"message": "hello", "user": name, "authenticated": False, "channel": "webchat"}
        for socket in (one, other):
            frame = socket.receive_json()
            self.assertEqual({key: frame[key] for key in expected}, expected)
        other.close()
        self.assertEqual(one.receive_json()["message"], "gone")

    def test_a_user_speaks_under_the_username(self) -> None:
        socket = self.open("/message", *self.users("ann"))
        frame = {"message": "joined", "user": "ann", "authenticated": True, "channel": "chatuser"}
        self.assertEqual(socket.receive_json(), frame)

    def test_it_is_in_the_lobby(self) -> None:
        page, socket = self.enter(), self.open("/message", *self.users("ann"))
        page.heard()
        self.names(socket)
        socket.send("from the socket")
        self.assertEqual(page.heard()[0]["message"], "from the socket")
        said = page.say("from the page")
        page.ask(do="edit", id=said["id"], text="edited")
        self.assertEqual([name for _, name in self.names(socket)][1:], ["from the page", "edited"])
        texts = list(self.lobby.messages.order_by("id").values_list("text", flat=True))
        self.assertEqual(texts, ["from the socket", "edited"])

    def test_lines_are_stripped_and_joined_and_empty_ones_left_out(self) -> None:
        self.assertEqual(one_line("  one \r\n\n\t two\n"), "one two")
        socket = self.open("/message")
        self.names(socket)
        for empty in ("", " ", "\n \t\r\n", "\0"):
            socket.send(empty)
        self.assertEqual((self.names(socket), socket.is_open), ([], True))

    def test_a_newcomer_sees_who_is_there_and_the_own_name_last_and_once(self) -> None:
        zoe, bob, kim = self.users("zoe", "bob", "kim")
        for user in (zoe, bob):
            self.open("/message", user)
        names = ["bob", "zoe", "kim"]
        self.assertEqual(
            self.names(self.open("/message", kim)), [(name, "joined") for name in names]
        )
        self.assertEqual(self.names(self.open("/message", bob))[-1], ("bob", "joined"))

    def test_joined_and_gone_are_said_once_for_two_tabs(self) -> None:
        wim, tom = self.users("wim", "tom")
        watcher = self.open("/message", wim)
        for tab in [self.open("/message", tom), self.open("/message", tom)]:
            tab.close()
        told = [("wim", "joined"), ("tom", "joined"), ("tom", "gone")]
        self.assertEqual(self.names(watcher), told)

    def test_a_message_at_the_limit_passes_and_a_longer_one_closes(self) -> None:
        socket = self.open("/message")
        self.names(socket)
        socket.send("x" * MESSAGE_LIMIT)
        self.assertEqual(len(self.names(socket)[0][1]), MESSAGE_LIMIT)
        socket.send("x" * (MESSAGE_LIMIT + 1))
        self.assertEqual(socket.closed, (1009, "a message has at most 2000 characters"))

    def test_bytes_close_with_unsupported_data(self) -> None:
        socket = self.open("/message")
        socket.send(b"hello")
        self.assertEqual(socket.closed, (1003, "the chat takes text"))

    def test_a_socket_that_never_joined_does_not_leave(self) -> None:
        watcher = self.open("/message", *self.users("wim"))
        broken = patch.object(self.worker.presence, "members", side_effect=RuntimeError("broken"))
        with broken, self.assertLogs("gpulse.websocket", "ERROR"):
            self.open("/message", raises=False)
        self.assertEqual(self.names(watcher), [("wim", "joined")])

    def test_what_a_reload_must_carry_over_is_in_the_state_as_json(self) -> None:
        socket = self.open("/message", *self.users("ann"))
        consumer = socket.consumer
        consumer.state = json.loads(json.dumps(consumer.state))
        consumer.request = None
        self.names(socket)
        socket.send("still here")
        self.assertEqual(self.names(socket), [("ann", "still here")])
