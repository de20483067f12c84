"""Everything that can break a connection, again and again, under clients that come and go.

What is promised: on a channel with a history each client gets every message, once and in order;
where that is impossible, for the store lost its memory, it is told of a gap.  On a channel without
one it is told of a gap wherever it may have missed something; and who publishes there again for
want of an answer, says it twice.
"""

import itertools
import json
import os
import random
import signal
import threading
import time

import pytest
import redis
from pulse import until
from services import start_valkey
from websockets.exceptions import ConnectionClosed, InvalidHandshake

CHANNELS = ("kept:a", "kept:b", "plain:a")
FOLLOWERS = 12
SECONDS = 4.0
"""Of each kind of trouble."""
PATIENCE = 30.0
GAP = "gap"


class Follower(threading.Thread):
    """A client of ``gpulse.v1`` that drops its connection now and then and comes back."""

    def __init__(self, pulse, number):
        super().__init__(daemon=True)
        self.pulse = pulse
        self.chance = random.Random(number)
        self.heard = {channel: [] for channel in CHANNELS}
        self.positions = {}
        self.stays = False
        self.stopped = False
        self.connections = 0
        self.failure = None

    def run(self):
        while not self.stopped:
            try:
                with self.pulse.socket("/lobby", subprotocols=["gpulse.v1"]) as socket:
                    self.connections += 1
                    self.follow(socket)
            except (ConnectionClosed, InvalidHandshake, OSError):
                time.sleep(0.05)
            except Exception as failure:
                self.failure = failure
                raise

    def follow(self, socket):
        wanted = dict(enumerate(CHANNELS, 1))
        for number, channel in wanted.items():
            request = {"type": "subscribe", "id": number, "channel": channel}
            if since := self.positions.get(channel):
                request["since"] = since
            socket.send(json.dumps(request))
        end = time.monotonic() + self.chance.uniform(0.2, 2.0)
        while not self.stopped and (self.stays or time.monotonic() < end):
            try:
                self.take(json.loads(socket.recv(timeout=0.1)), wanted)
            except TimeoutError:
                continue
        if not self.stopped:
            socket.socket.shutdown(2)  # no close frame: as a phone does it

    def take(self, frame, wanted):
        match frame:
            case {"type": "subscribed", "channel": channel}:
                del wanted[frame["id"]]
                if self.connections > 1 and not frame["recovered"]:
                    self.heard[channel].append(GAP)
                if not frame["missed"]:
                    self.positions[channel] = frame["position"]
            case {"type": "error"}:
                # The store is away; come back later.
                assert frame["code"] == 503, frame
                raise ConnectionClosed(None, None)
            case {"type": "event", "channel": channel}:
                self.heard[channel].append(frame["data"])
                self.positions[channel] = frame["position"]
            case {"type": "gap", "channel": channel}:
                self.heard[channel].append(GAP)
                self.positions[channel] = frame["position"]

    def check(self, channel, *, gaps):
        """What came is each message once and in order, but for gaps that were told."""
        heard = self.heard[channel]
        if not gaps:
            assert heard[0] == 1
            assert GAP not in heard, (channel, heard[-50:])
        steps = (1,) if channel.startswith("kept") else (0, 1)
        for before, after in itertools.pairwise(heard):
            assert GAP in (before, after) or after - before in steps, (channel, before, after)


class Publisher(threading.Thread):
    """Publishes 1, 2, 3 ... on a channel, each until it is acknowledged."""

    def __init__(self, pulse, channel):
        super().__init__(daemon=True)
        self.pulse = pulse
        self.channel = channel
        self.last = 0
        self.again = 0
        self.stopped = False

    def run(self):
        while not self.stopped:
            try:
                with self.pulse.socket("/lobby", subprotocols=["gpulse.v1"]) as socket:
                    while not self.stopped:
                        self.say(socket)
            except (ConnectionClosed, InvalidHandshake, OSError):
                self.again += 1
                time.sleep(0.05)

    def say(self, socket):
        number = self.last + 1
        key = f"{self.channel}.{number}" if self.channel.startswith("kept") else ""
        data = {"channel": self.channel, "message": number}
        request = {"type": "send", "id": number, "data": data, **({"key": key} if key else {})}
        socket.send(json.dumps(request))
        while (reply := json.loads(socket.recv(timeout=5.0))).get("id") != number:
            assert reply["type"] == "welcome"
        if reply["type"] == "ok":
            self.last = number
            time.sleep(0.02)
        else:
            assert reply["code"] in (500, 503), reply
            self.again += 1
            time.sleep(0.05)


def cut(store, kind):
    with redis.Redis.from_url(store.url) as client:
        client.client_kill_filter(_type=kind)


def trouble(pulse, store, kinds, seconds):
    """Do one thing after the other for some seconds."""
    chance = random.Random(3)
    end = time.monotonic() + seconds
    for kind in itertools.cycle(kinds):
        if time.monotonic() > end:
            return
        match kind:
            case "subscribers" | "publishers":
                cut(store, "pubsub" if kind == "subscribers" else "normal")
            case "worker":
                workers = pulse.workers()
                if len(workers) == 2:
                    os.kill(chance.choice(workers), signal.SIGKILL)
            case "reload":
                pulse.send_signal("HUP")
            case "hang":
                store.pause()
                time.sleep(0.5)
                store.resume()
            case "store":
                store.kill()
                time.sleep(0.3)
                store.restart()
        time.sleep(chance.uniform(0.2, 1.0))


def settle(publishers, followers):
    """Everybody listens, and hears what is published now."""
    for follower in followers:
        assert follower.failure is None
        follower.stays = True
    for publisher in publishers:
        newest = publisher.last + 10
        until(lambda p=publisher, n=newest: p.last >= n, "publishing goes on")
        for follower in followers:
            heard = follower.heard[publisher.channel]
            until(lambda h=heard, n=newest: h[-1] != GAP and h[-1] >= n, "all hear it")


@pytest.mark.timeout(240)
def test_nothing_is_lost_in_silence(start, mode, tmp_path):
    directory = tmp_path / "valkey"
    directory.mkdir()
    store = start_valkey(directory, port=True)
    pulse = start(
        *mode, "-w", "2", "--history", "kept:*=10000/600", "--data-store", store.url
    ).ready()  # fmt: skip
    publishers = [Publisher(pulse, channel) for channel in CHANNELS]
    followers = [Follower(pulse, number) for number in range(FOLLOWERS)]
    for follower in followers:
        follower.start()
    until(lambda: all(len(each.positions) == len(CHANNELS) for each in followers), "all listen")
    for publisher in publishers:
        publisher.start()

    trouble(pulse, store, ["subscribers", "worker", "publishers", "reload", "hang"], SECONDS)
    settle(publishers, followers)
    for follower in followers:
        for channel in CHANNELS:
            follower.check(channel, gaps=channel.startswith("plain"))
        follower.stays = False
    assert sum(publisher.again for publisher in publishers) > 0
    trouble(pulse, store, ["store", "subscribers", "worker"], SECONDS)
    settle(publishers, followers)
    for thread in (*publishers, *followers):
        thread.stopped = True
    for thread in (*publishers, *followers):
        thread.join(PATIENCE)
        assert not thread.is_alive()
    for follower in followers:
        for channel in CHANNELS:
            follower.check(channel, gaps=True)
        assert follower.connections > 5
    assert pulse.stop() == 0
    store.stop()
