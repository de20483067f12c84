"""``native``: a function as it was before gevent's patching."""

import sys
import time
from types import SimpleNamespace

from gpulse.worker.watchdog import native


def test_without_gevents_patching_it_is_the_function(monkeypatch):
    monkeypatch.delitem(sys.modules, "gevent.monkey", raising=False)
    assert native("time", "sleep") is time.sleep


def test_with_it_gevent_is_asked(monkeypatch):
    asked = []
    fake = SimpleNamespace(get_original=lambda *names: asked.append(names) or "the original")
    monkeypatch.setitem(sys.modules, "gevent.monkey", fake)
    assert native("time", "sleep") == "the original"
    assert asked == [("time", "sleep")]
