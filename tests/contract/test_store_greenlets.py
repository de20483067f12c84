"""The store in a patched process, as in greenlet mode, and under many native threads."""

import subprocess
import sys
import threading

from contract.store_ground import Ear, Ground
from services import Valkey

from gpulse.store import Holding, Store, encode

PATCHED = """
from gevent import monkey; monkey.patch_all()
import sys, time, gevent
from gpulse.store import encode, open_store
from gpulse.store.fanout import Fanout
from gpulse.store.historian import Historian
from gpulse.store.receivers import Subscribed
from gpulse.store.presence import Presence

store = open_store(sys.argv[1], "patched")

class Receiver:
    def __init__(self): self.got = []
    def deliver(self, event): self.got.append(event.message)
    def gap(self, channel, position): raise AssertionError("a gap")

receiver, answers = Receiver(), []
fanout = Fanout(store, Historian(store, gevent.spawn, gevent.get_hub().loop.run_callback))
fanout.add("a", receiver, answers.append)
with gevent.Timeout(10):
    while not answers: gevent.sleep(0.01)
assert answers == [Subscribed(None, None, 0)], answers
ticks = []
def tick():
    while True:
        gevent.sleep(0.01); ticks.append(time.monotonic())
gevent.spawn(tick)
presence = Presence(store, gevent.spawn)
def work(n):
    for i in range(5):
        store.publish("a", encode([n, i]))
    presence.join("room", f"m{n}")
    presence.join("room", f"m{n}")
jobs = [gevent.spawn(work, n) for n in range(300)]
gevent.joinall(jobs, timeout=20, raise_error=True)
assert all(job.successful() for job in jobs)
with gevent.Timeout(10):
    while len(receiver.got) < 1500: gevent.sleep(0.01)
for n in range(300):
    assert [i for m, i in receiver.got if m == n] == [0, 1, 2, 3, 4]
with gevent.Timeout(10):
    while presence.roster("room") != {f"m{n}": 2 for n in range(300)}: gevent.sleep(0.01)
gaps = [b - a for a, b in zip(ticks, ticks[1:])]
assert max(gaps) < 1.0, f"the hub stood still for {max(gaps)} s"
presence.release()
assert presence.members("room") == []
fanout.close(); store.close()
print("ok")
"""


def test_greenlets_share_connections_without_blocking_the_hub(shared_valkey: Valkey) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PATCHED, shared_valkey.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "ok\n", done.stderr


def test_threads_publish_and_count_together(ground: Ground, store: Store, ear: Ear) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            owner = f"owner{number}"
            for step in range(20):
                store.join("room", "ann", owner)
                store.restore(owner, [Holding("room", "ann", count=step + 2)])
                store.publish("a", encode([number, step]))
                if step % 3 == 0:
                    store.leave("room", "ann", owner)
        except BaseException as failure:
            failures.append(failure)

    if not ground.is_memory:
        # In memory events are handed out where they are published unless there is a hub to call.
        ear.listen("a")
    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert failures == []
    assert store.members("room") == {"ann": 20 * 21}
    if not ground.is_memory:
        heard = ear.messages(400)
        for number in range(20):
            assert [m for m in heard if m[0] == number] == [[number, step] for step in range(20)]  # type: ignore[index]
