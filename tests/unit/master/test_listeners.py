"""Opening and closing listeners, on real sockets of this machine."""

import os
import socket
import stat

import pytest

from gpulse.errors import ListenError
from gpulse.master import listeners, privileges
from gpulse.master.systemd import FIRST_FD, take_listen_fds

SAME = privileges.resolve(None, None)


@pytest.fixture
def open_all():
    opened = []

    def open_all(*binds, environ=None):
        found = listeners.open_all(binds, 16, SAME, environ if environ is not None else {})
        opened.extend(found)
        return found

    yield open_all
    for listener in opened:
        listener.close()


def test_port_zero_gives_a_url_with_the_real_port(open_all):
    (listener,) = open_all("127.0.0.1:0")
    assert listener.url == f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    assert not listener.url.endswith(":0")


def test_listeners_do_not_block_and_do_not_cross_exec(open_all):
    (listener,) = open_all("127.0.0.1:0")
    assert not listener.socket.getblocking()
    assert not listener.socket.get_inheritable()


def test_a_name_opens_at_least_one_of_its_addresses(open_all):
    assert len(open_all("localhost:0")) in (1, 2)


def test_an_address_in_use_is_refused_and_the_others_are_closed_again(open_all, tmp_path):
    (taken,) = open_all("127.0.0.1:0")
    port = taken.socket.getsockname()[1]
    with pytest.raises(ListenError, match=r"127.0.0.1:\d+: another program listens there"):
        open_all(f"unix:{tmp_path}/first", f"127.0.0.1:{port}")
    assert list(tmp_path.iterdir()) == []


def test_an_address_of_another_machine_is_refused(open_all):
    with pytest.raises(ListenError, match="this machine has no such address"):
        open_all("192.0.2.1:0")


def test_a_name_that_does_not_resolve_is_refused(open_all):
    with pytest.raises(ListenError, match="does not resolve"):
        open_all("name.invalid:0")


def test_a_socket_file_is_made_and_removed(open_all, tmp_path):
    (listener,) = open_all(f"unix:{tmp_path}/site.sock")
    assert stat.S_ISSOCK((tmp_path / "site.sock").stat().st_mode)
    listener.close()
    listener.close()
    assert list(tmp_path.iterdir()) == []


def test_a_socket_file_that_nobody_answers_is_replaced(open_all, tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/site.sock")
    (listener,) = open_all(f"unix:{tmp_path}/site.sock")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/site.sock")
    assert listener.url == f"unix:{tmp_path}/site.sock"


def test_a_socket_file_that_somebody_answers_is_refused(open_all, tmp_path):
    open_all(f"unix:{tmp_path}/site.sock")
    with pytest.raises(ListenError, match="another program listens there"):
        open_all(f"unix:{tmp_path}/site.sock")
    assert (tmp_path / "site.sock").exists()


def test_a_file_that_is_no_socket_is_never_removed(open_all, tmp_path):
    (tmp_path / "site.sock").write_text("precious")
    with pytest.raises(ListenError, match="something that is no socket"):
        open_all(f"unix:{tmp_path}/site.sock")
    assert (tmp_path / "site.sock").read_text() == "precious"


def test_a_missing_directory_is_refused(open_all, tmp_path):
    with pytest.raises(ListenError, match="its directory does not exist"):
        open_all(f"unix:{tmp_path}/no/site.sock")


def test_a_socket_file_that_another_master_has_made_since_is_left(open_all, tmp_path):
    (listener,) = open_all(f"unix:{tmp_path}/site.sock")
    (tmp_path / "site.sock").rename(tmp_path / "moved")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{tmp_path}/site.sock")
        listener.close()
        assert (tmp_path / "site.sock").exists()


def test_a_child_that_closes_a_listener_leaves_the_file(open_all, tmp_path):
    (listener,) = open_all(f"unix:{tmp_path}/site.sock")
    listener._pid += 1
    listener.close()
    assert (tmp_path / "site.sock").exists()


def test_an_inherited_descriptor_is_adopted(open_all):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (listener,) = open_all(f"fd:{os.dup(server.fileno())}")
    assert listener.url == f"http://127.0.0.1:{port}"
    assert not listener.socket.get_inheritable()


@pytest.mark.parametrize("make", [lambda: os.dup(1), lambda: socket.socket().detach()])
def test_a_descriptor_that_does_not_listen_is_refused(open_all, make):
    fd = make()
    with pytest.raises(ListenError, match=r"no open socket|not a listening stream socket"):
        open_all(f"fd:{fd}")
    os.close(fd)


def test_listen_fds_of_another_process_are_not_taken_but_removed():
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "PATH": "/bin"}
    assert list(take_listen_fds(environ)) == []
    assert environ == {"PATH": "/bin"}


def test_our_listen_fds_begin_at_three():
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}
    assert list(take_listen_fds(environ)) == [FIRST_FD, FIRST_FD + 1]
