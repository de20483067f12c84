"""Tests of the rooms; docs/howto/testing.rst shows them."""

from django.contrib.auth.models import User
from django.test import Client, TestCase

import gpulse
from gpulse.channels import get_channel_layer
from gpulse.testing import EventStreamClient, InlineWorker, WebSocketClient


class RoomTests(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.ann = User.objects.create_user("ann", password="secret")
        cls.ben = User.objects.create_user("ben", password="secret")

    def test_what_one_says_all_hear(self):
        with (
            WebSocketClient("/rooms/lobby/socket", user=self.ann) as ann,
            WebSocketClient("/rooms/lobby/socket", user=self.ben) as ben,
        ):
            assert ben.receive_json()["hello"] == "ben"
            ann.send("good morning")
            assert ben.receive_json() == {"user": "ann", "text": "good morning"}
            assert ben.received == []

    def test_a_guest_may_listen_and_not_talk(self):
        with WebSocketClient("/rooms/lobby/socket") as guest:
            guest.send("hello")
            assert guest.closed == (4403, "log in to talk")

    def test_another_site_may_not_open_a_socket(self):
        headers = {"Origin": "https://evil.example"}
        with WebSocketClient("/rooms/lobby/socket", headers=headers) as ws:
            assert ws.response.status_code == 403
            assert not ws.is_open

    def test_a_page_publishes(self):
        self.client.force_login(self.ann)
        with WebSocketClient("/rooms/lobby/socket", client=self.client) as ws:
            assert len(ws.received) == 1
            self.client.post("/rooms/lobby/say", {"text": "from a page"})
            assert ws.receive_json() == {"user": "ann", "text": "from a page"}

    def test_a_view_is_tested_without_a_socket(self):
        with InlineWorker():
            self.client.force_login(self.ann)
            response = self.client.post("/rooms/lobby/say", {"text": "nobody listens"})
        assert response.status_code == 204

    def test_a_client_that_comes_back_gets_what_it_missed(self):
        with InlineWorker():
            with WebSocketClient("/rooms/lobby/socket") as ws:
                assert ws.receive_json()["position"] is not None
                position = gpulse.publish("room:lobby", {"text": "one"}).position
            gpulse.publish("room:lobby", {"text": "two"})
            with WebSocketClient(f"/rooms/lobby/socket?since={position}") as ws:
                assert ws.receive_json()["missed"] == 1
                assert ws.receive_json() == {"text": "two"}

    def test_a_socket_without_messages_is_closed_in_the_end(self):
        with WebSocketClient("/rooms/lobby/socket", user=self.ann) as ws:
            ws.advance(599)
            assert ws.is_open
            ws.advance(30)
            assert ws.closed[0] == 4408

    def test_a_client_that_sends_too_much_is_closed(self):
        with WebSocketClient("/rooms/lobby/socket", user=self.ann) as ws:
            for number in range(5):
                ws.send(f"message {number}")
            ws.advance(1)
            ws.send("one more, after a second")
            assert ws.is_open
            ws.send("and one at once")
            assert ws.closed[0] == 4429

    def test_logging_out_closes_the_sockets(self):
        client = Client()
        client.force_login(self.ann)
        with WebSocketClient("/rooms/lobby/socket", client=client) as ws:
            with self.captureOnCommitCallbacks(execute=True):
                client.logout()
            assert len(ws.received) == 1
            assert ws.closed[0] == 4401


class ChannelTests(TestCase):
    """The same room for gpulse's client."""

    def setUp(self):
        self.ann = User.objects.create_user("ann")

    def open(self, **options):
        return WebSocketClient(
            "/rooms/lobby/channel", user=self.ann, subprotocols=["gpulse.v1"], **options
        )

    def test_a_request_has_a_reply(self):
        with self.open() as ws:
            assert ws.receive_json()["type"] == "welcome"
            reply = ws.request({"type": "subscribe", "channel": "room:lobby"})
            assert reply["type"] == "subscribed"
            reply = ws.request({"type": "send", "data": {"text": "hello"}})
            assert (reply["type"], reply["data"]) == ("ok", {"length": 17})
            assert ws.receive_json()["data"] == {"text": "hello"}

    def test_what_is_not_allowed_is_refused(self):
        with self.open() as ws:
            reply = ws.request({"type": "subscribe", "channel": "room:secret"})
            assert (reply["type"], reply["code"]) == ("error", 403)
            reply = ws.request({"type": "send", "data": {"text": ""}})
            assert reply["reason"] == "an empty message"

    def test_a_mistake_in_a_handler_comes_out(self):
        with self.open() as ws, self.assertRaisesMessage(RuntimeError, "a mistake"):
            ws.request({"type": "send", "data": {"text": "boom"}})
        with self.open(raises=False) as ws:
            reply = ws.request({"type": "send", "data": {"text": "boom"}})
            assert reply["code"] == 500

    def test_who_is_there(self):
        with self.open() as ws:
            ws.request({"type": "subscribe", "channel": "room:lobby", "presence": True})
            assert gpulse.presence("room:lobby") == ["ann"]
            with self.open() as other:
                other.request({"type": "subscribe", "channel": "room:lobby", "presence": True})
                assert gpulse.roster("room:lobby") == {"ann": 2}
            assert gpulse.roster("room:lobby") == {"ann": 1}
            ws.vanish()
            assert gpulse.presence("room:lobby") == []

    def test_without_websockets_requests_are_posted(self):
        with self.open() as ws:
            ws.request({"type": "subscribe", "channel": "room:lobby"})
            assert len(ws.received) == 1
            reply = ws.post({"type": "send", "id": 7, "data": {"text": "by post"}})
            assert reply.json()["id"] == 7
            assert ws.receive_json()["data"] == {"text": "by post"}


class StreamTests(TestCase):
    def test_events_come_and_a_browser_that_comes_back_has_all(self):
        with InlineWorker():
            with EventStreamClient("/rooms/lobby/events") as stream:
                gpulse.publish("room:lobby", {"text": "one"})
                assert stream.receive_json() == {"text": "one"}
                stream.advance(20)
                assert stream.comments > 0
            gpulse.publish("room:lobby", {"text": "two"})
            headers = {"Last-Event-ID": stream.last_id}
            with EventStreamClient("/rooms/lobby/events", headers=headers) as stream:
                assert stream.receive_json() == {"text": "two"}
                assert stream.received == []


class MovedTests(TestCase):
    """The consumer that was written for Channels."""

    def test_what_one_says_all_hear(self):
        with WebSocketClient("/moved/lobby/") as one, WebSocketClient("/moved/lobby/") as two:
            one.send_json({"message": "hello"})
            assert one.receive_json() == {"message": "hello"}
            assert two.receive_json() == {"message": "hello"}

    def test_code_elsewhere_sends_to_the_group(self):
        with WebSocketClient("/moved/lobby/") as ws:
            layer = get_channel_layer()
            layer.group_send("chat_lobby", {"type": "chat.message", "message": "news"})
            assert ws.receive_json() == {"message": "news"}
