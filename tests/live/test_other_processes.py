"""A site and its other processes: ``manage.py gpulse``, and LivePulse in a site's own tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

from pulse import DEADLINE, ROOT, Pulse, is_alive, until

PROJECT = ROOT / "tests/unit/testing/project"


def gpulse(pulse: Pulse, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run ``manage.py gpulse`` beside the site, from another directory."""
    return subprocess.run(
        [sys.executable, str(pulse.site / "manage.py"), "gpulse", *arguments],
        cwd=pulse.folder,
        env={**pulse.environ, **environ},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def printed(pulse: Pulse, *arguments: str) -> str:
    done = gpulse(pulse, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_command_finds_the_embedded_store_of_its_running_site(start):
    pulse = start("-w", "2", "--greenlet", "10", "--history", "room:*=10/60").ready()
    with pulse.socket("/room/a") as client:
        client.recv(DEADLINE)
        # The history was given on the command line: the running site says what is kept.
        assert printed(pulse, "publish", "room:a", '{"n": 1}', "--json").startswith(
            "to 1 worker, as "
        )
        assert json.loads(client.recv(DEADLINE)) == {"n": 1}
        assert printed(pulse, "channels", "room:*") == "CHANNEL  WORKERS\nroom:a   1\n"
        assert printed(pulse, "presence", "room:a", "--json") == "{}\n"
    other = gpulse(pulse, "publish", "room:a", "x", GPULSE_PULSE_APP_NAME="other")
    assert other.returncode == 6
    os.kill(pulse.workers()[0], 9)  # the record outlives a worker
    printed(pulse, "channels")
    assert pulse.stop() == 0
    done = gpulse(pulse, "channels")
    assert (done.returncode, done.stdout) == (6, "")
    assert "no site with an embedded store runs here" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_process_that_publishes_finds_the_site_again_when_it_was_started_anew(start):
    script = """
import sys
import django, gpulse
from gpulse.errors import PublishError
django.setup()
for line in sys.stdin:
    try:
        print(gpulse.publish("room:a", line.strip()).receivers, flush=True)
    except PublishError as error:
        print(error, flush=True)
"""
    first = start("--greenlet", "10").ready()
    environ = {**first.environ, "DJANGO_SETTINGS_MODULE": "mysite.settings"}
    publisher = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=first.site,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert publisher.stdin is not None
    assert publisher.stdout is not None

    def publish(text: str) -> str:
        print(text, file=publisher.stdin, flush=True)
        return publisher.stdout.readline()

    try:
        assert publish("one") == "0\n"
        first.stop()
        assert "no site" in publish("two")
        second = start("--greenlet", "10", environ={"TMPDIR": environ["TMPDIR"]}).ready()
        with second.socket("/room/a") as client:
            client.recv(DEADLINE)
            assert publish("three") == "1\n"
            assert client.recv(DEADLINE) == "three"
        assert second.stop() == 0
    finally:
        publisher.communicate(timeout=DEADLINE)


def test_the_real_server_in_a_sites_own_tests(tmp_path: Path):
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ROOMS_TEST_DATABASE": str(tmp_path / "test.sqlite3"),
    }
    done = subprocess.run(
        [sys.executable, "manage.py", "test", "rooms.live_tests"],
        cwd=PROJECT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 4 tests" in done.stderr


def test_a_database_in_memory_is_refused():
    done = subprocess.run(
        [sys.executable, "manage.py", "test", "rooms.live_tests.LiveTests"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "is in this process's memory, where no server finds it: give it a file" in done.stderr


def test_a_site_that_was_killed_is_not_found(start):
    pulse = start("--greenlet", "10").ready()
    pulse.send_signal("KILL")
    pulse.process.wait(DEADLINE)
    until(lambda: not any(map(is_alive, pulse.seen)), "processes are left")
    assert gpulse(pulse, "channels").returncode == 6
