"""Crashes, reloads and signals with real workers."""

import http.client
import os
import signal
import threading
import time

import pytest
from pulse import Pulse, is_alive, until


class Load:
    """Requests without a pause from a few threads; counts what came back."""

    def __init__(self, pulse: Pulse, path: str, threads: int = 3) -> None:
        self.answers: dict[str, int] = {}
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._pulse = pulse
        self._path = path
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._pulse.port, timeout=20)
        while not self._stop.is_set():
            try:
                connection.request("GET", self._path)
                response = connection.getresponse()
                body = response.read().decode()
                if response.status != 200:
                    self.failures.append(f"{response.status} {body[:100]}")
                self.answers[body] = self.answers.get(body, 0) + 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
        connection.close()

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


def test_a_killed_worker_is_replaced_and_the_other_serves_on(start, mode):
    pulse = start(*mode, "-w", "2").ready()
    victim, survivor = pulse.workers()
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(pulse.workers()) == 2 and victim not in pulse.workers(), "a new worker")
    assert survivor in pulse.workers()
    seen = set()
    until(lambda: seen.add(pulse.text("/pid")) or len(seen) == 2, "both answer")
    assert str(survivor) in seen
    assert pulse.stop() == 0


def test_a_killed_master_leaves_nothing(start, mode):
    pulse = start(*mode, "-w", "2").ready()
    with pulse.socket("/echo"):
        pulse.children()
        pulse.process.kill()
        pulse.process.wait()
        pulse.assert_gone()


def test_a_reload_under_load_fails_no_request_and_runs_the_new_code(start, mode):
    pulse = start(*mode, "-w", "2", copied=True).ready()
    old = set(pulse.workers())
    with Load(pulse, "/version") as load:
        until(lambda: load.answers.get("one"))
        (pulse.site / "mysite/version.py").write_text('VERSION = "two"\n')
        pulse.send_signal("HUP")
        until(lambda: load.answers.get("two"), "the new code")
        until(lambda: not any(is_alive(pid) for pid in old), "the old workers are gone")
        time.sleep(0.3)  # some more load on the new workers alone
    assert load.failures == []
    assert len(pulse.workers()) == 2
    assert pulse.stop() == 0


def test_a_reload_with_broken_code_changes_nothing_and_says_why(start, mode):
    pulse = start(*mode, "-w", "2", copied=True).ready()
    old = set(pulse.workers())
    with Load(pulse, "/version") as load:
        (pulse.site / "mysite/version.py").write_text("VERSION = \n")
        pulse.send_signal("HUP")
        pulse.logged("version.py")
        until(lambda: len(pulse.workers()) == 2)
        count = load.answers["one"]
        until(lambda: load.answers["one"] > count + 20)
    assert load.failures == []
    assert set(load.answers) == {"one"}
    assert set(pulse.workers()) == old
    # The next reload, with the code mended, goes through.
    (pulse.site / "mysite/version.py").write_text('VERSION = "mended"\n')
    pulse.send_signal("HUP")
    until(lambda: pulse.text("/version") == "mended")
    until(lambda: not old & set(pulse.workers()))
    assert pulse.stop() == 0


def test_code_broken_at_first_boot_is_one_clear_line(start, tmp_path):
    pulse = start("-w", "2", copied=True)
    pulse.ready().stop()
    (pulse.site / "mysite/version.py").write_text("import nothing_of_that_name\n")
    broken = start("-w", "2", site=pulse.site)
    assert broken.process.wait(30) == 4
    lines = [line for line in broken.log.splitlines() if "nothing_of_that_name" in line]
    assert len(lines) == 1, broken.log
    assert "Traceback" not in broken.log


def test_a_worker_whose_hub_is_blocked_is_replaced(start):
    pulse = start("--greenlet", "5", "-t", "2").ready()
    (victim,) = pulse.workers()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        pulse.get("/block")
    until(lambda: pulse.workers() and victim not in pulse.workers())
    assert "in block" in pulse.log  # the stack, by faulthandler
    assert pulse.text("/version") == "one"
    assert pulse.stop() == 0


def test_ttin_and_ttou_change_the_number_of_workers(start, mode):
    pulse = start(*mode, "-w", "1").ready()
    pulse.send_signal("TTIN")
    until(lambda: len(pulse.workers()) == 2)
    pulse.send_signal("TTOU")
    until(lambda: len(pulse.workers()) == 1)
    assert pulse.text("/version") == "one"
    assert pulse.stop() == 0


def test_usr1_reopens_the_access_log(start, mode, tmp_path):
    path = tmp_path / "access.log"
    pulse = start(*mode, "--access-log", str(path)).ready()
    pulse.text("/version")
    until(lambda: path.exists() and "GET /version" in path.read_text())
    path.rename(tmp_path / "access.log.1")
    pulse.send_signal("USR1")

    def reopened() -> bool:
        pulse.text("/pid")
        return path.exists() and "GET /pid" in path.read_text()

    until(reopened)
    assert pulse.stop() == 0
