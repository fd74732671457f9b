"""Decodes exported segments with the real `ge_ir` module of the torch-npu wheel, and holds every node against its REG_OP text.

    mmc export plan.bin -o DIR
    python decode.py torch_npu-2.14.0-*.whl DIR...

Each operator's first node is spoilt in every way that the declarations forbid, to see that this would be noticed.
Independent of mmc's own table and checker. Needs a Python with protobuf 5.29; nothing of torch is imported.
"""

import collections
import pathlib
import sys
import zipfile

import extract

HERE = pathlib.Path(__file__).parent


def declarations():
    """Operator -> (inputs, outputs, attributes), each a list of (name, types or kind)."""
    table = {}
    for row in ((HERE / "reg_op.tsv").read_text() + (HERE / "headers.tsv").read_text()).splitlines():
        name, *cells = row.split("\t")
        split = lambda cell: [tuple(e.split(":", 1)) for e in cell.split("; ") if e]
        table[name] = tuple(split(cell) for cell in (cells + ["", "", ""])[:3])
    return table


def dtype(module, desc):
    return module.DataType.Name(desc.dtype)


def takes(types, name):
    return "DT_" not in types or name in types.split(",")


def check_node(module, op, table, made):
    """What is wrong with a node."""
    if op.type == "NetOutput":
        inputs, outputs, attrs = [("input*", "T")], [], []
    elif op.type in table:
        inputs, outputs, attrs = table[op.type]
    else:
        yield f"no such operator: {op.type}"
        return
    fixed = sum(not name.endswith("*") for name, _ in inputs)
    names = []
    for name, types in inputs:
        if name.endswith("*"):
            names += [(f"{name[:-1]}{i}", types, False) for i in range(len(op.input_desc) - fixed)]
        else:
            names.append((name.rstrip("?"), types, name.endswith("?")))
    while len(names) > len(op.input_desc) and names[-1][2]:
        names.pop()
    if op.input and op.input[-1] == "":
        yield "its last input is not fed, and not left out"
    if [d.name for d in op.input_desc] != [name for name, _, _ in names]:
        yield f"inputs {[d.name for d in op.input_desc]} are not {[n for n, _, _ in names]}"
        return
    if op.type != "Data":
        for (name, types, optional), edge, desc in zip(names, op.input, op.input_desc, strict=True):
            if edge == "":
                if not optional or desc.attr["_is_unfed_optional"].i != 1:
                    yield f"{name} is not fed"
            elif edge not in made:
                yield f"{name} comes from {edge}, which is not there"
            elif (desc.dtype, list(desc.shape.dim)) != made[edge]:
                yield f"{name} differs from {edge}"
            elif not takes(types, dtype(module, desc)):
                yield f"{name} does not take {dtype(module, desc)}"
    if [d.name for d in op.output_desc] != [name for name, _ in outputs]:
        yield f"outputs {[d.name for d in op.output_desc]} are not {[n for n, _ in outputs]}"
    for (name, types), desc in zip(outputs, op.output_desc):
        if not takes(types, dtype(module, desc)):
            yield f"{name} is never {dtype(module, desc)}"
    kinds = {"Int": "i", "Float": "f", "Bool": "b", "String": "s", "ListInt": "list", "Tensor": "t"}
    declared = {name: kind for name, kind in attrs}
    for name, kind in declared.items():
        if name in op.attr:
            field = op.attr[name].WhichOneof("value")
            if field != kinds[kind.split("=")[0].rstrip("!")]:
                yield f"the attribute {name} is of kind {field}"
        elif kind.endswith("!"):
            yield f"the attribute {name} is missing"
    for name in op.attr:
        if not name.startswith("_") and name not in declared:
            yield f"there is no attribute {name}"


def mutations(module, op, table, made):
    """What is wrong about each way to spoil a node: an attribute that is missing, inputs swapped, edges and types that are broken."""
    inputs, _, attrs = table[op.type]
    check = lambda spoilt, made: list(check_node(module, spoilt, table, made))
    copy = lambda: type(op).FromString(op.SerializeToString())
    for name in (name for name, kind in attrs if kind.endswith("!")):
        spoilt = copy()
        del spoilt.attr[name]
        yield f"{name} is missing", check(spoilt, made)
    if len(op.input) > 1:
        spoilt = copy()
        for pair in (spoilt.input, spoilt.input_desc):
            first, second = pair[0], pair[1]
            both = [second, first, *pair[2:]]
            del pair[:]
            pair.extend(both)
        yield "inputs are swapped", check(spoilt, made)
    dynamic = any(name.endswith("*") for name, _ in inputs)
    for i, edge in enumerate(op.input):
        if edge == "" or op.type == "Data":
            continue
        spoilt = copy()
        spoilt.input[i] = "nowhere:0"
        yield f"edge {i} is broken", check(spoilt, made)
        types = "" if dynamic else inputs[i][1]
        other = next((t for t in ("DT_FLOAT", "DT_BF16", "DT_INT64", "DT_BOOL", "DT_STRING") if not takes(types, t)), None)
        if other:
            spoilt = copy()
            spoilt.input_desc[i].dtype = module.DataType.Value(other)
            spoilt_made = {**made, edge: (spoilt.input_desc[i].dtype, made[edge][1])}
            yield f"{inputs[i][0]} is {other}", check(spoilt, spoilt_made)


def main():
    wheel = zipfile.ZipFile(sys.argv[1])
    module = extract.module(wheel)
    table = declarations()
    nodes, wrong, spoilt = collections.Counter(), 0, 0
    files = sorted(path for folder in sys.argv[2:] for path in pathlib.Path(folder).rglob("*.air"))
    for path in files:
        data = path.read_bytes()
        model = module.ModelDef()
        model.ParseFromString(data)
        if model.ByteSize() != len(data) or len(model.graph) != 1:
            print(f"{path}: not one graph of this schema")
            wrong += 1
        made = {}
        for op in model.graph[0].op:
            nodes[op.type] += 1
            if nodes[op.type] == 1 and op.type in table:
                for how, found in mutations(module, op, table, made):
                    spoilt += 1
                    if not found:
                        print(f"{op.type}: nobody notices that {how}")
                        wrong += 1
            for message in check_node(module, op, table, made):
                print(f"{path}: {op.name}: {message}")
                wrong += 1
            for i, desc in enumerate(op.output_desc):
                made[f"{op.name}:{i}"] = (desc.dtype, list(desc.shape.dim))
    print(f"{len(files)} files, {sum(nodes.values())} nodes of {len(nodes)} operators, spoilt in {spoilt} ways: {wrong} mistakes")
    sys.exit(wrong > 0 or not files)


main()
