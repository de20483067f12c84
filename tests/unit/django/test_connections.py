"""Whose database connections are looked at around a handler."""

import threading

import pytest
from django.conf import settings
from django.db.backends.signals import connection_created

from gpulse.django import connections


class Connection:
    """A stand-in for a DatabaseWrapper."""

    in_atomic_block = False

    def __init__(self):
        self.looked_at = 0
        self.queries_log = ["SELECT 1"]

    def close_if_unusable_or_obsolete(self):
        self.looked_at += 1


@pytest.fixture(autouse=True)
def configured():
    if not settings.configured:
        settings.configure()
    connections._member.opened = None
    yield
    connections._member.opened = None


def look():
    """What happens around a handler."""
    mine = connections.opened()
    if mine is not None:
        connections.reset_queries(mine)
        connections.close_old(mine)


def opened():
    connection = Connection()
    connection_created.send(sender=Connection, connection=connection)
    return connection


def test_a_member_without_a_connection_looks_at_nothing():
    assert connections.opened() is None


def test_each_connection_that_it_opened_is_looked_at_once_each_time():
    first, second = opened(), opened()
    connection_created.send(sender=Connection, connection=first)  # it reconnected
    look()
    assert (first.looked_at, second.looked_at) == (1, 1)


def test_those_of_another_member_are_not_ours():
    mine = opened()
    others = []
    thread = threading.Thread(target=lambda: others.append(opened()))
    thread.start()
    thread.join(10)
    look()
    assert (mine.looked_at, others[0].looked_at) == (1, 0)


@pytest.mark.parametrize("debug", [True, False])
def test_queries_are_forgotten_where_they_are_recorded(debug, monkeypatch):
    monkeypatch.setattr(settings, "DEBUG", debug, raising=False)
    connection = opened()
    look()
    assert connection.queries_log == ([] if debug else ["SELECT 1"])


def test_a_connection_amid_a_transaction_is_left_alone():
    connection = opened()
    connection.in_atomic_block = True
    look()
    assert connection.looked_at == 0
