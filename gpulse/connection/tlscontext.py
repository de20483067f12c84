"""A worker's TLS context, made from bytes that were read while the process still might.

:func:`build_context` gets what :mod:`gpulse.tlsfiles` has read and gives an ``ssl.SSLContext`` for
:class:`~gpulse.connection.tls.TlsConnection`.  It runs once, at a worker's boot, after gevent has
patched ``ssl``.  A mistake of the user is one line, and the worker does not become ready: at a
reload that is the canary, so the old workers go on with what they have.

Refused: renegotiation, compression, versions below TLS 1.2, a key that asks for a passphrase, a
pair that does not belong together.

Source: the ``ssl`` module, RFC 6066 (server_name), RFC 7301 (ALPN); the names of RFC 9525 for
``*.`` (one label).
"""

import contextlib
import logging
import os
import re
import ssl
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from gevent.monkey import get_original

from gpulse.errors import FileError, UsageError
from gpulse.tlsfiles import KeyPair, PemFile, TlsFiles

log = logging.getLogger("gpulse.worker")

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CLIENT_CERTIFICATES = {
    "off": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
_PEM = re.compile(
    rb"-----BEGIN (?:X509 )?CERTIFICATE-----.+?-----END (?:X509 )?CERTIFICATE-----", re.DOTALL
)


def build_context(files: TlsFiles) -> ssl.SSLContext:
    """The context of a worker; with ``files.names`` it changes to that of the name asked for.

    A certificate that is expired or not yet valid is used and warned of: clients will say so
    themselves, and a site that does not start serves nobody.

    :raises UsageError: in one line, for ciphers that OpenSSL does not know.
    :raises FileError: in one line, for a pair that does not belong together or is no good.
    """
    context = _context_of(files, files.default)
    by_name = {name: _context_of(files, pair) for name, pair in files.names}
    if by_name:

        def choose(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            wanted = (name or "").lower().rstrip(".")
            found = by_name.get(wanted) or by_name.get("*." + wanted.partition(".")[2])
            if found is not None:
                tls.context = found

        # gevent's setter wraps the callback for its own sockets and breaks on an SSLObject.
        get_original("ssl", "SSLContext").sni_callback.__set__(context, choose)
    return context


def _context_of(files: TlsFiles, pair: KeyPair) -> ssl.SSLContext:
    # By its name in the module: on greenlets that is gevent's, whose setters work when patched.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[files.minimum_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    if files.ciphers is not None:
        try:
            context.set_ciphers(files.ciphers)
        except ssl.SSLError:
            raise UsageError(
                f"--tls-ciphers {files.ciphers!r}: OpenSSL knows none of these; "
                "'openssl ciphers -v' lists them"
            ) from None
    _load_pair(context, pair)
    _warn_unless_valid(context, pair.certificate)
    if files.client_ca is not None:
        try:
            context.load_verify_locations(cadata=_certificates(files.client_ca.data))
        except (ssl.SSLError, ValueError) as error:
            raise FileError(
                f"the TLS client authorities {files.client_ca.path} are no good: {error}"
            ) from None
    context.verify_mode = _CLIENT_CERTIFICATES[files.client_certificates]
    return context


def _load_pair(context: ssl.SSLContext, pair: KeyPair) -> None:
    certificate, key = pair.certificate, pair.key

    def no_passphrase() -> str:
        # Without this OpenSSL would ask the terminal.
        raise FileError(f"the TLS key {key.path} has a passphrase; store it without one")

    try:
        with _as_file(certificate) as certificate_path, _as_file(key) as key_path:
            context.load_cert_chain(certificate_path, key_path, no_passphrase)
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            raise FileError(
                f"the TLS key {key.path} does not belong to the certificate {certificate.path}; "
                "the server's own certificate must come first in its file"
            ) from None
        raise FileError(
            f"OpenSSL cannot use the TLS certificate {certificate.path} with the key {key.path}: "
            f"{reason(error)}"
        ) from None


@contextlib.contextmanager
def _as_file(pem: PemFile) -> Iterator[str]:
    """A path that OpenSSL can load the bytes from: memory alone on Linux, elsewhere a file that
    only this user can read and that is gone at once.

    :raises FileError: if neither can be had.
    """
    try:
        if sys.platform == "linux" and os.path.isdir("/proc/self/fd"):
            file: Any = open(os.memfd_create("gpulse-tls"), "wb")  # noqa: SIM115
        else:
            file = tempfile.NamedTemporaryFile(prefix="gpulse-tls-")  # noqa: SIM115 - mode 0600
        with file:
            file.write(pem.data)
            file.flush()
            yield f"/proc/self/fd/{file.name}" if isinstance(file.name, int) else file.name
    except ssl.SSLError:
        raise
    except OSError as error:
        raise FileError(f"cannot give {pem.path} to OpenSSL: {error}") from None


def _certificates(data: bytes) -> str:
    """The PEM blocks of a file without the text between them, which may be in any encoding."""
    return "\n".join(block.decode("ascii") for block in _PEM.findall(data))


def _warn_unless_valid(server: ssl.SSLContext, certificate: PemFile) -> None:
    """Have a client look at the certificate, in memory: the module has no other way to read one."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it is its own authority here
    try:
        client.load_verify_locations(cadata=_certificates(certificate.data))
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = (
            client.wrap_bio(to_client, to_server),
            server.wrap_bio(to_server, to_client, server_side=True),
        )
        for end in ends * 2:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    except ssl.SSLCertVerificationError as error:
        log.warning(
            "the TLS certificate %s is used, but clients will refuse it: %s",
            certificate.path,
            error.verify_message,
        )
    except ssl.SSLError as error:
        raise FileError(
            f"no TLS handshake succeeds with the certificate {certificate.path}: {reason(error)}"
        ) from None


def reason(error: ssl.SSLError) -> str:
    """In a few words, without the lines of C."""
    words = getattr(error, "reason", None) or re.sub(
        r"^\[.*?\] | \(_ssl.*$", "", str(error.args[-1])
    )
    words = words.replace("_", " ").lower()
    detail = getattr(error, "verify_message", None)
    return f"{words} ({detail})" if detail else words
