#!/bin/sh
# Installs what ranks in processes are built with and tested on: Open MPI, and iproute2 for the tests' network namespaces.
# Does nothing when all of it is there. Only `mmrun` with its feature `mpi` needs any of it.
set -eu

PACKAGES="libopenmpi-dev openmpi-bin iproute2"

if command -v mpirun >/dev/null && command -v mpicc >/dev/null && PATH="$PATH:/usr/sbin:/sbin" command -v ip >/dev/null; then
    echo "Open MPI and iproute2 are installed."
    exit 0
fi
command -v apt-get >/dev/null || {
    echo "setup-mpi: there is no apt-get; install Open MPI (with mpicc) and iproute2 by hand." >&2
    exit 1
}
root=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
        echo "setup-mpi: installing $PACKAGES needs root, and there is no sudo; run this script as root." >&2
        exit 1
    }
    root=sudo
fi
export DEBIAN_FRONTEND=noninteractive
$root apt-get update -q
$root apt-get install -yq --no-install-recommends $PACKAGES
