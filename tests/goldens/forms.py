#!/usr/bin/env python3
"""Writes a small model's parameters in every form in which files hold them, with what each parameter is: forms/.

    python tests/goldens/forms.py
"""
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent / "forms"
LAYERS, EXPERTS, FFN, DIM, Q, KV = 2, 3, 5, 7, 6, 4


def main():
    HERE.mkdir(exist_ok=True)
    rng = np.random.default_rng(5)
    expected, forms = {}, {name: {} for name in ("one_by_one", "fused", "turned")}
    for layer in range(LAYERS):
        at = f"layers.{layer}."
        draw = lambda *shape: rng.standard_normal(shape, np.float32)
        gate, up, down = draw(EXPERTS, FFN, DIM), draw(EXPERTS, FFN, DIM), draw(EXPERTS, DIM, FFN)
        q, k, v = draw(Q, DIM), draw(KV, DIM), draw(KV, DIM)
        for name, value in dict(gate=gate, up=up, down=down).items():
            expected[f"{at}experts.{name}"] = value
            for i in range(EXPERTS):
                forms["one_by_one"][f"{at}experts.{i}.{name}_proj.weight"] = value[i]
        for name, value in dict(q=q, k=k, v=v).items():
            expected[f"{at}attn.{name}.weight"] = value
            forms["one_by_one"][f"{at}attn.{name}.weight"] = value
        fused = np.concatenate([gate, up], 1)
        for form, turn in (("fused", lambda x: x), ("turned", lambda x: x.swapaxes(1, 2))):
            forms[form][f"{at}experts.gate_up_proj"] = turn(fused)
            forms[form][f"{at}experts.down_proj"] = turn(down)
            forms[form][f"{at}attn.qkv.weight"] = np.concatenate([q, k, v])
    save = lambda name, tensors: save_file({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()}, HERE / f"{name}.safetensors")
    save("expected", expected)
    for form, tensors in forms.items():
        save(form, tensors)
    block_fp8()


def block_fp8():
    """A matrix in FP8 with a scale for each block of 4 rows and 3 columns, and what it is in f32 and rounded to bf16."""
    torch.manual_seed(7)
    block, (rows, columns) = (4, 3), (Q, DIM)
    tensors, expected = {}, {}
    for name, dtype in (("q", torch.float8_e4m3fn), ("k", torch.float8_e4m3fn), ("v", torch.float8_e4m3fn)):
        rows = Q if name == "q" else KV
        weight = (torch.randn(rows, columns) * 100).to(dtype)
        scale = torch.rand(-(-rows // block[0]), -(-columns // block[1])) * 0.01
        spread = scale.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
        for layer in range(LAYERS):
            tensors[f"layers.{layer}.attn.{name}.weight"] = weight.clone()
            tensors[f"layers.{layer}.attn.{name}.weight_scale_inv"] = scale.clone()
            expected[f"layers.{layer}.attn.{name}.weight"] = weight.float() * spread
    for layer in range(LAYERS):
        for name, shape in (("gate", (FFN, DIM)), ("up", (FFN, DIM)), ("down", (DIM, FFN))):
            values = []
            for expert in range(EXPERTS):
                weight = (torch.randn(shape) * 50).to(torch.float8_e4m3fn)
                scale = (torch.rand(-(-shape[0] // block[0]), -(-shape[1] // block[1])) * 0.01).bfloat16()
                spread = scale.float().repeat_interleave(block[0], 0)[: shape[0]].repeat_interleave(block[1], 1)[:, : shape[1]]
                at = f"layers.{layer}.experts.{expert}.{name}_proj.weight"
                tensors[at], tensors[f"{at}_scale_inv"] = weight, scale
                values.append(weight.float() * spread)
            expected[f"layers.{layer}.experts.{name}"] = torch.stack(values)
    save_file(tensors, HERE / "fp8.safetensors")
    save_file(expected, HERE / "fp8_expected.safetensors")


if __name__ == "__main__":
    main()
