"""The log lines, and the writer that never makes its caller wait."""

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpulse import logs
from gpulse.errors import FileError
from gpulse.logs import AsyncHandler, Formatter, LineWriter

DEADLINE = 5.0


@pytest.fixture
def quiet() -> Iterator[logging.Logger]:
    """The top logger, put back as it was."""
    top = logging.getLogger("gpulse")
    before = (top.handlers[:], top.level, top.propagate)
    yield top
    top.handlers[:], top.level, top.propagate = before


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def record(message: str, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("gpulse.test", level, __file__, 1, message, (), None)


def fill(fd: int) -> None:
    """Make a pipe full, so that the next write to it blocks."""
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(fd, b"x" * 4096):
            pass
    os.set_blocking(fd, True)


def test_a_line_says_when_who_and_what() -> None:
    line = Formatter("worker 3").format(record("listening"))
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"{stamp} gpulse\[worker 3 pid {os.getpid()}\] INFO listening", line)


def test_the_journal_gets_a_priority_on_every_line_and_no_time() -> None:
    line = Formatter("master", journal=True).format(record("one\ntwo", logging.ERROR))
    assert line == "<3>gpulse[master] one\n<3>gpulse[master] two"


def test_the_journal_is_recognized_by_device_and_inode(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("wb") as file:
        status = os.fstat(file.fileno())
        named = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert logs.under_systemd(named, file.fileno())
        assert not logs.under_systemd({"JOURNAL_STREAM": "1:2"}, file.fileno())
        assert not logs.under_systemd({}, file.fileno())
    assert not logs.under_systemd(named, 10**6)


def test_configure_replaces_its_own_handler(quiet: logging.Logger) -> None:
    logs.configure("warning", "master")
    logs.configure("debug", "master")
    assert len(quiet.handlers) == 1
    assert quiet.level == logging.DEBUG
    assert not quiet.propagate


def test_loggers_that_a_dictconfig_disabled_are_enabled_again(quiet: logging.Logger) -> None:
    ours, theirs = logs.logger("some.part"), logging.getLogger("gpulsex")
    ours.disabled = theirs.disabled = True
    logs.enable()
    assert not ours.disabled
    assert theirs.disabled
    theirs.disabled = False


def test_lines_arrive_in_order_and_close_flushes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LineWriter(str(path))
    for number in range(2000):
        writer.write(f"line {number}")
    assert writer.close(DEADLINE)
    assert path.read_text().splitlines() == [f"line {number}" for number in range(2000)]
    assert writer.dropped == 0


def test_nothing_is_written_after_close_and_closing_twice_is_harmless(tmp_path: Path) -> None:
    writer = LineWriter(str(tmp_path / "log"))
    assert writer.close(DEADLINE)
    writer.write("late")
    assert writer.close(DEADLINE)
    assert writer.dropped == 1
    assert (tmp_path / "log").read_text() == ""


def test_a_full_queue_drops_and_counts_and_never_blocks() -> None:
    read_fd, write_fd = os.pipe()
    fill(write_fd)
    writer = LineWriter(write_fd, limit=10)
    writer.write("first")
    until(lambda: not writer._lines)  # the thread holds it, blocked in write(2)
    began = time.monotonic()
    for number in range(15):
        writer.write(f"line {number}")
    assert time.monotonic() - began < 1
    assert writer.dropped == 5
    assert not writer.close(0.01)
    os.set_blocking(read_fd, False)

    def drained() -> bool:
        with contextlib.suppress(BlockingIOError):
            while os.read(read_fd, 65536):
                pass
        return writer.close(0.01)

    until(drained)
    os.close(read_fd)
    os.close(write_fd)


def test_a_descriptor_that_does_not_block_is_waited_for() -> None:
    read_fd, write_fd = os.pipe()
    fill(write_fd)
    os.set_blocking(write_fd, False)
    writer = LineWriter(write_fd)
    writer.write("the last")
    os.set_blocking(read_fd, False)
    seen = bytearray()

    def arrived() -> bool:
        with contextlib.suppress(BlockingIOError):
            seen.extend(os.read(read_fd, 65536))
        return seen.endswith(b"the last\n")

    until(arrived)
    assert writer.close(DEADLINE)
    assert writer.dropped == 0
    os.close(read_fd)
    os.close(write_fd)


def test_a_reader_that_is_gone_is_counted_and_survived() -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    writer = LineWriter(write_fd)
    writer.write("nobody reads this")
    until(lambda: writer.dropped == 1)
    assert writer.close(DEADLINE)
    os.close(write_fd)


def test_reopen_follows_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LineWriter(str(path))
    writer.write("old")
    until(lambda: path.read_text() == "old\n")
    path.rename(tmp_path / "log.1")
    writer.reopen()
    writer.write("new")
    assert writer.close(DEADLINE)
    assert path.read_text() == "new\n"
    assert (tmp_path / "log.1").read_text() == "old\n"


def test_a_reopen_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    writer = LineWriter(str(directory / "log"))
    directory.rename(tmp_path / "moved")
    with pytest.raises(FileError, match="cannot write the log file"):
        writer.reopen()
    writer.write("still")
    assert writer.close(DEADLINE)
    assert (tmp_path / "moved" / "log").read_text() == "still\n"


def test_a_path_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"^cannot write the log file .*: No such file"):
        LineWriter(str(tmp_path / "none" / "log"))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    writer = LineWriter(str(tmp_path / "log"))
    writer.reopen()
    assert writer.close(DEADLINE)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_long_line_loses_its_middle(tmp_path: Path) -> None:
    writer = LineWriter(str(tmp_path / "log"))
    writer.write("a" * 100_000 + "end")
    assert writer.close(DEADLINE)
    text = (tmp_path / "log").read_text()
    assert len(text) < logs.MAX_LINE + 20
    assert text.startswith("aaa")
    assert " [...] " in text
    assert text.endswith("end\n")


def test_text_that_is_no_unicode_is_written_escaped(tmp_path: Path) -> None:
    writer = LineWriter(str(tmp_path / "log"))
    writer.write("bad \udcff")
    assert writer.close(DEADLINE)
    assert (tmp_path / "log").read_text() == "bad \\udcff\n"


def test_the_handler_writes_formatted_records(tmp_path: Path) -> None:
    writer = LineWriter(str(tmp_path / "log"))
    handler = AsyncHandler(writer)
    handler.setFormatter(Formatter("worker 0", journal=True))
    handler.handle(record("hello"))
    assert writer.close(DEADLINE)
    assert (tmp_path / "log").read_text() == "<6>gpulse[worker 0] hello\n"
