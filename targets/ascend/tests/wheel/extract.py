"""Writes what the tests compare with: the schema and the operator declarations inside the torch-npu wheel.

    pip download torch-npu==2.14.0 --no-deps --python-version 311 --only-binary=:all:
    python extract.py torch_npu-2.14.0-*.whl [FOLDER]

Operators are those that `operators.txt` lists. Needs a Python with protobuf 5.29; nothing of torch is imported.
"""

import importlib.util
import pathlib
import re
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).parent
FOLDER = "torch_npu/dynamo/torchair/"
RAW = FOLDER + "_ge_concrete_graph/auto_generated_ge_raw_ops.py"
CAST = FOLDER + "ge/_ge_graph.py"
ARRAY = "torch_npu/include/op_proto/array_ops.h"
TYPES = "torch_npu/include/graph/types.h"
SCHEMA = FOLDER + "_ge_concrete_graph/ge_ir_by_protoc_3_19_pb2.py"


def module(wheel):
    """The real `ge_ir` module."""
    with tempfile.TemporaryDirectory() as folder:
        path = wheel.extract(SCHEMA, folder)
        spec = importlib.util.spec_from_file_location("ge_ir", path)
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded


def groups(wheel):
    """`TensorType::BasicType()` and its like, by name."""
    text = wheel.read(TYPES).decode()
    found = re.findall(r"static TensorType (\w+)\(\)\s*\{\s*return TensorType\{([^}]*)\};", text)
    return {name: re.findall(r"DT_\w+", types) for name, types in found}


def types(text, named):
    """Element types of a port; a single letter where the wheel leaves them open."""
    open_ = re.fullmatch(r'\s*"(\w+)"\s*', text)
    if open_:
        return open_.group(1)
    out = re.findall(r"DT_\w+", text)
    for group in re.findall(r"(\w+)\(\)", text) + (["BasicType"] if re.search(r"\bBasicType\b(?!\()", text) else []):
        out += named.get(group, [])
    spelled = {"DT_FLOAT32": "DT_FLOAT", "DT_BFLOAT16": "DT_BF16"}
    return ",".join(sorted({spelled.get(t, t) for t in out}))


def operator(body, named):
    parts = re.findall(r"\.(\w+)\((\w+),\s*((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)", body)
    inputs, outputs, attrs = [], [], []
    for kind, name, rest in parts:
        if kind in ("INPUT", "OPTIONAL_INPUT", "DYNAMIC_INPUT"):
            mark = {"INPUT": "", "OPTIONAL_INPUT": "?", "DYNAMIC_INPUT": "*"}[kind]
            inputs.append(f"{name}{mark}:{types(rest, named)}")
        elif kind == "OUTPUT":
            outputs.append(f"{name}:{types(rest, named)}")
        elif kind == "REQUIRED_ATTR":
            attrs.append(f"{name}:{rest.strip()}!")
        elif kind == "ATTR":
            sort, default = (part.strip() for part in rest.split(",", 1))
            attrs.append(f"{name}:{sort}={default}")
    return "; ".join(inputs), "; ".join(outputs), "; ".join(attrs)


def main():
    wheel = zipfile.ZipFile(sys.argv[1])
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else HERE
    (out / "ge_ir.desc").write_bytes(module(wheel).DESCRIPTOR.serialized_pb)
    named = groups(wheel)
    text = "\n".join(wheel.read(path).decode() for path in (RAW, CAST, ARRAY))
    rows = []
    for name in (HERE / "operators.txt").read_text().split():
        found = re.search(rf'REG_OP\({name}\)(.*?)("""|\.OP_END)', text, re.S)
        if found:
            rows.append("\t".join((name, *operator(found.group(1).replace("\\n", "").replace("\\\n", ""), named))))
        else:
            print(f"the wheel does not declare {name}")
    (out / "reg_op.tsv").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
