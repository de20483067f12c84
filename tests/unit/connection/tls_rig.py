"""A TLS connection whose both ends are in memory: the test carries the bytes."""

import contextlib
import os
import ssl
import time

from cryptography.hazmat.bindings.openssl.binding import Binding
from unit.connection.fake_loop import FakeLoop, FakeSocket

from gpulse import tlsfiles
from gpulse.config import Config
from gpulse.connection.connection import READ_SIZE
from gpulse.connection.timers import DeadlineWheel
from gpulse.connection.tls import TlsConnection
from gpulse.connection.tlscontext import build_context

MIB = 1024 * 1024
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def context_for(pair, **options):
    certificate, key = pair
    return build_context(files_for(tls_certificate=certificate, tls_key=key, **options))


def sni(name, pair):
    """The option's value."""
    return f"{name}={pair[0]}:{pair[1]}"


def files_for(**options):
    return tlsfiles.read_files(Config.defaults(**options))


class Loop(FakeLoop):
    """With the callbacks of the hub's next turn."""

    def __init__(self):
        super().__init__()
        self.callbacks = []

    def run_callback(self, call):
        self.callbacks.append(call)

    def turn(self):
        callbacks, self.callbacks = self.callbacks, []
        for call in callbacks:
            call()
        return len(callbacks)


class Recorder:
    """A protocol that remembers its calls; consecutive data as one."""

    def __init__(self, rig):
        self.rig = rig
        self.calls = []
        self.sizes = []
        self.pause_after = None

    def data_received(self, data):
        self.sizes.append(len(data))
        if self.calls and isinstance(self.calls[-1], bytes):
            self.calls[-1] += data
        else:
            self.calls.append(data)
        if self.pause_after is not None and len(self.sizes) >= self.pause_after:
            self.rig.connection.pause_reading()

    def eof_received(self):
        self.calls.append("eof")

    def write_progressed(self):
        self.calls.append("progress")

    def deadline_passed(self, now):
        self.calls.append("deadline")

    def connection_lost(self):
        self.calls.append("lost")


class MemoryClient:
    """The other end: Python's own TLS client between two BIOs."""

    def __init__(self, context, name="site.test"):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.is_secure = False
        self.received = b""
        self.closed = False

    def take(self, data):
        """Records from the server."""
        self.incoming.write(data)
        try:
            if not self.is_secure:
                self.tls.do_handshake()
                self.is_secure = True
            while data := self.tls.read(65536):
                self.received += data
            self.closed = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True

    def say(self, data):
        self.tls.write(data)
        return self.outgoing.read()

    def close(self):
        """The records of a close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.outgoing.read()


class Rig:
    """A TlsConnection on a loop and a socket that the test drives, and what happened to it."""

    def __init__(self, context, room=float("inf"), timeout=10.0):
        self.loop = Loop()
        self.sock = FakeSocket(room)
        self.wheel = DeadlineWheel(time.monotonic())
        self.closed = []
        self.refusals = []
        self.protocol = Recorder(self)
        self.connection = TlsConnection(
            self.loop, self.sock, ("192.0.2.1", 4000), None, self.wheel, self.closed.append
        )
        if context is not None:
            self.start(context, timeout)
            self.connection.resume_reading()

    def start(self, context, timeout, data=b""):
        self.connection.start_handshake(
            context, timeout, self.established, self.refusals.append, data
        )

    def established(self, connection):
        assert connection is self.connection
        connection.protocol = self.protocol

    def receive(self, data, step=READ_SIZE):
        """The socket becomes readable, ``step`` bytes at a time."""
        for at in range(0, len(data), step):
            self.sock.incoming.append(data[at : at + step])
            assert self.loop.readable()

    def sent(self):
        """What the server sent since the last call."""
        data, self.sock.sent = self.sock.sent, b""
        return data

    def shake(self, client, step=READ_SIZE):
        """The whole handshake."""
        client.take(b"")
        for _ in range(3):
            self.receive(client.outgoing.read(), step)
            client.take(self.sent())
        assert client.is_secure
        assert self.connection.is_secure
        return client

    def pass_time(self, seconds):
        self.wheel.turn(time.monotonic() + seconds)

    @property
    def calls(self):
        return self.protocol.calls


class FileThread:
    """As ``in_file_thread`` of a pool, but a call runs when the test says so.

    :param directory: where the files go.
    """

    def __init__(self, directory):
        self.directory = directory
        self.calls = []
        self.descriptors = []

    def __call__(self, call, args, done, *done_args):
        self.calls.append((call, args, done, done_args))

    def open(self, content):
        """A file's descriptor."""
        path = self.directory / f"file{len(self.descriptors)}"
        path.write_bytes(content)
        self.descriptors.append(os.open(path, os.O_RDONLY))
        return self.descriptors[-1]

    def turn(self):
        """Run a call and what is to be done with its result; False if none waits."""
        if not self.calls:
            return False
        call, args, done, done_args = self.calls.pop(0)
        result, error = None, None
        try:
            result = call(*args)
        except OSError as caught:
            error = caught
        done(*done_args, result, error)
        return True

    def is_closed(self, fd):
        """The descriptor is closed: its number is free."""
        try:
            os.fstat(fd)
        except OSError:
            return True
        return False


class OtherClient:
    """OpenSSL itself as client, for what the ssl module cannot do."""

    def __init__(self):
        binding = Binding()
        self.lib, self.ffi = binding.lib, binding.ffi
        self.context = self.lib.SSL_CTX_new(self.lib.TLS_client_method())
        self.lib.SSL_CTX_set_max_proto_version(self.context, 0x0303)
        self.ssl = self.lib.SSL_new(self.context)
        self.incoming = self.lib.BIO_new(self.lib.BIO_s_mem())
        self.outgoing = self.lib.BIO_new(self.lib.BIO_s_mem())
        self.lib.SSL_set_bio(self.ssl, self.incoming, self.outgoing)
        self.lib.SSL_set_connect_state(self.ssl)

    def advance(self, data=b""):
        """Take records and go on with the handshake; returns the records to send."""
        if data:
            self.lib.BIO_write(self.incoming, data, len(data))
        self.lib.SSL_do_handshake(self.ssl)
        self.lib.ERR_clear_error()
        buffer = self.ffi.new("char[]", 65536)
        size = self.lib.BIO_read(self.outgoing, buffer, 65536)
        return self.ffi.buffer(buffer, size)[:] if size > 0 else b""

    def close(self):
        self.lib.SSL_free(self.ssl)
        self.lib.SSL_CTX_free(self.context)
