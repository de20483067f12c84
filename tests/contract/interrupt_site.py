"""Run by ``test_pool_interrupt``: interrupts a pool greenlet in each thing that it may wait in.

In a process of its own, patched as a greenlet worker is: gevent's patches cannot be taken back, and
its child watcher would take the children of other tests.  Prints a JSON object: name of the thing
-> what was seen.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402 - patching comes first
import queue  # noqa: E402
import socket  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402

from gpulse.worker.greenlets import GreenletPool  # noqa: E402

DEADLINE = 10.0


class Stopped(BaseException):
    """What is raised."""


class Sleep:
    """One thing to wait in: :meth:`wait` waits, :meth:`works` says whether it does afterwards."""

    def wait(self):
        time.sleep(DEADLINE)

    def works(self):
        before = time.monotonic()
        time.sleep(0.01)
        return time.monotonic() - before >= 0.01


class Event:
    def __init__(self):
        self.event = threading.Event()

    def wait(self):
        self.event.wait(DEADLINE)

    def works(self):
        gevent.spawn_later(0.01, self.event.set)
        return self.event.wait(DEADLINE)


class Lock:
    make = staticmethod(threading.Lock)

    def __init__(self):
        self.lock = self.make()
        self.lock.acquire()  # by the main greenlet

    def wait(self):
        with self.lock:
            raise AssertionError("nobody gave it")

    def works(self):
        held = self.lock.locked() if hasattr(self.lock, "locked") else True
        self.lock.release()
        got = []

        def take():
            with self.lock:
                got.append(1)

        other = gevent.spawn(take)
        other.join(DEADLINE)
        return held and got == [1] and self.lock.acquire(timeout=DEADLINE)


class LockGiven(Lock):
    """It was released, and its next holder would be woken in this turn of the hub."""

    def before(self):
        self.lock.release()

    def works(self):
        return self.lock.acquire(timeout=DEADLINE)


class RLock(Lock):
    make = staticmethod(threading.RLock)


class Condition:
    def __init__(self):
        self.condition = threading.Condition()

    def wait(self):
        with self.condition:
            self.condition.wait(DEADLINE)

    def works(self):
        woken = []

        def wait():
            with self.condition:
                woken.append(self.condition.wait(DEADLINE))

        other = gevent.spawn(wait)
        gevent.sleep(0)
        with self.condition:
            self.condition.notify()
        other.join(DEADLINE)
        return woken == [True]


class QueueGet:
    def __init__(self):
        self.queue = queue.Queue()

    def wait(self):
        self.queue.get(timeout=DEADLINE)

    def works(self):
        self.queue.put("for whoever still waits")
        return self.queue.get(timeout=DEADLINE) == "for whoever still waits"


class QueueGiven(QueueGet):
    """It has something, and the job would be woken in this turn of the hub."""

    def before(self):
        self.queue.put("for whoever still waits")

    def works(self):
        return self.queue.get(timeout=DEADLINE) == "for whoever still waits"


class QueuePut(QueueGet):
    def __init__(self):
        self.queue = queue.Queue(1)
        self.queue.put("for whoever still waits")

    def wait(self):
        self.queue.put("nobody takes this", timeout=DEADLINE)

    def works(self):
        kept = self.queue.get(timeout=DEADLINE)
        return kept == "for whoever still waits" and self.queue.empty()


class Receive:
    def __init__(self):
        self.near, self.far = socket.socketpair()

    def wait(self):
        self.near.recv(1)

    def works(self):
        self.far.send(b"x")
        with self.near, self.far:
            return self.near.recv(10) == b"x"


class Send(Receive):
    def wait(self):
        self.near.sendall(b"x" * 10_000_000)

    def works(self):
        with self.near, self.far:
            self.near.settimeout(0)
            while self.far.recv(1_000_000, socket.MSG_DONTWAIT):
                try:
                    return self.near.send(b"y") == 1
                except BlockingIOError:
                    continue
        return False


class Child:
    def wait(self):
        with subprocess.Popen(["sleep", "1000"]) as self.child:
            try:
                self.child.wait(DEADLINE)
            finally:
                self.child.kill()

    def works(self):
        return self.child.returncode == -9 and subprocess.run(["true"], check=False).returncode == 0


class NativeThread:
    """Its call goes on, and its result goes nowhere."""

    def __init__(self):
        self.ended = []

    def call(self):
        monkey.get_original("time", "sleep")(0.2)
        self.ended.append(1)

    def wait(self):
        gevent.get_hub().threadpool.apply(self.call)

    def works(self):
        with gevent.Timeout(DEADLINE):
            while not self.ended:
                gevent.sleep(0.01)
        return gevent.get_hub().threadpool.apply(int, ("7",)) == 7


class Join:
    def wait(self):
        self.thread = threading.Thread(target=time.sleep, args=(0.2,))
        self.thread.start()
        self.thread.join(DEADLINE)

    def works(self):
        self.thread.join(DEADLINE)
        return not self.thread.is_alive()


class Cleanup:
    """The job waits once more while the exception passes."""

    def __init__(self):
        self.cleaned = False

    def wait(self):
        try:
            time.sleep(DEADLINE)
        finally:
            time.sleep(0.01)
            self.cleaned = True

    def works(self):
        return self.cleaned


class EventSet(Event):
    """It is set, and the job would be woken in this turn of the hub."""

    def before(self):
        self.event.set()

    def works(self):
        return self.event.wait(0)


THINGS = {
    "sleep": Sleep,
    "event": Event,
    "event that was set": EventSet,
    "lock": Lock,
    "lock that was given": LockGiven,
    "rlock": RLock,
    "condition": Condition,
    "queue get": QueueGet,
    "queue that was given something": QueueGiven,
    "queue put": QueuePut,
    "receive": Receive,
    "send": Send,
    "child": Child,
    "native thread": NativeThread,
    "join": Join,
    "cleanup": Cleanup,
}


def interrupt_in(thing):
    """Interrupt a job in it; what became of the job, the pool and the thing."""
    pool = GreenletPool(1, lambda: None)
    came, behind = [], []

    def job():
        began.set()
        try:
            thing.wait()
            came.append("ended")
        except BaseException as error:
            came.append(type(error).__name__)
            raise

    def on_hub(call, *args):
        done = []
        gevent.get_hub().loop.run_callback(lambda: done.append(call(*args)))
        gevent.sleep(0)
        return done[0]

    def stop():
        if hasattr(thing, "before"):
            thing.before()
        return pool.interrupt(job, Stopped())

    began = threading.Event()
    on_hub(pool.submit, job)
    began.wait(DEADLINE)
    gevent.sleep(0.02)
    on_hub(pool.submit, lambda: behind.append(1))
    interrupted = on_hub(stop)
    with gevent.Timeout(DEADLINE):
        while not behind:
            gevent.sleep(0.001)
    stale = on_hub(pool.interrupt, job, Stopped())
    return {
        "interrupted": interrupted,
        "came": came,
        "stale": stale,
        "counts": [pool.busy, pool.queued, pool.detached, pool.alive],
        "works": thing.works(),
    }


if __name__ == "__main__":
    json.dump({name: interrupt_in(make()) for name, make in THINGS.items()}, sys.stdout)
