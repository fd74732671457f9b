#!/usr/bin/env python3
"""Times full train steps (forward, backward, clip, AdamW) of diffusers' Wan in eager PyTorch and prints one line of JSON.

    python tests/goldens/bench_torch.py --dim 512 --layers 8 --tokens 1560 --dtype f32 --threads 2 --steps 5

`set` in the output holds the dims for `mmc compile wan2.2.mm --set`, so that both programs run the same model.
The baseline is as strong as eager PyTorch allows: fused AdamW, no data loading in the timed part.
"""
import argparse
import json
import math
import resource
import statistics
import time

import torch
from diffusers import WanTransformer3DModel


def latent_grid(tokens):
    """One frame of h x w patches, h * w = tokens, as near to 16:9 as the divisors allow."""
    h = min((d for d in range(1, tokens + 1) if tokens % d == 0), key=lambda d: abs(math.log(d * d / tokens * 16 / 9)))
    return {"F": 1, "H": 2 * h, "W": 2 * (tokens // h)}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dim", type=int, default=512)
    p.add_argument("--layers", type=int, default=8)
    p.add_argument("--tokens", type=int, default=1560)
    p.add_argument("--heads", type=int, help="default: heads of 64")
    p.add_argument("--ffn", type=int, help="default: 4 x dim")
    p.add_argument("--text-tokens", type=int, default=128)
    p.add_argument("--text-dim", type=int, default=512)
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--dtype", choices=["f32", "bf16"], default="f32", help="bf16: f32 weights under autocast")
    p.add_argument("--threads", type=int, default=0, help="default: as many as torch chooses")
    p.add_argument("--steps", type=int, default=5, help="timed steps, after the first")
    p.add_argument("--compile", action="store_true", help="torch.compile each block, instead of eager")
    return p.parse_args()


def main():
    a = arguments()
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    heads = a.heads or a.dim // 64
    dims = {"LAYERS": a.layers, "HEADS": heads, "HEAD": a.dim // heads, "FFN": a.ffn or 4 * a.dim, "IN": 16, "OUT": 16, "TEXT": a.text_dim, "FREQ": 256}
    dims |= latent_grid(a.tokens) | {"S": a.text_tokens}
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=dims["HEADS"], attention_head_dim=dims["HEAD"], in_channels=dims["IN"], out_channels=dims["OUT"],
        text_dim=dims["TEXT"], freq_dim=dims["FREQ"], ffn_dim=dims["FFN"], num_layers=dims["LAYERS"], cross_attn_norm=True,
        qk_norm="rms_norm_across_heads", eps=1e-6,
    ).train()
    if a.compile:
        model.compile_repeated_blocks()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    latent = torch.randn(a.batch, dims["OUT"], dims["F"], dims["H"], dims["W"])
    noise, t = torch.randn_like(latent), torch.rand(a.batch)
    text = torch.randn(a.batch, dims["S"], dims["TEXT"])

    def step():
        begin = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.dtype == "bf16"):
            at = t.view(-1, 1, 1, 1, 1)
            out = model(hidden_states=(1 - at) * latent + at * noise, timestep=1000 * t, encoder_hidden_states=text, return_dict=False)[0]
            loss = (out.float() - (noise - latent)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        loss.item()
        return time.perf_counter() - begin

    first = step()
    times = [step() for _ in range(a.steps)]
    print(json.dumps({
        "median_s": round(statistics.median(times), 4), "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "first_step_s": round(first, 3),
        "min_s": round(min(times), 4), "steps": a.steps, "threads": torch.get_num_threads(), "dtype": a.dtype, "batch": a.batch, "tokens": a.tokens,
        "mode": "compile" if a.compile else "eager", "torch": torch.__version__, "set": dims,
    }))


if __name__ == "__main__":
    main()
