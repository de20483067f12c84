"""Tests with the real server; docs/howto/testing.rst shows them.

Their database has to be a file: ROOMS_TEST_DATABASE names it.
"""

import json
from urllib.request import urlopen

from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client, TestCase, TransactionTestCase
from websockets.sync.client import connect

import gpulse
from gpulse.testing import LivePulse


class LiveTests(TransactionTestCase):
    def test_two_workers(self):
        ann = User.objects.create_user("ann")
        client = Client()
        client.force_login(ann)
        cookie = {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}
        with LivePulse("--greenlet", "10", workers=2) as live:
            url = live.ws_url + "/rooms/lobby/socket"
            with (
                connect(url, additional_headers=cookie, proxy=None) as one,
                connect(url, proxy=None) as two,
            ):
                assert json.loads(one.recv(5))["hello"] == "ann"
                assert json.loads(two.recv(5))["hello"] == "AnonymousUser"
                one.send("hello")
                assert json.loads(two.recv(5)) == {"user": "ann", "text": "hello"}
                gpulse.publish("room:lobby", {"text": "from the test"})
                assert json.loads(one.recv(5))["text"] == "hello"
                assert json.loads(one.recv(5))["text"] == "from the test"
            SessionStore(client.cookies["sessionid"].value).delete()

    def test_a_server_that_cannot_start_says_why(self):
        with self.assertRaisesRegex(AssertionError, r"ended with status 2[^$]*--greenlet -1"):
            LivePulse("--greenlet", "-1").start()


class RefusedTests(TestCase):
    def test_a_transaction_that_stays_open_is_refused(self):
        with self.assertRaisesRegex(AssertionError, "use TransactionTestCase"):
            LivePulse().start()


class WithoutDatabaseTests(TransactionTestCase):
    def test_a_site_that_needs_none_is_served(self):
        with LivePulse(databases=False) as live:
            with self.assertRaises(OSError) as caught:
                urlopen(live.url + "/nowhere", timeout=5)
            assert caught.exception.code == 404
        assert "stopped" in live.log
