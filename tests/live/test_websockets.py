"""WebSockets over a real master, workers and store, in both modes."""

import asyncio
import json
import os
import re
import signal
import socket
import time

import pytest
from pulse import Pulse, until
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus


def test_echo_text_and_bytes(start, mode):
    pulse = start(*mode).ready()
    with pulse.socket("/echo") as client:
        for message in ("x", "é" * 1000, b"\0\xff" * 70_000):
            client.send(message)
            assert client.recv(timeout=20) == message
    assert pulse.stop() == 0


WITH_A_BODY = (
    b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
)


def test_a_handshake_is_an_ordinary_request(start, mode):
    pulse = start(*mode).ready()
    assert pulse.get("/echo")[0] == 426
    with socket.create_connection(("127.0.0.1", pulse.port), timeout=20) as client:
        client.sendall(WITH_A_BODY)
        assert client.recv(65536).startswith(b"HTTP/1.1 400 ")
    with pytest.raises(InvalidStatus) as caught:
        pulse.socket("/nowhere")
    assert caught.value.response.status_code == 404
    with pytest.raises(InvalidStatus) as caught:
        pulse.socket("/echo", origin="http://evil.example")
    assert caught.value.response.status_code == 403
    assert pulse.text("/version") == "one"
    assert pulse.stop() == 0


def sockets_on_both_workers(pulse: Pulse, path: str, **options):
    """Two clients that different workers hold; connects until there are."""
    clients = {}
    spare = []
    for _ in range(200):
        client = pulse.socket(path, **options)
        owner = pulse.owner(client.socket)
        if owner in clients:
            spare.append(client)
        clients.setdefault(owner, client)
        if len(clients) == 2:
            for other in spare:
                other.close()
            return list(clients.values())
    raise AssertionError(f"200 sockets, all on worker {list(clients)}")


def test_messages_travel_between_workers(start, mode, store):
    pulse = start(*mode, "-w", "2", *store).ready()
    one, two = sockets_on_both_workers(pulse, "/room/lobby")
    greetings = [json.loads(client.recv(timeout=20))["pid"] for client in (one, two)]
    assert len(set(greetings)) == 2
    for sender in (one, two):
        sender.send("hello")
        assert one.recv(timeout=20) == "hello"
        assert two.recv(timeout=20) == "hello"
    assert pulse.text("/publish?channel=room:lobby&text=from-a-view") == "2"
    for client in (one, two):
        assert json.loads(client.recv(timeout=20)) == {"text": "from-a-view"}
    one.close()
    two.close()
    assert pulse.stop() == 0


def frame(client, **expected):
    """Receive until a frame has the given fields."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = json.loads(client.recv(timeout=20))
        if all(found[key] == value for key, value in expected.items()):
            return found
    raise AssertionError(expected)


def name_of(client):
    """Who a client of the chat is; once it hears itself it hears everybody."""
    text = f"who is {id(client)}?"
    client.send(text)
    return frame(client, channel="webchat", message=text)["user"]


def test_the_chat_goes_round_between_workers(chat, mode, store):
    pulse = chat(*mode, "-w", "2", *store)
    one, two = sockets_on_both_workers(pulse, "/message")
    first, _ = name_of(one), name_of(two)
    assert re.fullmatch("an_[a-z]{6}", first)
    one.send("  hello \n\n  world ")
    said = frame(two, channel="webchat", user=first)
    assert (
        said.items()
        >= {
            "message": "hello world",
            "user": first,
            "authenticated": False,
            "channel": "webchat",
        }.items()
    )
    assert frame(one, message="hello world") == said
    one.send("  \n ")  # empty: nobody hears it
    one.send("again")
    assert frame(two, channel="webchat")["message"] == "again"
    one.close()
    frame(two, channel="chatuser", message="gone", user=first)
    two.close()
    assert pulse.stop() == 0


def test_a_crashed_worker_leaves_no_ghost(chat, mode):
    pulse = chat(*mode, "-w", "2")
    one, two = sockets_on_both_workers(pulse, "/message")
    ghost, _ = name_of(one), name_of(two)
    os.kill(pulse.owner(one.socket), signal.SIGKILL)
    # The lease of a dead worker is 15 s; its successor may know sooner.
    deadline = time.monotonic() + 40
    while True:
        assert time.monotonic() < deadline
        try:
            found = json.loads(two.recv(timeout=40))
        except TimeoutError:
            raise AssertionError("the ghost stays") from None
        if found["message"] == "gone" and found["user"] == ghost:
            break
    two.close()
    pulse.ready()
    assert pulse.stop() == 0


def test_the_store_comes_back_and_messages_flow_again(start, mode):
    pulse = start(*mode, "-w", "2").ready()
    one, two = sockets_on_both_workers(pulse, "/room/lobby")
    for client in (one, two):
        client.recv(timeout=20)
    old = pulse.store()
    os.kill(old, signal.SIGKILL)
    begun = time.monotonic()
    assert pulse.text("/version") == "one"

    def flows() -> bool:
        pulse.get("/publish?channel=room:lobby&text=again")
        try:
            for client in (one, two):
                if json.loads(client.recv(timeout=0.3)) != {"text": "again"}:
                    return False
        except TimeoutError:
            return False
        return True

    until(flows, "messages flow again")
    assert time.monotonic() - begun < 6
    assert pulse.store() != old
    one.close()
    two.close()
    assert pulse.stop() == 0


def test_a_page_answers_beside_500_open_sockets_with_one_greenlet(start):
    pulse = start("--greenlet", "1").ready()

    async def crowd():
        sockets = await asyncio.gather(
            *(
                connect_async(
                    f"ws://127.0.0.1:{pulse.port}/room/crowd", open_timeout=60, proxy=None
                )
                for _ in range(500)
            )
        )
        for client in sockets:
            await asyncio.wait_for(client.recv(), 20)
        assert await asyncio.to_thread(pulse.text, "/version") == "one"
        await sockets[0].send("to all")
        for client in sockets:
            assert await asyncio.wait_for(client.recv(), 20) == "to all"
        await asyncio.gather(*(client.close() for client in sockets))

    asyncio.run(crowd())
    assert json.loads(pulse.text("/facts"))["most_at_once"] == 0
    assert pulse.stop() == 0


def test_max_websockets_refuses_the_next_with_503(start, mode):
    pulse = start(*mode, "--max-websockets", "2").ready()
    with pulse.socket("/echo"), pulse.socket("/echo"):
        with pytest.raises(InvalidStatus) as caught:
            pulse.socket("/echo")
        assert caught.value.response.status_code == 503
    assert pulse.stop() == 0


def test_a_drain_asks_clients_to_come_back(start, mode):
    pulse = start(*mode).ready()
    with pulse.socket("/echo") as client:
        pulse.send_signal("TERM")
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(timeout=20)
        assert caught.value.rcvd.code == 1012
    assert pulse.process.wait(20) == 0
    pulse.assert_gone()


def test_code_for_gevent_websocket_runs_beside_the_pool(start):
    for options in (["--greenlet", "1"], ["--thread-workers", "1"]):
        pulse = start(*options).ready()
        assert pulse.text("/legacy") == "no WebSocket"
        with pulse.socket("/legacy") as one, pulse.socket("/legacy") as two:
            for client in (one, two, one):
                client.send("loop")
                assert client.recv(timeout=20) == "loop"
            assert pulse.text("/version") == "one"
        assert pulse.stop() == 0


def test_a_resource_of_gevent_websocket_runs_unchanged(start, mode):
    pulse = start("mysite.resource:application", *mode, program="gpulse").ready()
    assert pulse.text("/") == "a page"
    with pulse.socket("/chatter") as one, pulse.socket("/chatter") as two:
        one.send("this")
        assert one.recv(timeout=20) == "all hear this"
        assert two.recv(timeout=20) == "all hear this"
    assert pulse.stop() == 0
