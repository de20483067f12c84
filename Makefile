# What one does with this tree.  "make run" and "make test" need nothing but Python 3.11 or newer:
# they make .venv, and what they install is installed again only when the packaging changes.

PYTHON  ?= python3
VENV    ?= .venv
BIND    ?= 127.0.0.1:8060
WORKERS ?= 2
GREENLET ?= 100

BIN = $(VENV)/bin
PACKAGING = setup.cfg setup.py pyproject.toml
SHELL = /bin/sh
.DEFAULT_GOAL = help
.DELETE_ON_ERROR:
.PHONY: help run test check check-oldest fuzz format docs clean

help:
	@echo "make run           serve the chat example on http://$(BIND) (BIND=, WORKERS=, GREENLET=)"
	@echo "make test          install what the tests need and run all of them"
	@echo "make check         format, lint, types, layers, unit tests and stale pages: half a minute"
	@echo "make check-oldest  the unit tests with the oldest packages that setup.cfg allows"
	@echo "make fuzz          feed the HTTP parser random bytes (SECONDS=60; needs atheris)"
	@echo "make format        put the code into its format"
	@echo "make docs          build the documentation into docs/_build/html"
	@echo "make clean         remove all that was made"

run: $(VENV)/.run
	$(BIN)/python chat/manage.py migrate --no-input --verbosity 0
	exec $(BIN)/python chat/manage.py pulse -w $(WORKERS) --greenlet $(GREENLET) -b $(BIND)

test: $(VENV)/.test lint
	PYTHON=$(abspath $(BIN)/python) tests/provision.sh
	$(BIN)/python -m pytest
	$(MAKE) docs

check: $(VENV)/.test lint
	$(BIN)/python -m pytest tests/unit

.PHONY: lint
lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m docs.generate --check

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.test
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

# ">=" of setup.cfg read as "==": the lower bounds are promises, and this is what keeps them.
OLDEST = $(VENV)-oldest
check-oldest: $(PACKAGING)
	rm -rf $(OLDEST)
	PYTHON=$(PYTHON) tests/venv.sh $(OLDEST)
	sed -n '/^install_requires/,/^psycopg3/s/^    \([a-z0-9-]*\) >= \(.*\)/\1==\2/p' setup.cfg \
	    > $(OLDEST)/constraints
	$(OLDEST)/bin/python -m pip install -q -c $(OLDEST)/constraints -e '.[standard,chat]' \
	    cryptography hypothesis pytest pytest-timeout trustme
	$(OLDEST)/bin/python -m pytest tests/unit

SECONDS ?= 60
fuzz: $(VENV)/.test
	@$(BIN)/python -c "import atheris" || \
	    { echo "first: $(BIN)/python -m pip install atheris"; exit 1; }
	$(BIN)/python tests/fuzz/fuzz_parser.py --seconds $(SECONDS)

clean:
	rm -rf $(VENV) $(OLDEST) build dist docs/_build *.egg-info
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: what is installed in the virtual environment.

$(VENV)/.made:
	PYTHON=$(PYTHON) tests/venv.sh $(VENV)
	touch $@

$(VENV)/.run: $(VENV)/.made $(PACKAGING)
	$(BIN)/python -m pip install -q -e '.[standard,chat]'
	touch $@

$(VENV)/.test: $(VENV)/.made $(PACKAGING)
	$(BIN)/python -m pip install -q -e '.[standard,chat,test,docs]'
	touch $@ $(VENV)/.run
