"""Fetches histories for the fan-out: many questions in one round trip, never on the hub.

``ask`` is called on the hub and answers there.  Between the two a runner beside the pool (a
greenlet or a native thread, one at a time) takes all questions that wait and puts them to the store
together.  Questions are few: one per channel at a time.

Bounded: beyond ``MOST`` a question is answered with an error at once.  A store that fails is asked
again for ``PATIENCE`` seconds, for right after a lost connection it may need a moment; then the
error is the answer.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from gpulse.errors import StoreError
from gpulse.store.base import Recovery, Store

MOST = 50_000
"""Questions that may wait: as many as a worker may have channels."""
BATCH = 100
"""Questions put to the store at once."""
PATIENCE = 2.0
"""Seconds after which a question is not put to the store any more."""
PAUSE = 0.1
"""Seconds before a store that failed is asked again."""

_log = logging.getLogger("gpulse.store")

Answer = Callable[[Recovery | StoreError], None]


class _Question(NamedTuple):
    channel: str
    since: str | None
    answer: Answer
    asked: float


class Historian:
    """See the head of this file.

    :param spawn: runs a function that may block, beside the pool.
    :param call_hub: runs a function on the hub, from there.
    """

    def __init__(
        self,
        store: Store,
        spawn: Callable[[Callable[[], None]], object],
        call_hub: Callable[..., object],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._questions: deque[_Question] = deque()
        self._lock = threading.Lock()
        self._running = False
        self._store = store
        self._spawn = spawn
        self._call_hub = call_hub
        self._clock = clock
        # Looked up now: at import time nothing may be patched yet.
        self._sleep = sleep or time.sleep
        self.refused = 0
        """Questions that were not put to the store: too many waited, or for too long."""

    def ask(self, channel: str, since: str | None, answer: Answer) -> None:
        """On the hub: have ``answer`` called there, later or at once."""
        with self._lock:
            is_full = len(self._questions) >= MOST
            if not is_full:
                self._questions.append(_Question(channel, since, answer, self._clock()))
            begin = not (is_full or self._running)
            if begin:
                self._running = True
        if is_full:
            self.refused += 1
            answer(StoreError("too many channels wait for their history"))
        elif begin:
            self._begin()

    def _begin(self) -> None:
        try:
            self._spawn(self._run)
        except RuntimeError as failure:
            # No thread can be had.
            with self._lock:
                batch, self._running = list(self._questions), False
                self._questions.clear()
            self.refused += len(batch)
            self._give(batch, [StoreError(f"no history is fetched: {failure}")] * len(batch))

    def _run(self) -> None:
        """Beside the pool: until nothing waits."""
        while True:
            with self._lock:
                count = min(BATCH, len(self._questions))
                batch = [self._questions.popleft() for _ in range(count)]
                if not batch:
                    self._running = False
                    return
            answers = self._answers(batch)
            if answers is None:
                with self._lock:
                    self._questions.extendleft(reversed(batch))
                self._sleep(PAUSE)
            else:
                self._call_hub(self._give, batch, answers)

    def _answers(self, batch: list[_Question]) -> list[Recovery | StoreError] | None:
        """None: ask again in a moment."""
        if batch[-1].asked < self._clock() - PATIENCE:
            self.refused += len(batch)
            return [StoreError("the data store took too long for its histories")] * len(batch)
        try:
            return [*self._store.recover([(each.channel, each.since) for each in batch])]
        except StoreError as error:
            if self._clock() + PAUSE - batch[0].asked < PATIENCE:
                return None
            return [error] * len(batch)
        except Exception as error:
            # The runner has to go on, and whoever asked has to have an answer.
            _log.exception("histories could not be fetched")
            return [StoreError(f"a history could not be fetched: {error}")] * len(batch)

    def _give(self, batch: list[_Question], answers: list[Recovery | StoreError]) -> None:
        for question, answer in zip(batch, answers, strict=True):
            try:
                question.answer(answer)
            except Exception:
                _log.exception("a history of channel %s was not taken", question.channel)
