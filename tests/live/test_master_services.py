"""A real master beside real helpers: the embedded store and systemd's protocols."""

import os
import re
import signal
import socket
import stat
from pathlib import Path

import pytest
from master_process import DEADLINE, answer
from pulse import until

from gpulse.master.store_process import answers


@pytest.fixture
def start(start_master):
    return start_master


@pytest.fixture
def notify_socket(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(DEADLINE)
        yield receiver
    (tmp_path / "notify").unlink()


def socket_of(facts):
    return re.fullmatch(r"unix://(/.*)\?db=0", facts["store_url"])[1]


class TestStore:
    def test_it_answers_in_a_private_directory_before_the_first_worker(self, start):
        master = start(workers=1, data_store="embedded").logged("is ready")
        facts = master.ask()
        master.children()
        assert answers(socket_of(facts))
        assert stat.S_IMODE(Path(facts["runtime_dir"]).stat().st_mode) == 0o700
        title = Path(f"/proc/{facts['store_pid']}/cmdline").read_text()
        assert f"unixsocket:{socket_of(facts)}" in title  # a TCP port would stand there
        master.send("TERM")
        assert master.wait() == 0
        assert not Path(facts["runtime_dir"]).exists()

    def test_a_killed_store_is_back_in_a_moment_at_the_same_place(self, start):
        master = start(workers=1, data_store="embedded").logged("is ready")
        facts = master.ask()
        master.children()
        os.kill(facts["store_pid"], signal.SIGKILL)
        master.logged("the embedded store (pid")
        until(lambda: answers(socket_of(facts)), 3)
        assert len(master.children()) == 2
        assert master.ask()["pid"] == facts["pid"]

    def test_it_outlives_the_last_worker(self, start):
        """A terminal's Ctrl-C goes to the whole process group, and workers may still publish."""
        master = start(workers=1, data_store="embedded").logged("is ready")
        store_pid = master.ask()["store_pid"]
        master.children()
        assert os.getpgid(store_pid) != os.getpgid(master.pid)
        os.killpg(master.pid, signal.SIGINT)
        assert master.wait() == 0
        assert "the embedded store (pid" not in master.log

    def test_a_url_is_passed_through_and_nothing_started(self, start):
        master = start(workers=1, data_store="redis://127.0.0.1:1/3").logged("is ready")
        facts = master.ask()
        assert (facts["store_url"], facts["store_pid"]) == ("redis://127.0.0.1:1/3", 0)
        assert facts["runtime_dir"] == ""
        assert len(master.children()) == 1

    def test_a_program_that_ends_at_once_is_one_line(self, start, tmp_path):
        program = tmp_path / "bin" / "valkey-server"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\necho no room for me\nexit 1\n")
        program.chmod(0o755)
        path = f"{program.parent}:{os.environ['PATH']}"
        master = start(data_store="embedded", environ={"PATH": path})
        assert master.wait() == 6
        assert "the embedded store ended as it started: no room for me" in master.log


class TestSystemd:
    def test_ready_comes_after_the_workers_and_stopping_at_the_stop(
        self, start, notify_socket, tmp_path
    ):
        (tmp_path / "hang").write_text("x")
        master = start(workers=2, environ={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        until(lambda: "listening" in master.log and len(master.children()) == 2)
        (tmp_path / "hang").unlink()
        ready = receive(notify_socket, "READY=1")
        assert master.log.count("is ready") == 2
        assert f"MAINPID={master.pid}" in ready
        assert "STATUS=2 of 2 workers serve" in ready
        assert master.ask()["environ"] == []
        master.send("HUP")
        assert any(
            line.startswith("MONOTONIC_USEC=") for line in receive(notify_socket, "RELOADING=1")
        )
        receive(notify_socket, "READY=1")
        master.children()
        master.send("TERM")
        receive(notify_socket, "STOPPING=1")
        assert master.wait() == 0

    def test_a_watchdog_gets_its_signs_of_life(self, start, notify_socket, tmp_path):
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        master = start(workers=1, environ=environ).logged("is ready")
        for _ in range(3):
            receive(notify_socket, "WATCHDOG=1")
        master.children()

    def test_a_socket_that_systemd_opened_takes_the_place_of_bind(self, start, tmp_path):
        path = str(tmp_path / "site.sock")
        master = start(
            workers=1,
            prefix=["systemd-socket-activate", "-l", path],
            bind=["127.0.0.1:1"],  # would be refused if it were opened
        )
        until(lambda: Path(path).exists())
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE)
            connection.connect(path)
            facts = answer(connection)
        assert facts["environ"] == []
        master.logged(f"listening on unix:{path}")
        master.children()
        master.send("TERM")
        assert master.wait() == 0
        Path(path).unlink()  # systemd's to keep, not the master's to remove


def receive(receiver, wanted):
    """The lines of the first datagram that holds ``wanted``."""
    while True:
        lines = receiver.recv(4096).decode().split("\n")
        if wanted in lines:
            return lines
