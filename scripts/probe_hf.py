#!/usr/bin/env python3
"""Writes what the modules of a published class compute, for `mmc compare` with `mmrun --probe`.

    probe_hf.py DIR --inputs F.safetensors --probe REGEX -o OUT [--dtype bf16]

DIR is a folder of save_pretrained of transformers or diffusers. The inputs have the names that the class's forward takes.
With `labels` (transformers), or with `latent`, `noise` and `t` (diffusers, in place of hidden_states and timestep), the
gradients of parameters are written too, as `grad/NAME`.

OUT/probes.safetensors has the first tensor that each matching module gave, in f32; OUT/modules.json has their order.
"""
import argparse
import inspect
import json
import pathlib
import re

import torch
from safetensors.torch import load_file, save_file


def load(folder, dtype):
    config = json.loads((folder / "config.json").read_text())
    if "_class_name" in config:
        import diffusers

        cls = getattr(diffusers, config["_class_name"])
        return cls.from_pretrained(folder, torch_dtype=dtype), "sample"
    import transformers

    cls = getattr(transformers, config["architectures"][0])
    model = cls.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    return model, "logits"


def first_tensor(value):
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return next((found for found in map(first_tensor, value) if found is not None), None)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--inputs", type=pathlib.Path, required=True)
    parser.add_argument("--probe", default=".", metavar="REGEX")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True, metavar="DIR")
    args = parser.parse_args()
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    model, _ = load(args.folder, dtype)
    model.eval()
    inputs = load_file(args.inputs)

    tensors, modules = {}, []
    pattern = re.compile(args.probe)

    def hook(name):
        def keep(_module, _given, output):
            tensor = first_tensor(output)
            if tensor is not None and name not in tensors:
                tensors[name] = tensor.detach().float().contiguous().clone()
                modules.append({"name": name, "place": ""})

        return keep

    for name, module in model.named_modules():
        if name and pattern.search(name):
            module.register_forward_hook(hook(name))

    train = "labels" in inputs
    target = None
    if {"latent", "noise", "t"} <= inputs.keys():
        latent, noise, t = (inputs.pop(key).float() for key in ["latent", "noise", "t"])
        at = t.reshape(-1, *[1] * (latent.dim() - 1))
        inputs["hidden_states"] = (1 - at) * latent + at * noise
        inputs["timestep"] = 1000 * t
        inputs["encoder_hidden_states"] = inputs.pop("text", inputs.get("encoder_hidden_states"))
        target, train = noise - latent, True
    known = inspect.signature(model.forward).parameters
    unknown = [name for name in inputs if name not in known]
    if unknown:
        raise SystemExit(f"{type(model).__name__}.forward takes no {', '.join(unknown)}; it takes {', '.join(known)}")
    cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    with torch.set_grad_enabled(train):
        output = model(**cast)
    if train:
        loss = ((output[0].float() - target) ** 2).mean() if target is not None else output.loss
        loss.backward()
        print(f"loss {loss.item():.7f}")
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                tensors[f"grad/{name}"] = parameter.grad.float().contiguous().clone()
                modules.append({"name": f"grad/{name}", "place": ""})
    args.output.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.output / "probes.safetensors")
    (args.output / "modules.json").write_text(json.dumps(modules, indent=2) + "\n")
    print(f"{len(tensors)} tensors of {type(model).__name__} in {args.output}")


if __name__ == "__main__":
    main()
