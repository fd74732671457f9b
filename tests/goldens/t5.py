#!/usr/bin/env python3
"""Writes what transformers' T5Attention and UMT5Attention compute at small sizes, and their buckets of distances: t5/.

    python tests/goldens/t5.py
"""
import pathlib

import torch
from safetensors.torch import save_file
from transformers import T5Config, UMT5Config
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.models.umt5.modeling_umt5 import UMT5Attention

HERE = pathlib.Path(__file__).resolve().parent / "t5"
B, S, DIM, HEADS, HEAD = 2, 150, 16, 4, 8
CASES = {  # class, config, whether queries see later keys
    "encoder": (T5Attention, T5Config, True),
    "decoder": (T5Attention, T5Config, False),
    "umt5": (UMT5Attention, UMT5Config, True),
}


def main():
    torch.set_num_threads(1)
    for case, (kind, config, both_ways) in CASES.items():
        torch.manual_seed(11)
        config = config(d_model=DIM, d_kv=HEAD, num_heads=HEADS, dropout_rate=0.0, is_decoder=not both_ways)
        config._attn_implementation = "eager"
        layer = kind(config, has_relative_attention_bias=True, layer_idx=0).eval()
        for p in layer.parameters():
            torch.nn.init.normal_(p, std=0.3)
        x, y = torch.randn(B, S, DIM), torch.randn(B, S, DIM)
        later = torch.ones(S, S, dtype=torch.bool).triu(1)
        mask = None if both_ways else torch.zeros(S, S).masked_fill(later, torch.finfo(torch.float32).min)[None, None]
        out = layer(x, **({"attention_mask": mask} if kind is UMT5Attention else {"mask": mask}))[0]
        loss = (out - y).square().mean()
        loss.backward()
        distance = torch.arange(-300, 301)
        rule = layer._relative_position_bucket
        buckets = rule(distance) if kind is UMT5Attention else rule(distance, bidirectional=both_ways)
        folder = HERE / case
        folder.mkdir(parents=True, exist_ok=True)
        save = lambda name, tensors: save_file({k: v.detach().contiguous() for k, v in tensors.items()}, folder / f"{name}.safetensors")
        save("weights", dict(layer.named_parameters()))
        save("forward", {"x": x, "distance": distance})
        save("train", {"x": x, "y": y})
        expected = {"loss": loss.reshape(1), "out": out, "bucket": buckets.float()}
        save("expected", expected | {f"grad/{n}": p.grad for n, p in layer.named_parameters()})


if __name__ == "__main__":
    main()
