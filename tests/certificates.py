"""Certificates for tests, signed by an authority that each test module makes anew."""

import datetime
import ssl
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

DAY = datetime.timedelta(days=1)


class Certificates:
    """An authority that signs for servers and clients.

    :param directory: where the files go.
    """

    def __init__(self, directory):
        self.directory = Path(directory)
        self.authority = trustme.CA()
        self.ca = self.write("ca.pem", self.authority.cert_pem.bytes())

    def write(self, name, data):
        """A file; its path as an option has it."""
        path = self.directory / name
        path.write_bytes(data)
        return str(path)

    def issue(self, *names, **kwargs):
        """A certificate that is not written to a file."""
        return self.authority.issue_cert(*names, **kwargs)

    def pair(self, *names, **kwargs):
        """Paths of a chain and of its key."""
        leaf = self.issue(*names, **kwargs)
        stem = names[0].replace("*", "any")
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return (
            self.write(f"{stem}.pem", chain),
            self.write(f"{stem}.key", leaf.private_key_pem.bytes()),
        )

    def expired_pair(self, name):
        now = datetime.datetime.now(datetime.UTC)
        return self.pair(name, not_before=now - 9 * DAY, not_after=now - DAY)

    def encrypted_key(self, name, traditional=False):
        """Path of a key that has a passphrase, in PKCS #8 or in OpenSSL's old form."""
        pem = self.issue(name).private_key_pem.bytes()
        key = serialization.load_pem_private_key(pem, None)
        data = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL
            if traditional
            else serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        return self.write(f"{name}.encrypted.key", data)

    def client(self, leaf=None, context_class=ssl.SSLContext):
        """A client's context that trusts the authority.

        :param leaf: the client's own certificate, from :meth:`issue`.
        """
        context = context_class(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca)
        if leaf is not None:
            leaf.configure_cert(context)
        return context
