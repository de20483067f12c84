"""TLS certificates and keys as bytes, read while the process still may.

A private key is usually root's alone, and a worker runs as ``--user``.  So the child that becomes a
worker calls :func:`read_files` before it drops its privileges, and the worker makes its context
from the bytes (``gpulse.connection.tlscontext``).  Every worker reads anew, so after a renewal of
the certificates a reload is all that is needed.

Refused: a file that is missing, unreadable, no regular file or longer than MAX_BYTES; a certificate
file without a certificate; a key file without a key, or with one that asks for a passphrase, for
nobody is there to type it.  Whether key and certificate belong together is for OpenSSL to say.

Cold: standard library only, and of that not ``ssl``, which a worker on greenlets must not import
before gevent has patched it.  The text around the bytes is RFC 7468 (PEM).
"""

import os
import re
import stat
from dataclasses import dataclass, field
from typing import Protocol

from gpulse.errors import FileError, UsageError

MAX_BYTES = 1_048_576
"""The longest file that is read: a chain has some KiB, all authorities of a browser 250 KiB."""

_CERTIFICATE = re.compile(rb"-----BEGIN (X509 )?CERTIFICATE-----")
_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----\s*(Proc-Type: 4,ENCRYPTED)?")


class TlsOptions(Protocol):
    """The options that :func:`read_files` looks at; ``gpulse.config.Config`` has them."""

    @property
    def tls_certificate(self) -> str | None: ...

    @property
    def tls_key(self) -> str | None:
        """None: the key is in the certificate's file."""

    @property
    def tls_sni(self) -> tuple[tuple[str, str, str], ...]:
        """Name, certificate and key of each."""

    @property
    def tls_minimum_version(self) -> str: ...

    @property
    def tls_ciphers(self) -> str | None: ...

    @property
    def tls_client_ca(self) -> str | None: ...

    @property
    def tls_client_certificates(self) -> str: ...


@dataclass(frozen=True, slots=True)
class PemFile:
    """A file's content, and its path for messages."""

    path: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate chain, the server's own first, and its private key."""

    certificate: PemFile
    key: PemFile


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """All that a worker needs to speak TLS.  Its ``repr`` shows paths, never what is in them."""

    default: KeyPair
    """For clients that name no host, or none of ``names``."""
    names: tuple[tuple[str, KeyPair], ...] = ()
    """Host names in small letters, exact or ``*.example.org``, with their own pairs."""
    client_ca: PemFile | None = None
    client_certificates: str = "off"
    """``off``, ``optional`` or ``required``."""
    minimum_version: str = "1.2"
    """``1.2`` or ``1.3``."""
    ciphers: str | None = None
    """OpenSSL's cipher list for TLS 1.2; None: Python's."""


def read_files(options: TlsOptions) -> TlsFiles | None:
    """Read what the options name; None if the site does not speak TLS.

    :raises UsageError: an option has no effect without another one.
    :raises FileError: in one line, if a file cannot be read or is not what its option asks for.
    """
    if options.tls_certificate is None:
        for flag, value in (
            ("--tls-key", options.tls_key),
            ("--tls-sni", options.tls_sni),
            ("--tls-client-ca", options.tls_client_ca),
        ):
            if value:
                raise UsageError(f"{flag} needs a --tls-certificate")
        return None
    wants_client = options.tls_client_certificates != "off"
    if wants_client and options.tls_client_ca is None:
        raise UsageError(
            f"--tls-client-certificates {options.tls_client_certificates} needs a --tls-client-ca "
            "that signs them"
        )
    if options.tls_client_ca is not None and not wants_client:
        raise UsageError(
            "--tls-client-ca has no effect; add --tls-client-certificates optional or required"
        )
    return TlsFiles(
        default=_read_pair(options.tls_certificate, options.tls_key or options.tls_certificate),
        names=tuple(
            (name, _read_pair(certificate, key)) for name, certificate, key in options.tls_sni
        ),
        client_ca=_read_certificates("TLS client authorities", options.tls_client_ca)
        if options.tls_client_ca is not None
        else None,
        client_certificates=options.tls_client_certificates,
        minimum_version=options.tls_minimum_version,
        ciphers=options.tls_ciphers,
    )


def _read_pair(certificate: str, key: str) -> KeyPair:
    return KeyPair(
        _read_certificates("TLS certificate", certificate), _read_key(key, key == certificate)
    )


def _read_certificates(what: str, path: str) -> PemFile:
    data = _read(what, path)
    if not _CERTIFICATE.search(data):
        raise FileError(f"the {what} {path} holds no certificate in PEM; {_advice(data, 'x509')}")
    return PemFile(path, data)


def _read_key(path: str, is_certificate: bool) -> PemFile:
    data = _read("TLS key", path)
    found = _KEY.search(data)
    if found is None and is_certificate:
        raise FileError(f"{path} holds a certificate and no key; name the key's file, too")
    if found is None:
        raise FileError(f"the TLS key {path} holds no key in PEM; {_advice(data, 'pkey')}")
    if found[1] == b"ENCRYPTED " or found[2]:
        raise FileError(
            f"the TLS key {path} has a passphrase, which nobody can type here; store it without "
            "one ('openssl pkey -in OLD -out NEW'), readable by root alone"
        )
    return PemFile(path, data)


def _advice(data: bytes, command: str) -> str:
    if data[:1] == b"\x30":  # an ASN.1 sequence
        return f"it looks like DER: convert it ('openssl {command} -inform der -in OLD -out NEW')"
    return "check the path"


def _read(what: str, path: str) -> bytes:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FileError(f"the {what} {path} is not a regular file; each worker reads it")
            data = file.read(MAX_BYTES + 1)
    except PermissionError:
        raise FileError(
            f"cannot read the {what} {path}: permission denied to user {os.geteuid()}; start the "
            "master as a user who may read it"
        ) from None
    except OSError as error:
        raise FileError(f"cannot read the {what} {path}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise FileError(f"the {what} {path} is longer than {MAX_BYTES} bytes; check the path")
    return data


def _open_at_once(path: str, flags: int) -> int:
    """A pipe that nobody writes to would otherwise keep the worker from its boot."""
    return os.open(path, flags | os.O_NONBLOCK)
