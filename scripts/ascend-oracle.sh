#!/bin/sh
# Holds Ascend plans against the torch-npu wheel itself: takes its schema and declarations out again, and decodes every
# exported segment with its own module. Needs Python 3, its venv module, PyPI, and `make build` (or MMC, a path).
set -e
cd "$(dirname "$0")/.."
mmc=${MMC:-target/release/mmc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" -q install 'protobuf==5.29.*'
"$work/venv/bin/pip" -q download torch-npu==2.14.0 --no-deps --python-version 311 --only-binary=:all: -d "$work"
wheel=$(ls "$work"/torch_npu-*.whl)
tests=targets/ascend/tests/wheel
"$work/venv/bin/python" "$tests/extract.py" "$wheel"
git diff --exit-code -- "$tests"
n=0
while read -r model; do
    n=$((n + 1))
    # shellcheck disable=SC2086
    "$mmc" compile $model --target ascend-910b3 -o "$work/plan.bin" 2>/dev/null
    "$mmc" export "$work/plan.bin" -o "$work/out/$n" 2>/dev/null
done <<MODELS
wan2.2.mm --preset tiny
wan2.2.mm --preset tiny --dtype bf16 --tp 2
wan2.2.mm --preset tiny --dtype bf16 --cp 2 --ulysses 1
wan2.2.mm --set H=90 --set W=160 --dtype bf16 --tp 4
qwen3.mm --preset tiny
qwen3.mm --preset tiny --dtype bf16 --fsdp 2
MODELS
"$work/venv/bin/python" "$tests/decode.py" "$wheel" "$work/out"
