"""gpulse/channels.py: code that was written for Django Channels."""

import asyncio
import json
from collections.abc import Iterator

import asgiref.sync
import pytest
from django.conf import settings
from django.test import override_settings
from django.urls import path

import gpulse
import gpulse.errors
from gpulse.channels import (
    ChannelLayer,
    DenyConnection,
    GroupEvents,
    JsonWebsocketConsumer,
    WebsocketConsumer,
    async_to_sync,
    get_channel_layer,
)
from gpulse.store import MemoryStore
from gpulse.testing import InlineWorker, WebSocketClient


class Chat(WebsocketConsumer):
    groups = ["everybody"]
    subprotocols = ["chat"]

    def connect(self):
        if self.scope["query_string"] == b"deny":
            raise DenyConnection("not you")
        self.group = "chat_" + self.scope["url_route"]["kwargs"]["room"]
        async_to_sync(self.channel_layer.group_add)(self.group, self.channel_name)
        self.accept()

    def receive(self, text_data=None, bytes_data=None):
        if text_data == "leave":
            self.channel_layer.group_discard(self.group, self.channel_name)
        elif text_data == "name":
            self.send(self.channel_name)
        elif text_data == "bye":
            self.send("bye", close=True)
        elif text_data == "empty":
            self.send()
        elif bytes_data is not None:
            self.send(bytes_data=bytes_data)
        else:
            event = {"type": "chat.message", "text": text_data}
            self.channel_layer.group_send(self.group, event)

    def disconnect(self, code):
        gpulse.publish("left", {"code": code})

    def chat_message(self, event):
        self.send(text_data="chat: " + event["text"])

    def _secret(self, event):
        raise AssertionError("no message may call this")


class Counter(JsonWebsocketConsumer):
    def receive_json(self, content):
        self.send_json({"sum": sum(content)})


class Scope(WebsocketConsumer):
    def connect(self):
        scope = self.scope
        self.send(
            json.dumps(
                {
                    "path": scope["path"],
                    "subprotocols": scope["subprotocols"],
                    "origin": dict(scope["headers"])[b"origin"].decode(),
                    "cookies": scope["cookies"],
                    "user": scope["user"],
                }
            )
        )


URLS = (
    path("chat/<slug:room>", Chat.as_view()),
    path("count", Counter.as_view()),
    path("scope", Scope.as_view()),
)


@pytest.fixture(autouse=True)
def worker() -> Iterator[InlineWorker]:
    if not settings.configured:
        settings.configure()
    with (
        override_settings(ROOT_URLCONF=URLS, MIDDLEWARE=[], ALLOWED_HOSTS=["testserver"]),
        InlineWorker() as made,
    ):
        yield made


def event(text: str = "hello") -> dict[str, str]:
    return {"type": "chat.message", "text": text}


class TestConsumer:
    def test_what_one_sends_its_group_gets(self):
        with (
            WebSocketClient("/chat/a") as one,
            WebSocketClient("/chat/a") as two,
            WebSocketClient("/chat/b") as other,
        ):
            one.send("hi")
            assert (one.receive(), two.receive()) == ("chat: hi", "chat: hi")
            assert other.received == []

    def test_who_left_its_group_gets_nothing(self):
        with WebSocketClient("/chat/a") as one, WebSocketClient("/chat/a") as two:
            one.send("leave")
            two.send("hi")
            assert (one.received, two.received) == ([], ["chat: hi"])

    def test_groups_of_the_class_are_joined(self):
        with WebSocketClient("/chat/a") as ws:
            get_channel_layer().group_send("everybody", event())
            assert ws.receive() == "chat: hello"

    def test_binary_messages_and_send_with_close(self):
        with WebSocketClient("/chat/a") as ws:
            ws.send(b"\x00")
            assert ws.receive() == b"\x00"
            ws.send("bye")
            assert (ws.receive(), ws.closed) == ("bye", (1000, ""))

    def test_a_refusal_can_be_read_by_the_page(self):
        with WebSocketClient("/chat/a?deny") as ws:
            assert ws.closed == (4403, "not you")

    def test_disconnect_gets_the_code(self, worker):
        codes = []
        worker.store.open_subscriber(lambda found: codes.append(found.message)).subscribe(
            "left", lambda error: None
        )
        with WebSocketClient("/chat/a") as ws:
            ws.close(4001)
        assert codes == [{"code": 4001}]
        assert worker.store.channels() == {"left": 1}

    def test_sending_nothing_is_a_mistake(self):
        with WebSocketClient("/chat/a") as ws, pytest.raises(ValueError, match="text_data or"):
            ws.send("empty")

    def test_json(self):
        with WebSocketClient("/count") as ws:
            ws.send_json([1, 2])
            assert ws.receive_json() == {"sum": 3}
            with pytest.raises(ValueError, match="binary"):
                ws.send(b"[1]")

    def test_the_scope_has_what_is_read_of_it(self):
        with WebSocketClient("/scope", subprotocols=["a", "b"], headers={"Cookie": "c=1"}) as ws:
            assert ws.receive_json() == {
                "path": "/scope",
                "subprotocols": ["a", "b"],
                "origin": "http://testserver",
                "cookies": {"c": "1"},
                "user": None,
            }

    @pytest.mark.parametrize(
        "name",
        ["unknown", "_secret", "send", "close", "receive", "disconnect", "on.open", "publish"],
    )
    def test_a_type_calls_a_handler_of_the_sites_own_and_nothing_else(self, name):
        with WebSocketClient("/chat/a") as ws:
            get_channel_layer().group_send("chat_a", {"type": name})
            with pytest.raises(ValueError, match="has no handler"):
                ws.receive()

    def test_a_message_without_a_type_is_a_mistake_where_types_are_expected(self):
        with WebSocketClient("/chat/a") as ws:
            gpulse.publish("chat_a", {"text": "no type"})
            with pytest.raises(ValueError, match="a dict with a type"):
                ws.receive()


class TestLayer:
    def test_a_socket_has_a_channel_of_its_own(self):
        with WebSocketClient("/chat/a") as one, WebSocketClient("/chat/a") as two:
            one.send("name")
            get_channel_layer().send(one.receive(), event())
            assert (one.receive(), two.received) == ("chat: hello", [])

    def test_asgirefs_async_to_sync_does_as_well(self):
        with WebSocketClient("/chat/a") as ws:
            asgiref.sync.async_to_sync(get_channel_layer().group_send)("chat_a", event())
            assert ws.receive() == "chat: hello"

    def test_it_can_be_awaited(self):
        async def tell() -> str:
            layer = get_channel_layer()
            await layer.group_send("chat_a", event())
            return await layer.new_channel("mine")

        with WebSocketClient("/chat/a") as ws:
            assert asyncio.run(tell()).startswith("mine.")
            assert ws.receive() == "chat: hello"

    def test_it_needs_no_async_to_sync_and_ours_leaves_it_alone(self):
        layer = get_channel_layer()
        assert async_to_sync(layer.group_send) == layer.group_send

        async def other() -> int:
            return 3

        assert async_to_sync(other)() == 3

    @pytest.mark.parametrize("message", [None, {}, {"type": 1}, "text"])
    def test_a_message_needs_a_type(self, message):
        with pytest.raises(ValueError, match="a dict with a type"):
            get_channel_layer().group_send("chat_a", message)

    def test_another_processs_socket_cannot_be_added(self):
        with pytest.raises(ValueError, match="no socket in this process"):
            get_channel_layer().group_add("chat_a", "specific.other!1")
        get_channel_layer().group_discard("chat_a", "specific.other!1")

    def test_nothing_is_received_by_hand(self):
        with pytest.raises(NotImplementedError, match="handlers of consumers"):
            get_channel_layer().receive("x")

    def test_as_a_backend_it_takes_no_config(self):
        assert ChannelLayer().extensions == ("groups",)
        with pytest.raises(ValueError, match=r"CHANNEL_LAYERS sets hosts.*GPULSE"):
            ChannelLayer(hosts=["redis://"])

    def test_every_alias_is_the_one_layer(self):
        assert get_channel_layer("other") is get_channel_layer()

    def test_a_store_that_is_away_is_told_to_the_sender(self, monkeypatch):
        def away(*args: object, **keywords: object) -> None:
            raise gpulse.errors.PublishError("away")

        monkeypatch.setattr(MemoryStore, "publish", away)
        with pytest.raises(gpulse.errors.PublishError):
            get_channel_layer().group_send("chat_a", event())


def test_typed_events_are_a_base_class_of_their_own():
    class Mixed(GroupEvents):
        def on_open(self):
            self.subscribe("news")

        def news_flash(self, event):
            self.send(event["text"])

    with (
        override_settings(ROOT_URLCONF=(path("mixed", Mixed.as_view()),)),
        WebSocketClient("/mixed") as ws,
    ):
        gpulse.publish("news", {"type": "news.flash", "text": "rain"})
        assert ws.receive() == "rain"
