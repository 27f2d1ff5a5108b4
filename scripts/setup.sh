#!/bin/sh
# Installs the locked dependencies into .venv. Needs Python 3.11+; brings uv along when there is none.
# Run by the Makefile; a second run with nothing changed takes a second or two.
set -eu
cd "$(dirname "$0")/.."

python=
for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "setup: Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3.11 …" >&2
    exit 1
fi

if command -v uv >/dev/null; then
    uv=uv
else
    uv=.tools/bin/uv
    if [ ! -x "$uv" ]; then
        echo "setup: installing uv into .tools" >&2
        # Debian splits venv's pip off into a package of its own; root can add it, others need not have it
        # if their Python has pip.
        if ! "$python" -m venv .tools 2>/dev/null; then
            rm -rf .tools
            if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
                apt-get update -qq
                apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
                "$python" -m venv .tools
            else
                echo "setup: '$python -m venv' does not work here; install python3-venv, or uv itself" >&2
                exit 1
            fi
        fi
        .tools/bin/python -m pip install --quiet --disable-pip-version-check uv
    fi
fi

if [ ! -e .venv/.synced ]; then
    echo "setup: installing the locked packages into .venv; the first time a minute or more, and 7 GB of disk" >&2
fi
# Bytecode once here, rather than in every process of every job where it may not be written.
UV_PYTHON_DOWNLOADS=never "$uv" sync --quiet --python "$python" --compile-bytecode
# uv has written its index's addresses into the lock; the committed one has versions only.
"$python" scripts/strip_lock.py
touch .venv/.synced
