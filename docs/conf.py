"""Sphinx: ``sphinx-build -W -b html docs docs/_build``.

Everything is local: no page is fetched while building, so links into other projects' documentation
are plain URLs and types that are theirs are not linked.
"""

import importlib.util
import sys
from pathlib import Path

# The tree's own package, not an installed one.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gpulse

project = "gpulse"
author = "the gpulse developers"
copyright = author
release = version = gpulse.__version__

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(django|collections|gpulse\.http)\..*"), ("py:.*", "HttpRe.*")]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
smartquotes = False

# furo comes with the "docs" extra; without it the pages are plainer and just as true.
html_theme = "furo" if importlib.util.find_spec("furo") else "alabaster"
html_title = f"gpulse {release}"
html_copy_source = False
