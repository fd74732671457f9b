#!/usr/bin/env python3
"""Writes the golden values of single operations, one safetensors file each.

    python tests/goldens/ops.py

Inputs are f32; PyTorch computes on them in f64 and the results are rounded once, so that a distance from them is all our own.
README.md beside this file describes the format.
"""
import json
import math
import pathlib
import shutil
import zlib

import torch
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from safetensors.torch import save_file
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding, apply_rotary_pos_emb

OUT = pathlib.Path(__file__).resolve().parent / "ops"


def rng(name):
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def parse(spec):
    """`"q: B L D"` -> `("q", ["B", "L", "D"])`."""
    name, dims = spec.split(":")
    return name, dims.split()


def emit(name, op, fn, inputs, outputs, wrt=(), **attrs):
    """Runs `fn` on the inputs and writes inputs, outputs and, for each input named in `wrt`, its gradient.

    `inputs` maps "name: DIMS" to tensors, `outputs` lists "name: DIMS"; an output marked "*" receives a random gradient,
    which is stored as a further input `d_<output>`.
    """
    names = [parse(s) for s in inputs]
    wide = [t.double().requires_grad_(n in wrt) if t.is_floating_point() else t for (n, _), t in zip(names, inputs.values())]
    results = fn(*wide)
    results = list(results) if isinstance(results, tuple) else [results]
    ins, outs = list(zip(names, inputs.values())), []
    seeds, roots = [], []
    for spec, result in zip(outputs, results, strict=True):
        n, dims = parse(spec.lstrip("*"))
        assert len(dims) == result.ndim, (name, spec, result.shape)
        outs.append(((n, dims), result.detach()))
        if spec.startswith("*"):
            seed = torch.randn(result.shape, generator=rng(name + n)) if result.ndim else torch.ones(())
            roots.append(result)
            seeds.append(seed.double())
            if result.ndim:
                ins.append(((f"d_{n}", dims), seed))
    if wrt:
        sources = [t for (n, _), t in zip(names, wide) if n in wrt]
        for (n, dims), g in zip([d for d in names if d[0] in wrt], torch.autograd.grad(roots, sources, seeds)):
            outs.append(((f"d_{n}", dims), g))
    tensors, meta = {}, {"op": op}
    for kind, list_ in (("in", ins), ("out", outs)):
        meta[kind] = [{"name": n, "dims": dims} for (n, dims), _ in list_]
        for i, (_, t) in enumerate(list_):
            tensors[f"{kind}{i}"] = (t.float() if t.is_floating_point() else t).contiguous().clone()
    # One metadata entry: several would be written in an order that changes from run to run.
    save_file(tensors, OUT / f"{name}.safetensors", metadata={"op": json.dumps(meta | attrs)})


# ---------------------------------------------------------------- elementwise


def spread(name, shape, low, high):
    return low + (high - low) * torch.rand(shape, generator=rng(name))


UNARY = {  # name: (function, lowest argument, highest argument)
    "exp": (torch.exp, -80, 80),
    "log": (torch.log, 1e-3, 50),
    "log1p": (torch.log1p, -0.9, 50),
    "floor": (torch.floor, -5, 5),
    "round": (torch.round, -5, 5),
    "sqrt": (torch.sqrt, 0, 50),
    "rsqrt": (torch.rsqrt, 1e-3, 50),
    "tanh": (torch.tanh, -10, 10),
    "sin": (torch.sin, -1000, 1000),
    "cos": (torch.cos, -1000, 1000),
    "sigmoid": (torch.sigmoid, -80, 80),
    "silu": (torch.nn.functional.silu, -80, 80),
    "gelu_tanh": (lambda x: torch.nn.functional.gelu(x, approximate="tanh"), -6, 6),
    "neg": (torch.neg, -5, 5),
    "abs": (torch.abs, -5, 5),
    "square": (torch.square, -5, 5),
}


def unary():
    for op, (fn, low, high) in UNARY.items():
        emit(f"unary_{op}_7x13", op, fn, {"x: A B": spread(op, (7, 13), low, high)}, ["y: A B"])
        # Near zero, or near one for functions of positive numbers, is where a polynomial loses its relative accuracy.
        near = spread(op + "near", (131,), 0.9, 1.1) if low >= 0 else spread(op + "near", (131,), -1e-2, 1e-2)
        emit(f"unary_{op}_131", op, fn, {"x: A": near}, ["y: A"])


BINARY = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "max": torch.maximum, "min": torch.minimum}
SIZES = {"A": 3, "B": 5, "C": 11}
FORMS = {"same": ("A B C", "A B C"), "last": ("A B C", "C"), "middle": ("A B C", "A C"), "left": ("A", "A B C"), "scalar": ("A B C", "")}


def aligned(t, dims):
    """Broadcasting by name: a missing dim has size 1."""
    return t.reshape([SIZES[d] if d in dims else 1 for d in SIZES])


def binary():
    for op, fn in BINARY.items():
        for form, (a, b) in FORMS.items():
            ta, tb = (torch.randn([SIZES[d] for d in dims.split()], generator=rng(op + form + side)) for side, dims in (("a", a), ("b", b)))
            if op == "div":
                tb = tb.sign() * (tb.abs() + 0.2)
            emit(f"binary_{op}_{form}", op, lambda x, y: fn(aligned(x, a.split()), aligned(y, b.split())), {f"a: {a}": ta, f"b: {b}": tb}, ["y: A B C"])


# ---------------------------------------------------------------- contractions and reductions

MATMULS = {  # name: (a, b, y), sizes
    "plain": ("M K", "K N", "M N", dict(M=7, K=13, N=5)),
    "linear": ("B L K", "N K", "B L N", dict(B=2, L=9, K=37, N=19)),
    "weight_grad": ("B L N", "B L K", "N K", dict(B=2, L=9, K=19, N=13)),
    "batched": ("B M K", "B K N", "B M N", dict(B=3, M=5, K=17, N=9)),
    "batched_transposed": ("B M K", "B N K", "B M N", dict(B=3, M=5, K=17, N=9)),
    "two_batch_dims": ("B L H D", "B T H D", "B H L T", dict(B=2, L=5, T=7, H=3, D=11)),
    "two_contracted": ("L H D", "H D O", "L O", dict(L=5, H=3, D=7, O=11)),
    "vector": ("K", "K N", "N", dict(K=131, N=17)),
    "one_row": ("M K", "N K", "M N", dict(M=1, K=67, N=33)),
    "long": ("M K", "K N", "M N", dict(M=3, K=1031, N=2)),
    "outer": ("M", "N", "M N", dict(M=7, N=5)),
}


def matmul():
    for name, (a, b, y, sizes) in MATMULS.items():
        ta, tb = (torch.randn([sizes[d] for d in dims.split()], generator=rng(f"matmul{name}{side}")) for side, dims in (("a", a), ("b", b)))
        equation = ",".join(d.replace(" ", "") for d in (a, b)) + "->" + y.replace(" ", "")
        emit(f"matmul_{name}", "matmul", lambda p, q: torch.einsum(equation, p, q), {f"a: {a}": ta, f"b: {b}": tb}, [f"y: {y}"], einsum=f"{a}, {b} -> {y}")


def reductions():
    x = torch.randn((5, 7, 9), generator=rng("reduce"))
    for op, fn in {"sum": torch.sum, "max": torch.amax, "mean": torch.mean}.items():
        for axes in (["C"], ["A"], ["B"], ["A", "C"], ["A", "B", "C"]):
            left = " ".join(d for d in "ABC" if d not in axes)
            emit(f"reduce_{op}_{''.join(axes)}", op, lambda t: fn(t, dim=tuple("ABC".index(d) for d in axes)), {"x: A B C": x}, [f"y: {left}"], axes=axes)
        # Positive numbers, so that a careless order of summation shows.
        emit(f"reduce_{op}_long", op, lambda t: fn(t, dim=(1,)), {"x: A B": torch.rand((1, 4099), generator=rng("long"))}, ["y: A"], axes=["B"])


# ---------------------------------------------------------------- norms, softmax, swiglu


def norms():
    F = torch.nn.functional
    for case, scale, offset in (("plain", 1, 0), ("offset", 1, 10), ("faint", 1e-3, 0)):
        x = scale * torch.randn((2, 5, 37), generator=rng("norm" + case)) + offset
        w, b = (torch.randn(37, generator=rng("norm" + case + s)) for s in "wb")
        norm = lambda t, w=None, b=None: F.layer_norm(t, (37,), w, b, eps=1e-6)
        emit(f"layer_norm_{case}", "layer_norm", norm, {"x: B L D": x}, ["*y: B L D"], ["x"], axes=["D"], eps=1e-6)
        emit(f"layer_norm_affine_{case}", "layer_norm", norm, {"x: B L D": x, "weight: D": w, "bias: D": b}, ["*y: B L D"], ["x", "weight", "bias"], axes=["D"], eps=1e-6)
        emit(f"rms_norm_{case}", "rms_norm", lambda t, w: F.rms_norm(t, (37,), w, eps=1e-6), {"x: B L D": x, "weight: D": w}, ["*y: B L D"], ["x", "weight"], axes=["D"], eps=1e-6)
    for case, axis, scale in (("last", "C", 1), ("middle", "B", 1), ("steep", "C", 300)):
        x = scale * torch.randn((3, 5, 17), generator=rng("softmax" + case))
        emit(f"softmax_{case}", "softmax", lambda t: torch.softmax(t, "ABC".index(axis)), {"x: A B C": x}, ["*y: A B C"], ["x"], axes=[axis])
    gate, up = (3 * torch.randn((2, 5, 19), generator=rng("swiglu" + s)) for s in "gu")
    emit("swiglu", "swiglu", lambda g, u: F.silu(g) * u, {"gate: B L D": gate, "up: B L D": up}, ["*y: B L D"], ["gate", "up"])


# ---------------------------------------------------------------- rope


def rotate_pairs(x, cos, sin):
    """diffusers' Wan: neighbours are a pair."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def rotate_halves(x, cos, sin):
    """transformers' Qwen3: element i of the first half is paired with element i of the second."""
    cos, sin = torch.cat([cos, cos], -1)[None], torch.cat([sin, sin], -1)[None]
    return apply_rotary_pos_emb(x, x, cos, sin, unsqueeze_dim=2)[0]


def rope():
    for head, (f, h, w) in ((24, (3, 3, 5)), (32, (2, 5, 3)), (16, (5, 1, 3)), (128, (1, 3, 3))):
        x = torch.randn((1, f * h * w, 3, head), generator=rng(f"rope{head}"))
        cos, sin = WanRotaryPosEmbed(head, (1, 2, 2), 64)(torch.empty(1, 1, f, 2 * h, 2 * w))
        hw = 2 * (head // 6)
        emit(f"rope_interleaved_{head}", "rope_interleaved", rotate_pairs, {"x: B L H D": x, "cos: L P": cos[0, :, 0, 0::2], "sin: L P": sin[0, :, 0, 1::2]},
             ["*y: B L H D"], ["x"], grid=[f, h, w], split=[head - 2 * hw, hw, hw], theta=1e4)
    for head, length in ((16, 11), (128, 19)):
        x = torch.randn((1, length, 2, head), generator=rng(f"half{head}"))
        config = Qwen3Config(head_dim=head, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
        cos, sin = Qwen3RotaryEmbedding(config)(x, torch.arange(length)[None])
        emit(f"rope_half_{head}", "rope_half", rotate_halves, {"x: B L H D": x, "cos: L P": cos[0, :, : head // 2], "sin: L P": sin[0, :, : head // 2]},
             ["*y: B L H D"], ["x"], theta=1e6)


# ---------------------------------------------------------------- attention

ATTENTIONS = {  # name: batch, query length, key length, query heads, key heads, head, causal, gradient of lse too, scale of q
    "plain_24": (2, 11, 11, 3, 3, 24, False, False, 1),
    "plain_32_cross": (2, 13, 7, 2, 2, 32, False, False, 1),
    "plain_128": (1, 9, 17, 1, 1, 128, False, False, 1),
    "plain_long": (1, 67, 131, 1, 1, 12, False, False, 1),
    "plain_steep": (1, 11, 19, 2, 2, 32, False, False, 30),
    "plain_lse": (1, 7, 9, 2, 2, 24, False, True, 1),
    "causal": (2, 13, 13, 2, 2, 24, True, False, 1),
    "causal_gqa2": (1, 11, 11, 4, 2, 32, True, False, 1),
    "causal_gqa3": (2, 7, 7, 3, 1, 24, True, False, 1),
    "causal_gqa4_128": (1, 5, 5, 4, 1, 128, True, False, 1),
    "causal_long": (1, 101, 101, 2, 1, 12, True, False, 1),
    "causal_lse": (1, 9, 9, 2, 1, 24, True, True, 1),
    "causal_decode": (2, 3, 11, 2, 1, 24, True, False, 1),
    "causal_one_query": (1, 1, 9, 4, 2, 32, True, False, 1),
}


def attention():
    for case, (b, lq, lk, hq, hk, d, causal, both, steep) in ATTENTIONS.items():
        shapes = {"q: B LQ HQ D": (b, lq, hq, d), "k: B LK HK D": (b, lk, hk, d), "v: B LK HK D": (b, lk, hk, d)}
        inputs = {s: torch.randn(shape, generator=rng(case + s)) * (steep if s[0] == "q" else 1) for s, shape in shapes.items()}

        def attend(q, k, v):
            k, v = (t.repeat_interleave(hq // hk, dim=2) for t in (k, v))
            scores = torch.einsum("blhd,bthd->blht", q, k) / math.sqrt(d)
            if causal:  # the last query sees every key
                seen = torch.ones(lq, lk, dtype=torch.bool).tril(lk - lq)
                scores = scores.masked_fill(~seen[None, :, None], -math.inf)
            out = torch.einsum("blht,bthd->blhd", torch.softmax(scores, -1), v)
            mask = torch.ones(lq, lk, dtype=torch.bool).tril(lk - lq) if causal else None
            sdpa = torch.nn.functional.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), attn_mask=mask).transpose(1, 2)
            torch.testing.assert_close(out, sdpa)
            return out, torch.logsumexp(scores, -1)

        emit(f"attention_{case}", "attention", attend, inputs, ["*out: B LQ HQ D", ("*" if both else "") + "lse: B LQ HQ"], ["q", "k", "v"],
             causal=causal, group=hq // hk, scale=d**-0.5)


NUMBERED = {  # segments and positions of queries and keys; left and right of the window; causal
    "segments": (True, False, None, None, False),
    "positions": (False, True, 3, None, True),
    "packed": (True, True, 2, 1, False),
    "window": (False, False, 2, 0, False),
}


def numbered_attention():
    """Packed samples of lengths 5, 3 and 4; a mask says to PyTorch what the numbers say here."""
    b, l, hq, hk, d = 2, 12, 4, 2, 16
    for case, (segments, positions, left, right, causal) in NUMBERED.items():
        shapes = {"q: B LQ HQ D": (b, l, hq, d), "k: B LK HK D": (b, l, hk, d), "v: B LK HK D": (b, l, hk, d)}
        inputs = {s: torch.randn(shape, generator=rng("numbered" + case + s)) for s, shape in shapes.items()}
        sample = torch.tensor([1] * 5 + [2] * 3 + [7] * 4)
        place = torch.cat([torch.arange(n) for n in (5, 3, 4)])
        of = {True: torch.stack([sample, sample.flip(0)]), False: torch.stack([place, place.flip(0)])}
        seen = torch.ones(b, l, l, dtype=torch.bool)
        if segments:
            inputs |= {"q_segment: B LQ": of[True], "k_segment: B LK": of[True]}
            seen &= of[True][:, :, None] == of[True][:, None]
        if positions:
            inputs |= {"q_position: B LQ": of[False], "k_position: B LK": of[False]}
        at = of[False] if positions else torch.arange(l).expand(b, l)
        behind = at[:, None] - at[:, :, None]
        if left is not None:
            seen &= behind >= -left
        if right is not None or causal:
            seen &= behind <= (0 if causal else right)

        def attend(q, k, v, *_):
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            scores = torch.einsum("bhld,bhtd->bhlt", q, k.repeat_interleave(hq // hk, dim=1)) / math.sqrt(d)
            lse = torch.logsumexp(scores.masked_fill(~seen[:, None], -math.inf), -1)
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None], enable_gqa=True)
            return out.transpose(1, 2), lse.transpose(1, 2)

        emit(f"attention_{case}", "attention", attend, inputs, ["*out: B LQ HQ D", "lse: B LQ HQ"], ["q", "k", "v"], causal=causal,
             group=hq // hk, scale=d**-0.5, segments=segments, positions=positions, left=left, right=right)


BIASED = {  # dims of the bias, causal
    "bias": ("HQ LQ KEYS", False),
    "bias_alibi": ("HQ KEYS", True),
    "bias_of_samples": ("B LQ KEYS", False),
    "bias_whole": ("B HQ LQ KEYS", True),
}


def biased_attention():
    b, lq, lk, hq, hk, d = 2, 7, 9, 4, 2, 16
    sizes = {"B": b, "HQ": hq, "LQ": lq, "KEYS": lk}
    for case, (dims, causal) in BIASED.items():
        shapes = {"q: B LQ HQ D": (b, lq, hq, d), "k: B LK HK D": (b, lk, hk, d), "v: B LK HK D": (b, lk, hk, d)}
        inputs = {s: torch.randn(shape, generator=rng(case + s)) for s, shape in shapes.items()}
        inputs[f"bias: {dims}"] = 2 * torch.randn([sizes[d] for d in dims.split()], generator=rng(case + "bias"))
        hidden = ~torch.ones(lq, lk, dtype=torch.bool).tril(lk - lq) if causal else torch.zeros(lq, lk, dtype=torch.bool)

        def attend(q, k, v, bias):
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            at = [slice(None) if name in dims.split() else None for name in sizes]
            mask = bias[tuple(at)].expand(b, hq, lq, lk).masked_fill(hidden, -math.inf)
            scores = torch.einsum("bhld,bhtd->bhlt", q, k.repeat_interleave(hq // hk, dim=1)) / math.sqrt(d)
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
            return out.transpose(1, 2), torch.logsumexp(scores + mask, -1).transpose(1, 2)

        emit(f"attention_{case}", "attention", attend, inputs, ["*out: B LQ HQ D", "lse: B LQ HQ"], ["q", "k", "v", "bias"], causal=causal,
             group=hq // hk, scale=d**-0.5, bias="KEYS")


# ---------------------------------------------------------------- tables, losses, optimiser


def embedding():
    for case, (v, d, shape) in {"plain": (17, 7, (2, 11)), "repeated": (3, 13, (3, 19))}.items():
        table, ids = torch.randn((v, d), generator=rng(case)), torch.randint(v, shape, generator=rng(case))
        emit(f"embedding_{case}", "embedding", lambda t, i: torch.nn.functional.embedding(i, t), {"table: V D": table, "ids: B S": ids}, ["*y: B S D"], ["table"])


def cross_entropy():
    for case, (n, v, scale, ignored) in {"plain": (7, 13, 1, 0), "ignored": (13, 61, 2, 0.4), "all_ignored": (5, 11, 1, 2), "steep": (5, 1031, 40, 0.3)}.items():
        logits = scale * torch.randn((n, v), generator=rng(case))
        labels = torch.randint(v, (n,), generator=rng(case + "l"))
        labels[torch.rand(n, generator=rng(case + "i")) < ignored] = -100

        def loss(x, y):
            return torch.nn.functional.cross_entropy(x, y, ignore_index=-100, reduction="sum"), (y != -100).sum()

        emit(f"cross_entropy_{case}", "cross_entropy", loss, {"logits: N V": logits, "labels: N": labels}, ["*sum:", "count:"], ["logits"], ignore_index=-100)


def adamw():
    for case, step, o in (("first", 1, dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)), ("seventh", 7, dict(lr=2e-2, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1))):
        p, g, m = (torch.randn((7, 13), generator=rng(case + s)) for s in "pgm")
        v = torch.rand((7, 13), generator=rng(case + "v"))
        if step == 1:
            m, v = torch.zeros_like(m), torch.zeros_like(v)

        def update(p, g, m, v):
            p = torch.nn.Parameter(p.clone())
            p.grad = g
            opt = torch.optim.AdamW([p], **o)
            opt.state[p] = {"step": torch.tensor(float(step - 1)), "exp_avg": m.clone(), "exp_avg_sq": v.clone()}
            opt.step()
            return p.detach(), opt.state[p]["exp_avg"], opt.state[p]["exp_avg_sq"]

        names = ["param: A B", "grad: A B", "m: A B", "v: A B"]
        emit(f"adamw_{case}", "adamw", update, dict(zip(names, (p, g, m, v))), ["param: A B", "m: A B", "v: A B"], step=step,
             lr=o["lr"], beta1=o["betas"][0], beta2=o["betas"][1], eps=o["eps"], weight_decay=o["weight_decay"])


# ---------------------------------------------------------------- indices


def indices():
    x = torch.randn((3, 7, 5), generator=rng("cumsum"))
    few = torch.randint(-3, 4, (3, 7, 5), generator=rng("few"))
    for axis, dim in enumerate("ABC"):
        emit(f"cumsum_{dim}", "cumsum", lambda t: t.cumsum(axis), {"x: A B C": x}, ["*y: A B C"], ["x"], axes=[dim])
        emit(f"cumsum_whole_{dim}", "cumsum", lambda t: t.cumsum(axis), {"x: A B C": few}, ["y: A B C"], axes=[dim])
        order = lambda t: t.argsort(dim=axis, stable=True)
        emit(f"argsort_{dim}", "argsort", order, {"x: A B C": x}, ["y: A B C"], axes=[dim])
        emit(f"argsort_whole_{dim}", "argsort", order, {"x: A B C": few}, ["y: A B C"], axes=[dim])
    # Equal elements, zeros of both signs, infinities and NaN.
    odd = few.float() * torch.where(torch.rand(few.shape, generator=rng("sign")) < 0.5, -1, 1)
    odd[0, 3], odd[1, 2], odd[2, 5, :2] = torch.nan, torch.inf, -torch.inf
    emit("argsort_odd", "argsort", lambda t: t.argsort(dim=1, stable=True), {"x: A B C": odd}, ["y: A B C"], axes=["B"])
    # PyTorch leaves open which of equal elements come first, so there are none.
    for axis, dim, k in ((1, "B", 3), (2, "C", 5), (0, "A", 1)):
        dims = " ".join("K" if d == dim else d for d in "ABC")
        emit(f"top_k_{dim}", "top_k", lambda t: tuple(t.topk(k, dim=axis)), {"x: A B C": x}, [f"*y: {dims}", f"ids: {dims}"], ["x"], axes=[dim])
    a, b = torch.randint(-40, 41, (5, 7), generator=rng("whole")), torch.randint(-6, 7, (7,), generator=rng("divisor"))
    b[b == 0] = 4
    for op, fn in {"floor_div": torch.floor_divide, "remainder": torch.remainder}.items():
        emit(op, op, fn, {"a: A B": a, "b: B": b}, ["y: A B"])
    ids = torch.randint(7, (3, 4), generator=rng("picked"))
    pick = lambda t, i: t.gather(1, i[:, :, None].expand(3, 4, 5))
    emit("gather_batched", "gather", pick, {"table: A B C": x, "ids: A K": ids}, ["*y: A K C"], ["table"], axes=["B"])
    last = torch.randint(5, (3, 7, 2), generator=rng("last"))
    emit("gather_last", "gather", lambda t, i: t.gather(2, i), {"table: A B C": x, "ids: A B K": last}, ["*y: A B K"], ["table"], axes=["C"])
    first = torch.randint(3, (4, 7, 5), generator=rng("first"))
    emit("gather_first", "gather", lambda t, i: t.gather(0, i), {"table: A B C": x, "ids: K B C": first}, ["*y: K B C"], ["table"], axes=["A"])


# ---------------------------------------------------------------- experts


def experts():
    """Each row times the matrix of the expert that its number names: PyTorch picks the matrices, and multiplies them in batches."""
    def products(x, ids, w):
        own = x if x.ndim == ids.ndim + 1 else x[..., None, :].expand(*ids.shape, x.shape[-1])
        there = (ids >= 0)[..., None]
        return torch.where(there, (own[..., None, :] @ w[ids.clamp(min=0)]).squeeze(-2), 0)

    ids = torch.randint(-1, 6, (9, 3), generator=rng("experts"))
    ids[ids == 4] = 2  # an expert without rows
    x, w = torch.randn((9, 5), generator=rng("rows")), torch.randn((6, 5, 7), generator=rng("matrices"))
    emit("grouped_matmul", "grouped_matmul", products, {"x: T D": x, "ids: T K": ids, "w: E D F": w}, ["*y: T K F"], ["x", "w"], spec="td,tk,edf->tkf")
    turned = lambda x, ids, w: products(x, ids, w.transpose(1, 2))
    wide = torch.randn((9, 3, 5), generator=rng("wide rows"))
    emit("grouped_matmul_turned", "grouped_matmul", turned, {"x: T K D": wide, "ids: T K": ids, "w: E F D": w.transpose(1, 2)}, ["*y: T K F"], ["x", "w"], spec="tkd,tk,efd->tkf")
    groups, picked = torch.randn((2, 4, 5), generator=rng("groups")), torch.randint(6, (2, 4, 3), generator=rng("picked by groups"))
    emit("grouped_matmul_groups", "grouped_matmul", products, {"x: G T D": groups, "ids: G T K": picked, "w: E D F": w}, ["*y: G T K F"], ["x", "w"], spec="gtd,gtk,edf->gtkf")
    one = torch.full((9, 3), 3)
    emit("grouped_matmul_one", "grouped_matmul", products, {"x: T D": x, "ids: T K": one, "w: E D F": w}, ["*y: T K F"], ["x", "w"], spec="td,tk,edf->tkf")


# ---------------------------------------------------------------- words of the language that are formulas

F = torch.nn.functional
WORDS = {  # as a model says it, of x with the dims A and B
    "x.relu()": F.relu,
    "x.gelu()": F.gelu,
    "x.quick_gelu()": lambda x: x * torch.sigmoid(1.702 * x),
    "x.softplus()": F.softplus,
    "x.sign()": torch.sign,
    "x.clamp(-0.5, 1.5)": lambda x: x.clamp(-0.5, 1.5),
    "x.log_softmax(B)": lambda x: x.log_softmax(-1),
    "x.l2_normalize(B, 1e-6)": lambda x: (x.float() if x.dtype == torch.bfloat16 else x) * (x.double().square().sum(-1, keepdim=True) + 1e-6).rsqrt(),
    "x.floor()": torch.floor,
    "x.round()": torch.round,
    "geglu(x, x)": lambda x: F.gelu(x) * x,
}


def words():
    """One file: the values of each word in f64, rounded to f32, its gradient, and its values in bf16 as PyTorch has them."""
    x = 4 * torch.randn((5, 67), generator=rng("words"))
    x[0, :8] = torch.tensor([0.0, -0.0, 0.5, -0.5, 1.5, 2.5, 30.0, -60.0])
    x = x.bfloat16().float()
    seed = torch.randn(x.shape, generator=rng("words seed"))
    tensors = {"x": x, "seed": seed}
    for word, fn in WORDS.items():
        wide = x.double().requires_grad_()
        y = fn(wide)
        tensors[word] = y.detach().float()
        tensors[f"{word} gradient"] = torch.autograd.grad(y, wide, seed.double())[0].float()
        tensors[f"{word} in bf16"] = fn(x.bfloat16()).bfloat16().float()
    save_file(tensors, OUT.parent / "words.safetensors")


# ---------------------------------------------------------------- the ends of Wan


def wan_ends():
    x, w, b = (torch.randn(s, generator=rng(f"patch{s}")) for s in ((2, 3, 2, 6, 10), (7, 3, 1, 2, 2), (7,)))
    embed = lambda x, w, b: torch.nn.functional.conv3d(x, w, b, stride=(1, 2, 2)).flatten(2).transpose(1, 2)
    emit("patch_embed", "patch_embed", embed, {"x: B C F H W": x, "weight: O C PF PH PW": w, "bias: O": b}, ["*y: B L O"], ["x", "weight", "bias"], patch=[1, 2, 2])
    tokens = torch.randn((2, 2 * 3 * 5, 12), generator=rng("unpatch"))
    spread_out = lambda t: t.reshape(2, 2, 3, 5, 1, 2, 2, 3).permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(2, 3, 2, 6, 10)
    emit("unpatchify", "unpatchify", spread_out, {"x: B L P": tokens}, ["y: B C F H W"], patch=[1, 2, 2], grid=[2, 3, 5])
    for freq in (16, 256):
        t = torch.cat([torch.tensor([0.0, 1.0, 999.0, 1000.0]), 1000 * torch.rand(3, generator=rng("time"))])
        # The library's own f32 values: the product t * frequency is rounded to f32 by contract, and its last bit is worth 6e-5 at t = 1000.
        emit(f"timestep_embedding_{freq}", "timestep_embedding", lambda t: get_timestep_embedding(t.float(), freq, flip_sin_to_cos=True, downscale_freq_shift=0),
             {"t: B": t}, ["y: B FREQ"], max_period=1e4, atol=1e-4)


if __name__ == "__main__":
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    for group in (unary, binary, matmul, reductions, norms, rope, attention, numbered_attention, biased_attention, embedding, cross_entropy, adamw, indices, experts, words, wan_ends):
        group()
    files = sorted(OUT.iterdir())
    print(f"{len(files)} files, {sum(f.stat().st_size for f in files) // 1024} KiB")
