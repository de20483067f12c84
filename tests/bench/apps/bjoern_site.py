"""A WSGI application on bjoern, which has no command of its own:
``python bjoern_site.py PORT MODULE:ATTRIBUTE``."""

import importlib
import sys

import bjoern

if __name__ == "__main__":
    module, _, attribute = sys.argv[2].partition(":")
    application = getattr(importlib.import_module(module), attribute)
    bjoern.run(application, "127.0.0.1", int(sys.argv[1]))
