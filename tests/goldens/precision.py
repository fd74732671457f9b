#!/usr/bin/env python3
"""Writes precision/<family>.safetensors: what the classes compute in f32, under torch.autocast, and loaded in bfloat16, of the
weights and inputs of `wan/t2v_train_bf16` and `qwen3/bf16_train`.

    python tests/goldens/precision.py

`<mode>/out`, `<mode>/loss` and `<mode>/grad/<param>` for the modes autocast and pure, `f32/out`, and what the class's
forward gets for `out`, `input/<name>`.
"""
import copy
import json
import pathlib
import tempfile

import torch
from safetensors.torch import load_file, save_file

import generate

HERE = pathlib.Path(__file__).resolve().parent


def gradients(model, case, feeds):
    model.zero_grad()
    loss, out = generate.loss_and_out(model, case, feeds)
    loss.backward()
    found = {"loss": loss.detach().float(), "out": out.detach().float()}
    return found | {f"grad/{n}": p.grad.float() for n, p in model.named_parameters()}


def loaded_in_bf16(model):
    """As `from_pretrained(dtype=torch.bfloat16)` loads it, with what the class keeps in f32."""
    model = copy.deepcopy(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        word = {"dtype": torch.bfloat16} if hasattr(model.config, "vocab_size") else {"torch_dtype": torch.bfloat16}
        return type(model).from_pretrained(folder, **word).train()


def in_bf16(family, feeds):
    """Inputs of a class that is loaded in bf16; times and draws of the loss stay."""
    names = {"wan": ["encoder_hidden_states"], "qwen3": []}[family]
    return {k: v.bfloat16() if k in names else v for k, v in feeds.items()}


def inputs(family, feeds):
    if family == "qwen3":
        return {"input_ids": feeds["input_ids"]}
    at = feeds["t"].view(-1, 1, 1, 1, 1)
    mixed = (1 - at) * feeds["latent"] + at * feeds["noise"]
    return {"hidden_states": mixed, "timestep": 1000 * feeds["t"], "encoder_hidden_states": feeds["encoder_hidden_states"]}


def main():
    (HERE / "precision").mkdir(exist_ok=True)
    for family, name in [("wan", "t2v_train_bf16"), ("qwen3", "bf16_train")]:
        folder = HERE / family / name
        case = json.loads((folder / "case.json").read_text()) | {"family": family, "faint": False}
        weights, feeds = load_file(folder / "weights.safetensors"), load_file(folder / "inputs.safetensors")
        model = generate.build(case)
        model.load_state_dict(weights, strict=True)
        found = {"f32": gradients(model, case, feeds)}
        with generate.autocast():
            found["autocast"] = gradients(copy.deepcopy(model), case, feeds)
        narrow = loaded_in_bf16(model)
        if family == "wan":
            # The class takes the latents in its own type.
            narrow.register_forward_pre_hook(
                lambda _, args, words: (args, words | {"hidden_states": words["hidden_states"].bfloat16()}), with_kwargs=True
            )
        found["pure"] = gradients(narrow, case, in_bf16(family, feeds))
        for mode in ("autocast", "pure"):
            far = {k: float(generate.distance(v, found["f32"][k])) for k, v in found[mode].items()}
            grads = sorted(v for k, v in far.items() if k.startswith("grad/"))
            print(f"{family} {mode}: out {far['out']:.1e}, gradients {grads[0]:.1e} to {grads[-1]:.1e}")
        # The gradients in f32 are those of the case.
        found["f32"] = {"out": found["f32"]["out"]}
        found["input"] = inputs(family, feeds)
        tensors = {f"{mode}/{k}": v.contiguous().clone() for mode, of in found.items() for k, v in of.items()}
        save_file(tensors, HERE / "precision" / f"{family}.safetensors")


main()
