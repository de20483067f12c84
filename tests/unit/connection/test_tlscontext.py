"""From certificates on disk to a worker's TLS context."""

import logging
import os
import ssl

import pytest
import trustme
from unit.connection.tls_rig import MemoryClient, Rig, context_for, files_for

from gpulse import tlsfiles
from gpulse.connection.tls import tls_environ
from gpulse.connection.tlscontext import build_context
from gpulse.errors import FileError, UsageError


class TestFiles:
    def test_a_site_without_tls_has_none(self):
        assert files_for() is None

    @pytest.mark.parametrize(
        "options",
        [
            {"tls_key": "k"},
            {"tls_client_ca": "c"},
            {"tls_sni": "a=c:k"},
            {"tls_certificate": "c", "tls_client_certificates": "optional"},
            {"tls_certificate": "c", "tls_client_ca": "c"},
        ],
    )
    def test_an_option_that_lacks_another_is_refused(self, options):
        with pytest.raises(UsageError):
            files_for(**options)

    def test_what_is_shown_of_them_holds_no_secret(self, pair):
        files = files_for(tls_certificate=pair[0], tls_key=pair[1])
        assert b"PRIVATE KEY" in files.default.key.data
        assert "PRIVATE KEY" not in repr(files)
        assert pair[1] in repr(files)

    def test_one_file_may_hold_certificate_and_key(self, certificates, client):
        data = certificates.issue("site.test").private_key_and_cert_chain_pem.bytes()
        path = certificates.write("both.pem", "# Schlüssel\n".encode("latin-1") + data)
        Rig(build_context(files_for(tls_certificate=path))).shake(client)

    def check(self, message, certificate, key):
        with pytest.raises(FileError) as caught:
            context_for((certificate, key))
        text = str(caught.value)
        assert message in text
        assert "\n" not in text
        assert "_ssl.c" not in text

    def test_one_that_is_missing(self, pair, tmp_path):
        missing = str(tmp_path / "missing.pem")
        self.check(f"cannot read the TLS certificate {missing}: No such file", missing, pair[1])
        self.check(f"cannot read the TLS key {missing}: No such file", pair[0], missing)

    def test_one_that_may_not_be_read(self, pair, monkeypatch):
        def refuse(path, flags):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(tlsfiles, "_open_at_once", refuse)
        self.check("permission denied to user", *pair)

    def test_a_directory_and_a_pipe(self, pair, tmp_path):
        self.check("Is a directory", str(tmp_path), pair[1])
        os.mkfifo(tmp_path / "pipe")
        self.check("not a regular file", str(tmp_path / "pipe"), pair[1])

    def test_one_that_is_too_long(self, pair, certificates):
        path = certificates.write("long.pem", b"x" * (tlsfiles.MAX_BYTES + 1))
        self.check("longer than", path, pair[1])

    def test_no_certificate_in_it(self, pair, certificates):
        self.check("holds no certificate", pair[1], pair[1])
        self.check("DER", certificates.write("der.pem", b"\x30\x82\x01\x00"), pair[1])

    def test_no_key_in_it(self, pair, certificates):
        self.check("name the key's file", pair[0], pair[0])
        self.check("holds no key", pair[0], certificates.ca)

    @pytest.mark.parametrize("traditional", [False, True])
    def test_a_key_with_a_passphrase(self, pair, certificates, traditional):
        key = certificates.encrypted_key("secret.test", traditional)
        self.check("has a passphrase", pair[0], key)

    def test_nobody_is_asked_for_a_passphrase(self, pair, certificates):
        path = certificates.encrypted_key("secret.test")
        with open(path, "rb") as file:
            key = tlsfiles.PemFile(path, file.read())
        certificate = files_for(tls_certificate=pair[0], tls_key=pair[1]).default.certificate
        with pytest.raises(FileError, match="has a passphrase"):
            build_context(tlsfiles.TlsFiles(tlsfiles.KeyPair(certificate, key)))

    def test_a_key_of_another_certificate(self, pair, certificates):
        other = certificates.pair("other.test")
        self.check("does not belong to", pair[0], other[1])

    def test_a_key_of_another_kind(self, pair, certificates):
        other = certificates.pair("rsa.test", key_type=trustme.KeyType.RSA)
        self.check("does not belong to", pair[0], other[1])

    def test_a_certificate_that_is_broken(self, pair, certificates):
        path = certificates.write(
            "broken.pem", b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
        )
        self.check("OpenSSL cannot use", path, pair[1])

    def test_authorities_that_are_broken(self, pair, certificates):
        path = certificates.write("broken-ca.pem", b"-----BEGIN CERTIFICATE-----\n")
        with pytest.raises(FileError, match="authorities"):
            context_for(pair, tls_client_ca=path, tls_client_certificates="optional")

    def test_ciphers_that_do_not_exist(self, pair):
        with pytest.raises(UsageError, match="'NOSUCH'"):
            context_for(pair, tls_ciphers="NOSUCH")

    def test_a_certificate_that_is_expired_is_used_with_a_warning(
        self, certificates, client_context, caplog
    ):
        context = context_for(certificates.expired_pair("old.test"))
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "certificate has expired" in record.getMessage()
        client_context.check_hostname = False
        client_context.verify_mode = ssl.CERT_NONE
        Rig(context).shake(MemoryClient(client_context))

    def test_a_certificate_that_is_valid_gives_no_warning(self, pair, caplog):
        context_for(pair)
        assert caplog.records == []

    def test_elsewhere_than_on_linux(self, pair, monkeypatch, client):
        monkeypatch.setattr("os.path.isdir", lambda path: False)
        Rig(context_for(pair)).shake(client)

    def test_no_descriptor_stays_open(self, pair):
        before = os.listdir("/dev/fd")
        context_for(pair)
        assert os.listdir("/dev/fd") == before


class TestContext:
    def test_what_is_off(self, context):
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION
        assert not context.options & ssl.OP_NO_TICKET
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2

    def test_ciphers_are_the_servers_choice(self, pair, certificates):
        wanted = "ECDHE-ECDSA-AES128-GCM-SHA256"
        client_context = certificates.client()
        client_context.maximum_version = ssl.TLSVersion.TLSv1_2
        rig = Rig(context_for(pair, tls_ciphers=wanted))
        rig.shake(MemoryClient(client_context))
        assert tls_environ(rig.connection)["SSL_CIPHER"] == wanted

    def test_a_session_is_resumed(self, context, client_context):
        first = MemoryClient(client_context)
        Rig(context).shake(first)
        again = MemoryClient(client_context)
        again.tls = client_context.wrap_bio(
            again.incoming, again.outgoing, server_hostname="site.test", session=first.tls.session
        )
        Rig(context).shake(again)
        assert again.tls.session_reused
