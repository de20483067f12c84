"""Channels over a real master, two workers and a real store: ``gpulse.v1``, event streams, POST."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from urllib.parse import quote

import pytest
import redis
from pulse import Pulse, until
from services import start_valkey
from test_websockets import sockets_on_both_workers
from websockets.exceptions import ConnectionClosed

HISTORY = ("--history", "kept:*=50/60")
PROTOCOL = {"subprotocols": ["gpulse.v1"]}


class Client:
    """A client of ``gpulse.v1`` over an open WebSocket."""

    def __init__(self, socket):
        self.socket = socket
        self.number = 0
        self.skipped = []
        assert self.next() == {"type": "welcome", "ping": 25}

    def next(self, kind=None):
        """The next frame, or the next of a kind."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = self.skipped.pop(0) if self.skipped else self.receive()
            if kind in (None, found["type"]):
                return found
        raise AssertionError(kind)

    def receive(self):
        return json.loads(self.socket.recv(timeout=20))

    def ask(self, kind, **fields):
        """Send a request; the reply to it."""
        self.number += 1
        self.socket.send(json.dumps({"type": kind, "id": self.number, **fields}))
        while (found := self.receive()).get("id") != self.number:
            self.skipped.append(found)  # an event may come before the reply
        return found

    def say(self, channel, message, key=""):
        data = {"channel": channel, "message": message}
        return self.ask("send", data=data, **({"key": key} if key else {}))["data"]

    def messages(self, count):
        """The data of the next events."""
        return [self.next("event")["data"] for _ in range(count)]


def clients(pulse, path="/lobby"):
    return [Client(socket) for socket in sockets_on_both_workers(pulse, path, **PROTOCOL)]


def test_one_socket_has_acknowledgements_history_and_presence(start, mode):
    pulse = start(*mode, "-w", "2", *HISTORY).ready()
    one, two = clients(pulse, "/lobby?member=ann")
    subscribed = one.ask("subscribe", channel="kept:a", presence=True)
    assert subscribed["recovered"] is None
    assert subscribed["members"] == {"ann": 1}
    start_position = subscribed["position"]
    first = two.say("kept:a", 1, key="k-1")
    assert first["duplicate"] is False
    assert two.say("kept:a", 1, key="k-1") == {**first, "duplicate": True}
    event = one.next("event")
    assert event == {
        "type": "event",
        "channel": "kept:a",
        "position": first["position"],
        "data": 1,
    }
    for number in (2, 3):
        two.say("kept:a", number)
    assert one.messages(2) == [2, 3]
    # Somebody who was away since before the first message.
    back = two.ask("subscribe", channel="kept:a", since=start_position, presence=True)
    assert (back["recovered"], back["missed"]) == (True, 3)
    assert two.messages(3) == [1, 2, 3]
    lost = two.ask("unsubscribe", channel="kept:a")
    assert lost["type"] == "ok"
    unknown = two.ask("subscribe", channel="kept:a", since="elsewhere-7")
    assert (unknown["recovered"], unknown["missed"]) == (False, 0)

    with pulse.socket("/lobby?member=bob", **PROTOCOL) as socket:
        bob = Client(socket)
        assert set(bob.ask("subscribe", channel="kept:a", presence=True)["members"]) == {
            "ann",
            "bob",
        }
        assert one.next("join") == {"type": "join", "channel": "kept:a", "member": "bob"}
    assert one.next("leave") == {"type": "leave", "channel": "kept:a", "member": "bob"}
    assert one.ask("presence", channel="kept:a")["data"] == {"ann": 1}

    assert one.ask("subscribe", channel="secret")["code"] == 403
    assert one.ask("subscribe", channel="gpulse:accounts")["code"] == 403
    assert one.ask("subscribe", channel="kept:a", since="x")["code"] == 400
    assert one.ask("send", data="refuse") == {
        "type": "error",
        "id": one.number,
        "code": 409,
        "reason": "not today",
        "retry_after": 3,
    }
    assert one.ask("send", data="fail")["code"] == 500
    one.socket.send(json.dumps({"type": "ping"}))
    assert one.next() == {"type": "pong"}
    one.socket.send("no json")
    with pytest.raises(ConnectionClosed) as caught:
        one.next()
    assert caught.value.rcvd.code == 4400
    two.socket.close()
    pulse.logged("RuntimeError: on purpose")
    assert pulse.stop() == 0


def test_a_worker_recovers_what_it_missed_while_the_store_was_unreachable(start, mode, tmp_path):
    directory = tmp_path / "valkey"
    directory.mkdir()
    store = start_valkey(directory, port=True)
    pulse = start(*mode, "-w", "2", *HISTORY, "--data-store", store.url).ready()
    one, two = clients(pulse)
    for client in (one, two):
        client.ask("subscribe", channel="kept:a")
        client.ask("subscribe", channel="plain:a")
    two.say("kept:a", "before")
    assert one.messages(1) == two.messages(1) == ["before"]
    # The server cuts all subscribers, and goes on.
    cut_subscribers(store)
    said = [two.say("kept:a", number)["position"] for number in range(5)]
    assert len(set(said)) == 5
    for client in (one, two):
        assert client.messages(5) == [0, 1, 2, 3, 4]
    # A channel without a history can only say that something may be missing.
    cut_subscribers(store)
    for client in (one, two):
        assert client.next("gap") == {"type": "gap", "channel": "plain:a", "position": None}
    # A store that starts anew knows nothing: that is told, too.
    store.kill()
    store.restart()
    until(lambda: two.ask("send", data={"channel": "kept:a", "message": "after"})["type"] == "ok")
    for client in (one, two):
        while True:
            found = client.next()
            if found["type"] == "gap" and found["channel"] == "kept:a":
                break
    for client in (one, two):
        client.socket.close()
    assert pulse.stop() == 0
    store.stop()


def cut_subscribers(store):
    with redis.Redis.from_url(store.url) as client:
        client.client_kill_filter(_type="pubsub")


def test_a_killed_worker_loses_no_message_and_leaves_no_ghost(start, mode):
    pulse = start(*mode, "-w", "2", *HISTORY).ready()
    one, two = clients(pulse, "/lobby?member=ann")
    position = one.ask("subscribe", channel="kept:a", presence=True)["position"]
    two.ask("subscribe", channel="kept:a")
    two.say("kept:a", "seen")
    position = one.next("event")["position"]
    os.kill(pulse.owner(one.socket.socket), signal.SIGKILL)
    with pytest.raises(ConnectionClosed):
        one.next()
    for number in range(3):
        two.say("kept:a", number)
    again = Client(pulse.socket("/lobby?member=bob", **PROTOCOL))
    reply = again.ask("subscribe", channel="kept:a", since=position)
    assert (reply["recovered"], reply["missed"]) == (True, 3)
    assert again.messages(3) == [0, 1, 2]
    assert two.messages(4) == ["seen", 0, 1, 2]
    for client in (again, two):
        client.socket.close()
    assert pulse.stop() == 0


# -- without a WebSocket


class Stream:
    """A client of an event stream."""

    def __init__(self, pulse: Pulse, path: str, **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", pulse.port, timeout=20)
        self.connection.request("GET", path, headers={"Accept": "text/event-stream", **headers})
        self.response = self.connection.getresponse()
        self.last_id = ""

    def next(self, kind=None):
        """The data of the next event."""
        data = []
        while True:
            line = self.response.readline().decode().rstrip("\n")
            if line.startswith("id: "):
                self.last_id = line[4:]
            elif line.startswith("data: "):
                data.append(line[6:])
            elif not line and data:
                text = "\n".join(data)
                if kind is None or json.loads(text)["type"] == kind:
                    return text
                data = []

    def close(self):
        self.response.close()
        self.connection.close()


def post(pulse, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", pulse.port, timeout=20)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_the_same_url_serves_clients_that_get_no_websocket(start, mode):
    pulse = start(*mode, "-w", "2", *HISTORY).ready()
    wanted = quote(json.dumps({"kept:a": None, "secret": None}))
    presence = quote(json.dumps(["kept:a"]))
    stream = Stream(pulse, f"/lobby?member=ann&channels={wanted}&presence={presence}")
    assert stream.response.status == 200
    assert stream.response.getheader("Content-Type").startswith("text/event-stream")
    assert json.loads(stream.next())["type"] == "welcome"
    subscribed = json.loads(stream.next("subscribed"))
    assert subscribed["members"] == {"ann": 1}
    refused = json.loads(stream.next("error"))
    assert (refused["channel"], refused["code"]) == ("secret", 403)
    status, text = post(
        pulse,
        "/lobby",
        {"type": "send", "id": 5, "data": {"channel": "kept:a", "message": "é\n"}, "key": "k"},
    )
    reply = json.loads(text)
    assert (status, reply["type"], reply["id"]) == (200, "ok", 5)
    event = json.loads(stream.next("event"))
    assert (event["data"], event["position"]) == ("é\n", reply["data"]["position"])
    assert stream.last_id == f"kept:a {event['position']}"
    assert json.loads(post(pulse, "/lobby", {"type": "presence", "channel": "kept:a"})[1])[
        "data"
    ] == {"ann": 1}
    assert post(pulse, "/lobby", {"type": "subscribe", "channel": "kept:a"})[0] == 400
    assert post(pulse, "/lobby", ["send"])[0] == 400
    stream.close()
    # Back again, by the position that it had.
    wanted = quote(json.dumps({"kept:a": subscribed["position"]}))
    stream = Stream(pulse, f"/lobby?channels={wanted}")
    again = json.loads(stream.next("subscribed"))
    assert (again["recovered"], again["missed"]) == (True, 1)
    assert json.loads(stream.next("event"))["data"] == "é\n"
    stream.close()
    until(
        lambda: (
            json.loads(post(pulse, "/lobby", {"type": "presence", "channel": "kept:a"})[1])["data"]
            == {}
        )
    )
    assert pulse.stop() == 0


def test_an_event_stream_recovers_by_its_last_event_id(start, mode):
    pulse = start(*mode, "-w", "2", *HISTORY).ready()
    stream = Stream(pulse, "/events")
    until(lambda: pulse.text("/publish?channel=plain:news&text=listening") == "1")
    pulse.text("/publish?channel=kept:news&text=first")
    assert [json.loads(stream.next())["text"] for _ in range(2)] == ["listening", "first"]
    last = stream.last_id
    assert re.fullmatch(r"kept:news [a-z0-9]+-1", last)
    stream.close()
    for text in ("a", "b"):
        pulse.text(f"/publish?channel=kept:news&text={text}")
    stream = Stream(pulse, "/events", **{"Last-Event-ID": last})
    assert [json.loads(stream.next())["text"] for _ in "ab"] == ["a", "b"]
    pulse.text("/publish?channel=plain:news&text=c")
    assert json.loads(stream.next())["text"] == "c"
    assert stream.last_id.endswith("-3")
    stream.close()
    assert pulse.stop() == 0


# -- accounts


class Browser:
    """A user's cookies."""

    def __init__(self, pulse: Pulse) -> None:
        self.pulse = pulse
        self.cookies: dict[str, str] = {}

    @property
    def headers(self):
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return {"Cookie": cookie} if cookie else {}

    def request(self, method, path, body=None):
        headers = dict(self.headers)
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection("127.0.0.1", self.pulse.port, timeout=20)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            for value in response.headers.get_all("Set-Cookie") or ():
                name, _, rest = value.partition("=")
                self.cookies[name] = rest.partition(";")[0]
            return response.status, response.read().decode()
        finally:
            connection.close()

    def post(self, path, **fields):
        _, page = self.request("GET", "/accounts/login/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        fields["csrfmiddlewaretoken"] = token[1] if token else self.cookies.get("csrftoken", "")
        body = "&".join(f"{name}={quote(value)}" for name, value in fields.items())
        return self.request("POST", path, body)[0]


def closed_with(client):
    """The close code of a socket that the server ends, with what came before it."""
    try:
        while True:
            client.recv(timeout=20)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


def test_a_logout_closes_the_users_sockets_on_every_worker(chat, mode, tmp_path):
    pulse = chat(*mode, "-w", "2")
    manage(
        pulse,
        "from django.contrib.auth.models import User; "
        "User.objects.create_user('ann', password='correct horse')",
    )
    home, work = Browser(pulse), Browser(pulse)
    for browser in (home, work):
        assert browser.post("/accounts/login/", username="ann", password="correct horse") == 302
    of_home = sockets_on_both_workers(pulse, "/message", additional_headers=home.headers)
    of_work = pulse.socket("/message", additional_headers=work.headers)
    guest = pulse.socket("/message")
    assert home.post("/accounts/logout/") in (200, 302)
    assert [closed_with(socket) for socket in of_home] == [4401, 4401]
    of_work.send("still here")  # another session of the same user
    # A password that another process changes ends all sessions.
    manage(
        pulse,
        "from django.contrib.auth.models import User; "
        "ann = User.objects.get(); ann.set_password('staple'); ann.save()",
    )
    assert closed_with(of_work) == 4401
    guest.send("and nobody minded me")
    guest.close()
    assert pulse.stop() == 0


def manage(pulse, code):
    """Run code in another process of the site."""
    subprocess.run(
        [sys.executable, "manage.py", "shell", "-v", "0", "-c", code],
        cwd=pulse.site,
        env=pulse.environ,
        check=True,
        timeout=60,
    )
