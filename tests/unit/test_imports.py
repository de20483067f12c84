"""Every module can be the first that a process imports: no cycle, no order to know."""

import pkgutil
import subprocess
import sys

import gpulse


def test_every_module_can_be_imported_first():
    names = [
        module.name
        for module in pkgutil.walk_packages(gpulse.__path__, "gpulse.")
        if not module.name.endswith("__main__")
    ]
    # One process for all: before each, the package is forgotten, its dependencies are kept.
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    for loaded in [one for one in sys.modules if one.split('.')[0] == 'gpulse']:\n"
        "        del sys.modules[loaded]\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *names], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert len(names) > 60


def test_a_worker_for_a_plain_application_does_not_load_django():
    script = (
        "import sys, gpulse.worker.worker, gpulse.websocket.compat, gpulse.worker.services\n"
        "sys.exit('django' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
