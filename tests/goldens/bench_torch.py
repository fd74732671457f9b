#!/usr/bin/env python3
"""Full train steps (forward, backward, clip, AdamW) of diffusers' Wan, transformers' Qwen3 and Qwen3-MoE, its experts or attention alone in PyTorch, on request.

    python tests/goldens/bench_torch.py --model wan --dim 512 --layers 8 --tokens 1560 --dtype f32 --threads 2
    3

The first line of output is JSON: `set` holds the dims for `mmc compile --set`, so that both programs run the same model, and
`first_step_s` counts from the start of the process. For each number read from standard input it then runs so many steps and
prints their times. The baseline is as strong as PyTorch allows: fused AdamW, bf16 by autocast, no data loading in the timed part.
"""
import argparse
import json
import math
import resource
import sys
import time

BORN = time.perf_counter()

import torch
from safetensors.torch import save_file


def latent_grid(tokens):
    """One frame of h x w patches, h * w = tokens, as near to 16:9 as the divisors allow."""
    h = min((d for d in range(1, tokens + 1) if tokens % d == 0), key=lambda d: abs(math.log(d * d / tokens * 16 / 9)))
    return {"F": 1, "H": 2 * h, "W": 2 * (tokens // h)}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", choices=["wan", "qwen3", "qwen3_moe", "experts", "attention"], default="wan")
    p.add_argument("--dim", type=int, default=512)
    p.add_argument("--layers", type=int, default=8)
    p.add_argument("--tokens", type=int, default=1560)
    p.add_argument("--kind", choices=["bias", "windows", "sliding"], default="bias", help="of attention: scripts/bench/attention.mm")
    p.add_argument("--vocab", type=int, default=32000)
    p.add_argument("--dtype", choices=["f32", "bf16"], default="f32", help="bf16: f32 weights under autocast")
    p.add_argument("--threads", type=int, default=0, help="default: as many as torch chooses")
    p.add_argument("--compile", action="store_true", help="torch.compile each block, instead of eager")
    p.add_argument("--inputs", help="write the tensors that the steps read, for `mmrun --inputs`")
    return p.parse_args()


def wan(a):
    """The dims, the model, its inputs, and a function that gives the loss."""
    from diffusers import WanTransformer3DModel

    heads = a.dim // 64
    dims = {"LAYERS": a.layers, "HEADS": heads, "HEAD": 64, "FFN": 4 * a.dim, "IN": 16, "OUT": 16, "TEXT": 512, "FREQ": 256}
    dims |= latent_grid(a.tokens) | {"S": 128}
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=heads, attention_head_dim=64, in_channels=16, out_channels=16, text_dim=dims["TEXT"],
        freq_dim=dims["FREQ"], ffn_dim=dims["FFN"], num_layers=a.layers, cross_attn_norm=True, qk_norm="rms_norm_across_heads", eps=1e-6,
    ).train()
    if a.compile:
        model.compile_repeated_blocks()
    latent = torch.randn(1, dims["OUT"], dims["F"], dims["H"], dims["W"])
    noise, t, text = torch.randn_like(latent), torch.rand(1), torch.randn(1, dims["S"], dims["TEXT"])

    def loss():
        at = t.view(-1, 1, 1, 1, 1)
        out = model(hidden_states=(1 - at) * latent + at * noise, timestep=1000 * t, encoder_hidden_states=text, return_dict=False)[0]
        return (out.float() - (noise - latent)).square().mean()

    return dims, model, {"latent": latent, "noise": noise, "t": t, "text": text}, loss


def qwen3(a):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    heads = a.dim // 64
    dims = {"S": a.tokens, "LAYERS": a.layers, "HIDDEN": a.dim, "HEADS": heads, "KV_HEADS": heads // 2, "HEAD": 64, "FFN": 3 * a.dim, "VOCAB": a.vocab}
    config = Qwen3Config(
        vocab_size=a.vocab, hidden_size=a.dim, intermediate_size=dims["FFN"], num_hidden_layers=a.layers, num_attention_heads=heads,
        num_key_value_heads=heads // 2, head_dim=64, rms_norm_eps=1e-6, tie_word_embeddings=True, attention_bias=False, use_cache=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    config._attn_implementation = "sdpa"
    model = Qwen3ForCausalLM(config).float().train()
    if a.compile:
        for layer in model.model.layers:
            layer.compile()
    ids = torch.randint(a.vocab, (1, a.tokens))
    return dims, model, {"ids": ids, "labels": ids.clone()}, lambda: model(input_ids=ids, labels=ids).loss


def qwen3_moe(a):
    """Qwen3-MoE with the quicker of the class's ways through its experts on a CPU: one grouped product, not a loop."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    heads = a.dim // 64
    dims = {"S": a.tokens, "LAYERS": a.layers, "HIDDEN": a.dim, "HEADS": heads, "KV_HEADS": heads // 2, "HEAD": 64, "FFN": 3 * a.dim, "VOCAB": a.vocab}
    dims |= {"EXPERTS": 32, "CHOSEN": 4, "INNER": 3 * a.dim // 4, "TIE": 1}
    config = Qwen3MoeConfig(
        vocab_size=a.vocab, hidden_size=a.dim, intermediate_size=dims["FFN"], num_hidden_layers=a.layers, num_attention_heads=heads,
        num_key_value_heads=heads // 2, head_dim=64, rms_norm_eps=1e-6, tie_word_embeddings=True, attention_bias=False, use_cache=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, num_experts=dims["EXPERTS"], num_experts_per_tok=dims["CHOSEN"],
        moe_intermediate_size=dims["INNER"], norm_topk_prob=True,
    )
    config._attn_implementation, config._experts_implementation = "sdpa", "grouped_mm"
    model = Qwen3MoeForCausalLM(config).float().train()
    if a.compile:
        for layer in model.model.layers:
            layer.compile()
    ids = torch.randint(a.vocab, (1, a.tokens))
    return dims, model, {"ids": ids, "labels": ids.clone()}, lambda: model(input_ids=ids, labels=ids).loss


def experts(a):
    """One layer of Qwen3-MoE: a loop over the experts that have tokens."""
    from transformers import Qwen3MoeConfig
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

    dims = {"S": a.tokens, "DIM": a.dim, "HIDDEN": a.dim // 2, "EXPERTS": 64, "CHOSEN": 8}
    config = Qwen3MoeConfig(
        hidden_size=a.dim, moe_intermediate_size=dims["HIDDEN"], num_experts=dims["EXPERTS"], num_experts_per_tok=dims["CHOSEN"], norm_topk_prob=True,
    )
    config._experts_implementation = "eager"
    model = Qwen3MoeSparseMoeBlock(config).float().train()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    if a.compile:
        model.compile()
    x = torch.randn(1, a.tokens, a.dim)

    def loss():
        y = model(x)
        return (y[0] if isinstance(y, tuple) else y).float().square().mean()

    return dims, model, {"x": x}, loss


class Attention(torch.nn.Module):
    """What scripts/bench/attention.mm computes: with T5's bias, windows as a batch, or a mask of a window that slides."""

    def __init__(self, kind, tokens, window=64, head=64, heads=8):
        super().__init__()
        self.kind, self.window = kind, window
        self.q, self.k, self.v = (torch.nn.Parameter(torch.ones(head)) for _ in range(3))
        self.relative_attention_bias = torch.nn.Embedding(32, heads)
        from transformers.models.t5.modeling_t5 import T5Attention

        at = torch.arange(tokens)
        distance = at[None] - at[:, None]
        self.register_buffer("bucket", T5Attention._relative_position_bucket(distance))
        self.register_buffer("seen", distance.abs() <= window)

    def forward(self, x):
        q, k, v = ((x * gain.to(x.dtype)).transpose(1, 2) for gain in (self.q, self.k, self.v))
        mask = None
        if self.kind == "bias":
            mask = self.relative_attention_bias(self.bucket).permute(2, 0, 1)[None].to(q.dtype)
        elif self.kind == "sliding":
            mask = self.seen
        else:
            q, k, v = (t.unflatten(2, (-1, self.window)).transpose(1, 2).flatten(0, 1) for t in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).float().square().mean()


def attention(a):
    dims = {"S": a.tokens, "KIND": ["bias", "windows", "sliding"].index(a.kind)}
    model = Attention(a.kind, a.tokens).train()
    if a.compile:
        model.compile()
    x = torch.randn(1, a.tokens, 8, 64)
    dtype = torch.bfloat16 if a.dtype == "bf16" else torch.float32
    # Autocast casts nothing here: what a layer would have made is of that type already.
    return dims, model, {"x": x}, lambda: model(x.to(dtype))


def main():
    a = arguments()
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    dims, model, inputs, loss_of = {"wan": wan, "qwen3": qwen3, "qwen3_moe": qwen3_moe, "experts": experts, "attention": attention}[a.model](a)
    if a.inputs:
        save_file(inputs, a.inputs)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)

    def step():
        begin = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.dtype == "bf16"):
            loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        loss.item()
        return time.perf_counter() - begin

    step()
    first = time.perf_counter() - BORN
    print(json.dumps({"set": dims, "first_step_s": round(first, 3), "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        times = [round(step(), 5) for _ in range(int(line))]
        print(json.dumps({"times": times, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}), flush=True)


if __name__ == "__main__":
    main()
