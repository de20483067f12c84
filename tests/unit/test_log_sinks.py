"""Where the log writer's lines go: files that are rotated or full, descriptors, and what not."""

import contextlib
import os
import resource
import signal

import pytest

from gpulse import logs, syslog
from gpulse.errors import FileError
from gpulse.logs import DescriptorSink, FileSink, LineWriter, open_sink


@contextlib.contextmanager
def full_disk(size):
    """No file of this process can grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def sink(path):
    sink = FileSink(str(path))
    yield sink
    sink.close()


def test_a_full_disk_costs_lines_and_spoils_no_later_one(sink, path):
    with full_disk(10):
        assert sink.write([b"one\n", b"two\n", b"three\n", b"four\n"]) == 2
        assert sink.write([b"five\n"]) == 1
    assert sink.write([b"six\n"]) == 0
    assert sink.write([b"seven\n"]) == 0
    assert path.read_bytes() == b"one\ntwo\nth\nsix\nseven\n"


def test_a_disk_that_is_full_between_two_lines_leaves_no_empty_one(sink, path):
    with full_disk(4):
        assert sink.write([b"one\n", b"two\n"]) == 1
        assert sink.write([b"three\n"]) == 1
    assert sink.write([b"four\n"]) == 0
    assert path.read_bytes() == b"one\nfour\n"


def test_a_new_file_does_not_begin_with_the_end_of_the_old(sink, path):
    with full_disk(2):
        assert sink.write([b"one\n"]) == 1
    path.rename(path.with_name("log.1"))
    sink.reopen()
    assert sink.write([b"two\n"]) == 0
    assert path.read_bytes() == b"two\n"


def test_a_reopened_file_is_let_go_of_without_a_line(sink, path):
    before = len(os.listdir("/proc/self/fd"))
    sink.reopen()
    sink.reopen()
    assert sink.write([]) == 0
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_line_without_a_reader_is_lost_and_a_descriptor_is_never_closed():
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    sink = DescriptorSink(write_fd)
    assert sink.write([b"a\n", b"b\nc\n"]) == 2
    sink.reopen()
    sink.close()
    os.fstat(write_fd)
    os.close(write_fd)


class FakeSink:
    """Loses every second line."""

    def __init__(self):
        self.calls = []

    def write(self, lines):
        self.calls.append(lines)
        return len(lines) // 2

    def reopen(self):
        self.calls.append("reopen")

    def close(self):
        self.calls.append("close")


def test_a_writer_drives_any_sink_and_counts_what_it_loses():
    sink = FakeSink()
    writer = LineWriter(sink)
    writer.reopen()
    for number in range(4):
        writer.write(str(number))
    assert writer.close(5)
    assert sink.calls[0] == "reopen"
    assert sink.calls[-1] == "close"
    written = [line for lines in sink.calls[1:-1] for line in lines]
    assert written == [b"0\n", b"1\n", b"2\n", b"3\n"]
    assert writer.dropped == 2
    writer.reopen()
    assert sink.calls[-1] == "close"


def test_what_the_option_names(path):
    assert open_sink("-")._fd == 1
    file = open_sink(str(path))
    assert isinstance(file, FileSink)
    file.close()
    with pytest.raises(FileError, match="cannot write the log file"):
        open_sink(str(path / "none"))
    with pytest.raises(FileError, match=r"cannot log to syslog at .*none: No such file"):
        open_sink(f"syslog:unix:{path}-none")
    waiting = open_sink(f"syslog:unix:{path}-none", "mysite", patient=True)
    assert isinstance(waiting, syslog.DatagramSink)
    assert waiting._target.tag == "mysite"
    waiting.close()


def test_a_line_always_fits_the_datagram_of_a_daemon():
    assert len(logs._encode("x" * 10**6)) < 65_507 - 200
