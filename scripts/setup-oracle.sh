#!/bin/sh
# Installs what the oracles of the Ascend target are asked with: Python with its venv module, and a C++ compiler.
# Does nothing when both are there. Only `make oracle` and `make test` need any of it.
set -eu

PACKAGES="python3-venv g++"

if python3 -c "import ensurepip, venv" 2>/dev/null && command -v c++ >/dev/null; then
    echo "Python and a C++ compiler are installed."
    exit 0
fi
command -v apt-get >/dev/null || {
    echo "setup-oracle: there is no apt-get; install Python 3 (with venv) and a C++ compiler by hand." >&2
    exit 1
}
root=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
        echo "setup-oracle: installing $PACKAGES needs root, and there is no sudo; run this script as root." >&2
        exit 1
    }
    root=sudo
fi
export DEBIAN_FRONTEND=noninteractive
$root apt-get update -q
# shellcheck disable=SC2086
$root apt-get install -yq --no-install-recommends $PACKAGES
