"""A real master, real signals: what each does to real workers."""

import os
import signal
from pathlib import Path

import pytest
from master_process import MasterProcess, answer
from pulse import is_alive, until


@pytest.fixture
def start(start_master):
    return start_master


def serving(start, workers=2, **options):
    master = start(workers=workers, **options)
    master.logged(f"{workers} of {workers} worker")
    master.children()
    return master


@pytest.mark.parametrize("name", ["TERM", "INT", "QUIT"])
def test_a_stop_exits_with_zero_and_leaves_nothing(start, tmp_path, name):
    master = serving(start, bind=["127.0.0.1:0", f"unix:{tmp_path}/site.sock"])
    assert (tmp_path / "site.sock").is_socket()
    master.send(name)
    assert master.wait() == 0
    master.assert_gone()


def test_a_killed_worker_is_respawned_and_the_other_goes_on(start):
    master = serving(start)
    before = master.survey(2)
    os.kill(before[0]["pid"], signal.SIGKILL)
    master.logged("was killed by SIGKILL").logged("worker 0 (pid", 3)
    after = master.survey(2)
    assert after[0]["pid"] != before[0]["pid"]
    assert after[1]["pid"] == before[1]["pid"]
    master.children()
    assert "OOM" in master.log


def test_a_killed_master_leaves_no_process(start, tmp_path):
    master = serving(start, data_store="embedded")
    assert len(master.children()) == 3
    master.send("KILL")
    master.wait()
    master.assert_gone()


def test_a_worker_holds_none_of_the_masters_descriptors(start):
    master = serving(start)
    first = master.survey(2)
    os.kill(first[0]["pid"], signal.SIGKILL)
    master.logged("worker 0 (pid", 3)
    after = master.survey(2)
    # A later fork inherits no more than the first one did.
    assert len(after[0]["fds"]) == len(first[0]["fds"])
    assert not [fd for fd in after[0]["fds"] if "notify" in fd]


def test_reload_brings_the_new_code_and_replaces_all(start, tmp_path):
    (tmp_path / "code").write_text("old")
    master = serving(start)
    assert {facts["code"] for facts in master.survey(2).values()} == {"old"}
    (tmp_path / "code").write_text("new")
    master.send("HUP")
    master.logged("reloaded: generation 2 serves")
    until(lambda: len(master.children()) == 2)
    assert {facts["code"] for facts in master.survey(2).values()} == {"new"}


def test_a_broken_reload_leaves_the_old_code_serving_and_says_why(start, tmp_path):
    master = serving(start)
    before = {facts["pid"] for facts in master.survey(2).values()}
    (tmp_path / "broken").write_text("mysite/views.py line 3: invalid syntax")
    master.send("HUP")
    master.logged("reload abandoned, 2 workers with the old code go on serving")
    assert "could not start: mysite/views.py line 3: invalid syntax" in master.log
    until(lambda: len(master.children()) == 2)
    assert set(master.children()) == before
    (tmp_path / "broken").unlink()
    master.send("HUP")
    master.logged("reloaded: generation 3 serves")


def test_a_reload_that_hangs_is_abandoned_with_a_stack(start, tmp_path):
    master = serving(start, boot_timeout=1)
    (tmp_path / "hang").write_text("x")
    master.send("HUP")
    master.logged("reload abandoned").logged("Fatal Python error: Aborted")
    until(lambda: len(master.children()) == 2)
    (tmp_path / "hang").unlink()


def test_ttin_and_ttou_change_the_count(start):
    master = serving(start, workers=1)
    master.send("TTIN")
    master.logged("worker 1 (pid").logged(") is ready", 2)
    assert set(master.survey(2)) == {0, 1}
    master.send("TTOU")
    until(lambda: len(master.children()) == 1)
    assert master.ask()["slot"] == 0


def test_usr1_reaches_the_workers(start):
    master = serving(start, workers=1)
    master.send("USR1")
    until(lambda: master.ask()["reopened"] == 1)


def test_a_worker_that_asks_is_replaced_by_one_that_is_ready(start, tmp_path):
    master = serving(start, workers=1)
    (tmp_path / "retire").write_text("x")
    until(lambda: master.ask()["slot"] == 1)
    (tmp_path / "retire").unlink()
    until(lambda: len(master.children()) == 1)


def test_a_boot_that_fails_everywhere_is_one_line_and_its_status(start, tmp_path):
    (tmp_path / "broken").write_text("no module named mysite")
    master = start(workers=3)
    assert master.wait() == 4
    assert master.log.count("no module named mysite") == 1
    assert "Traceback" not in master.log


def test_a_blocked_worker_is_killed_with_its_stack_and_respawned(start):
    master = serving(start, workers=1, timeout=1)
    pid = master.ask()["pid"]
    os.kill(pid, signal.SIGSTOP)
    master.logged("has been blocked for").logged(") is ready", 2)
    until(lambda: not is_alive(pid))
    assert master.ask()["pid"] != pid


def test_a_stop_during_the_boot_ends_it(start, tmp_path):
    (tmp_path / "hang").write_text("x")
    master = start(workers=2)
    until(lambda: "listening" in master.log and len(master.children()) == 2)
    master.send("TERM")
    assert master.wait() == 0


def test_a_second_master_on_the_same_addresses_is_refused_in_one_line(start, tmp_path):
    master = serving(start, bind=["127.0.0.1:0", f"unix:{tmp_path}/site.sock"])
    other = tmp_path / "other"
    other.mkdir()
    second = MasterProcess(other, bind=[f"127.0.0.1:{master.address()[1]}"])
    assert second.wait() == 5
    assert "another program listens there" in second.log
    third = MasterProcess(other, bind=[f"unix:{tmp_path}/site.sock"])
    assert third.wait() == 5
    assert (tmp_path / "site.sock").is_socket()


def test_the_pid_file_holds_the_pid_until_the_end(start, tmp_path):
    master = serving(start, pid_file=str(tmp_path / "pid"))
    assert (tmp_path / "pid").read_text() == f"{master.pid}\n"
    other = tmp_path / "other"
    other.mkdir()
    second = MasterProcess(other, pid_file=str(tmp_path / "pid"))
    assert second.wait() == 7
    assert f"living process {master.pid}" in second.log
    master.send("TERM")
    master.wait()
    assert not (tmp_path / "pid").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_workers_run_as_the_user_that_was_asked_for(start, tmp_path):
    import pwd
    import socket

    nobody = pwd.getpwnam("nobody")
    for folder in [tmp_path, *tmp_path.parents]:
        if folder != Path("/") and folder.stat().st_uid == os.getuid() and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    master = serving(
        start,
        workers=1,
        user="nobody",
        umask=0o007,
        data_store="embedded",
        bind=["127.0.0.1:0", f"unix:{tmp_path}/site.sock"],
    )
    facts = master.ask()
    assert (facts["uid"], facts["home"]) == (nobody.pw_uid, nobody.pw_dir)
    status = Path(f"/proc/{facts['store_pid']}/status").read_text()
    assert f"Uid:\t{nobody.pw_uid}\t" in status
    found = (tmp_path / "site.sock").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (nobody.pw_uid, 0o770)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"{tmp_path}/site.sock")
        assert answer(connection)["uid"] == nobody.pw_uid


def test_saving_a_source_file_reloads_with_reload(start, tmp_path):
    source = tmp_path / "site_code"
    source.mkdir()
    master = serving(start, environ={"PYTHONPATH": str(source)}, workers=1, reload=True)
    until(lambda: len(master.children()) == 2)

    def save():
        (source / "views.py").write_text("x = 1\n" * (len(master.log) % 97 + 1))
        return "reloading: generation" in master.log

    until(save)  # the watcher may not stand yet when the first save comes
    master.logged("reloaded: generation")
