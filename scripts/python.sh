#!/bin/sh
# Run a supported Python: PYTHON if it is set, else the virtual environment's, else the first one found.
# The only shell here, since nothing else can be relied on before there is a Python.
set -eu
cd "$(dirname "$0")/.."

supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
    for candidate in ${PYTHON:-.venv/bin/python python3 python3.13 python3.12 python3.11}; do
        if supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

installable() {
    [ -z "${PYTHON:-}" ] && ! command -v python3 >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

python=$(find_python)
if [ -z "$python" ] && installable; then
    echo "Installing Python: python3 python3-venv"
    apt-get -q update || true
    DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends python3 python3-venv
    python=$(find_python)
fi
if [ -z "$python" ]; then
    echo "Python 3.11, 3.12 or 3.13 is needed, and ${PYTHON:-python3} is none of them: name one, such as make PYTHON=/usr/bin/python3.12" >&2
    exit 1
fi
exec "$python" "$@"
