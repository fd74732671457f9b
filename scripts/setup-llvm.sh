#!/bin/sh
# Installs what targets/cpu builds and links against: LLVM, MLIR and lld 22 from Debian 12 (bookworm-security).
# Does nothing when all of it is there. The rest of the workspace needs none of it.
set -eu

VERSION=22
PREFIX=/usr/lib/llvm-$VERSION
PACKAGES="llvm-$VERSION-dev libmlir-$VERSION-dev mlir-$VERSION-tools libclang-$VERSION-dev lld-$VERSION libpolly-$VERSION-dev zlib1g-dev libzstd-dev"

missing() {
    for file in bin/llvm-config bin/ld.lld bin/mlir-tblgen lib/libLLVM.so lib/libMLIR.so lib/libMLIRCAPIIR.a lib/libclang.so include/mlir-c/IR.h; do
        [ -e "$PREFIX/$file" ] || { echo "$PREFIX/$file"; return; }
    done
}

absent=$(missing)
if [ -z "$absent" ]; then
    echo "LLVM and MLIR $VERSION are installed in $PREFIX."
    exit 0
fi

command -v apt-get >/dev/null || {
    echo "setup-llvm: $absent is missing and there is no apt-get; install LLVM and MLIR $VERSION in $PREFIX by hand." >&2
    exit 1
}
root=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
        echo "setup-llvm: installing $PACKAGES needs root, and there is no sudo; run this script as root." >&2
        exit 1
    }
    root=sudo
fi

export DEBIAN_FRONTEND=noninteractive
$root apt-get update -q
for package in $PACKAGES; do
    apt-cache show "$package" >/dev/null 2>&1 || {
        echo "setup-llvm: apt knows no package $package. Debian 12 has it in bookworm-security: is that suite in the sources?" >&2
        exit 1
    }
done
# shellcheck disable=SC2086
$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $PACKAGES

absent=$(missing)
[ -z "$absent" ] || {
    echo "setup-llvm: apt reported success but $absent is still missing." >&2
    exit 1
}
echo "LLVM and MLIR $VERSION are installed in $PREFIX."
