"""Certificates, contexts and connections for the tests of TLS."""

import pytest
from certificates import Certificates
from unit.connection.tls_rig import VERSIONS, MemoryClient, Rig, context_for, sni


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def pair(certificates):
    return certificates.pair("site.test")


@pytest.fixture(scope="module")
def context(pair):
    return context_for(pair)


@pytest.fixture(scope="module")
def by_name(pair, certificates):
    """With certificates for three names."""
    exact, wild = certificates.pair("shop.test"), certificates.pair("*.shop.test")
    return context_for(pair, tls_sni=[sni("shop.test", exact), sni("*.shop.test", wild)])


@pytest.fixture(scope="module")
def asking(pair, certificates):
    """Mode -> a context that asks for client certificates."""
    return {
        mode: context_for(pair, tls_client_ca=certificates.ca, tls_client_certificates=mode)
        for mode in ("optional", "required")
    }


@pytest.fixture(params=VERSIONS, ids=["1.2", "1.3"])
def client_context(request, certificates):
    context = certificates.client()
    context.maximum_version = request.param
    return context


@pytest.fixture
def client(client_context):
    return MemoryClient(client_context)


@pytest.fixture
def rig(context, client):
    """A connection with its handshake done."""
    rig = Rig(context)
    rig.shake(client)
    return rig
