#!/bin/sh
# Asks the oracles of the Ascend target that install from PyPI:
#   - the headers inside the torch-npu wheel, of the declarations of CANN's C interface (static asserts, and all of them wrong);
#   - the schema and the operator declarations inside it, of the files that the tests compare with;
#   - pyhccl, a foreign caller of libhccl, of the emulator;
#   - the wheel's own `ge_ir` module and its declarations, of every exported segment.
# Needs what setup-oracle.sh installs, PyPI, and mmc and libhccl.so in the folder BIN.
set -eu
cd "$(dirname "$0")/.."
bin=$(pwd)/${BIN:-target/release}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
python="$work/venv/bin/python"
pip="$work/venv/bin/pip -q --disable-pip-version-check"
$pip install 'protobuf==5.29.*' 'pyhccl==0.1.0'
$pip download torch-npu==2.14.0 --no-deps --python-version 311 --only-binary=:all: -d "$work"
wheel=$(ls "$work"/torch_npu-*.whl)

"$python" -m zipfile -e "$wheel" "$work/wheel"
headers=runtime/device/tests/headers
include="$work/wheel/torch_npu/include"
asserts() {
    c++ -std=c++17 -fsyntax-only -fmax-errors=0 "-I$headers" "-I$include" "-I$include/third_party/acl/inc" \
        "-I$include/third_party/hccl/inc" "$1"
}
asserts "$headers/asserts.cc"
# Each figure one more, and each function with an argument more: none may hold.
sed -E 's/^(static_assert.*)\);/\1 + 1);/; s/^(FIELD.*)\);/\1 + 1);/; s/^(FUNCTION.*)\(\)\);/\1(char));/; t
    s/^(FUNCTION.*)\)\);/\1, char));/' "$headers/asserts.cc" >"$work/wrong.cc"
count=$(grep -c ');$' "$headers/asserts.cc")
caught=$(asserts "$work/wrong.cc" 2>&1 | grep -c 'error: static assertion failed') || true
[ "$count" = "$caught" ] || {
    echo "of $count wrong declarations the headers catch $caught" >&2
    exit 1
}
echo "$count declarations are those of the headers, and $caught wrong ones are caught"

tests=targets/ascend/tests/wheel
"$python" "$tests/extract.py" "$wheel" "$work"
for file in ge_ir.desc reg_op.tsv; do
    cmp "$work/$file" "$tests/$file"
done

LD_LIBRARY_PATH="$bin" "$python" tests/ascend/hccl.py

n=0
quiet() {
    "$@" 2>"$work/said" || {
        cat "$work/said" >&2
        exit 1
    }
}
while read -r model; do
    n=$((n + 1))
    # shellcheck disable=SC2086
    quiet "$bin/mmc" compile $model --target ascend-910b3 -o "$work/plan.bin"
    quiet "$bin/mmc" export "$work/plan.bin" -o "$work/out/$n"
done <<MODELS
wan2.2.mm --preset tiny --dtype f32
wan2.2.mm --preset tiny --dtype bf16 --tp 2
wan2.2.mm --preset tiny --dtype bf16 --cp 2 --ulysses 1
wan2.2.mm --preset tiny --dtype f32 --tp 2 --pp 2 --microbatches 4
wan2.2.mm --set H=90 --set W=160 --dtype bf16 --tp 4 --pp 2
qwen3.mm --preset tiny --dtype f32
qwen3.mm --preset tiny --dtype bf16 --fsdp 2
qwen3.mm --preset tiny --dtype bf16 --tp 2 --pp 2
MODELS
"$python" "$tests/decode.py" "$wheel" "$work/out"
