#!/bin/sh
# Makes the virtual environment $1 with $PYTHON (default python3), which must be 3.11 or newer.
#
# Debian ships Python without the module that makes one.  As root it is installed, else this says
# which package to install.
set -eu

python="${PYTHON:-python3}"

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "gpulse needs Python 3.11 or newer; $python is $("$python" -V 2>&1). Set PYTHON=" >&2
    exit 1
}

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-venv
    else
        echo "$python cannot make a virtual environment: apt install python3-venv" >&2
        exit 1
    fi
fi

"$python" -m venv "$1"
