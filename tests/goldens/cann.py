#!/usr/bin/env python3
"""Writes cann.safetensors: what PyTorch makes of the inputs of CANN's operators, in the forms in which CANN takes them.

    python tests/goldens/cann.py

Inputs are f32; PyTorch computes on them in f64 and the results are rounded once. README.md beside this file describes the format.
"""
import json
import pathlib
import zlib

import torch
from safetensors.torch import save_file
from transformers.models.qwen3.modeling_qwen3 import rotate_half

F = torch.nn.functional
OUT = pathlib.Path(__file__).resolve().parent / "cann.safetensors"
tensors, cases = {}, []
# CANN wants a causal mask as this triangle, whatever the lengths: it stands in a case by its side.
TRIANGLE = 2048


def rng(name):
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def normal(name, *shape):
    return torch.randn(shape, generator=rng(name))


def kept(t):
    """f64 is rounded once; what else there is stays."""
    return (t.float() if t.dtype == torch.float64 else t).detach().contiguous().clone()


def case(name, op, inputs, outputs, **attrs):
    """An input may be None (not fed) or TRIANGLE; an output may be None (not compared)."""
    entry = {"name": name, "op": op, "attrs": attrs, "inputs": [], "outputs": []}
    for kind, values in (("inputs", inputs), ("outputs", outputs)):
        for i, value in enumerate(values):
            if torch.is_tensor(value):
                key = f"{name}/{kind}{i}"
                tensors[key], value = kept(value), key
            entry[kind].append(value)
    cases.append(entry)


def wide(*values):
    return [v.double() for v in values]


# ---------------------------------------------------------------- elementwise

UNARY = {
    "Neg": torch.neg, "Abs": torch.abs, "Exp": torch.exp, "Expm1": torch.expm1, "Log": torch.log, "Log1p": torch.log1p, "Floor": torch.floor, "Rint": torch.round, "Sqrt": torch.sqrt,
    "Rsqrt": torch.rsqrt, "Tanh": torch.tanh, "Sin": torch.sin, "Cos": torch.cos, "Sigmoid": torch.sigmoid, "Erf": torch.erf,
}
POSITIVE = ("Log", "Log1p", "Sqrt", "Rsqrt")
BINARY = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "RealDiv": torch.div, "Maximum": torch.maximum, "Minimum": torch.minimum,
    "FloorDiv": torch.floor_divide, "FloorMod": torch.remainder,
    "Less": torch.lt, "LessEqual": torch.le, "Equal": torch.eq, "Greater": torch.gt, "GreaterEqual": torch.ge, "NotEqual": torch.ne,
}


def elementwise():
    for op, fn in UNARY.items():
        x = 3 * normal(op, 5, 7)
        x = x.abs() + 1e-2 if op in POSITIVE else x
        scaled = dict(base=-1.0, scale=1.0, shift=0.0) if op in ("Exp", "Log") else {}
        case(op, op, [x], [fn(x.double())], **scaled)
    for op, fn in BINARY.items():
        a, b = normal(op + "a", 3, 1, 7), normal(op + "b", 5, 7)
        if op in ("Less", "LessEqual", "Equal", "Greater", "GreaterEqual", "NotEqual"):
            a, b = a.round(), b.round()
        if op in ("FloorDiv", "FloorMod"):
            a, b = (9 * a).long(), (4 * b).long()
            b[b == 0] = -3
            case(op, op, [a, b], [fn(a, b)])
            continue
        case(op, op, [a, b], [fn(*wide(a, b))])
    a, b = (normal("or" + s, 5, 7) > 0 for s in "ab")
    case("LogicalOr", "LogicalOr", [a, b], [a | b])
    c, x, y = normal("select", 5, 1) > 0, normal("then", 5, 7), normal("else", 7)
    case("SelectV2", "SelectV2", [c, x, y], [torch.where(c, *wide(x, y))])
    x = normal("cast", 5, 7)
    case("Cast to bf16", "Cast", [x], [x.bfloat16()], dst_type=27)
    case("Cast to i64", "Cast", [10 * x], [(10 * x).long()], dst_type=9)
    case("Cast to f32", "Cast", [x > 0], [(x > 0).float()], dst_type=0)


def gradient(fn, g, *inputs):
    inputs = [x.double().requires_grad_() for x in inputs]
    return torch.autograd.grad(fn(*inputs), inputs, g.double())


def activations():
    x, g = 2 * normal("gelu", 5, 37), normal("gelu g", 5, 37)
    for form in ("tanh", "none"):
        gelu = lambda t: F.gelu(t, approximate=form)
        case(f"GeluV2 {form}", "GeluV2", [x], [gelu(x.double())], approximate=form)
        case(f"GeluGradV2 {form}", "GeluGradV2", [g, x], gradient(gelu, g, x), approximate=form)
    y = F.silu(x.double())
    case("Swish", "Swish", [x], [y], scale=1.0)
    case("SwishGrad", "SwishGrad", [g, x, y.float()], gradient(F.silu, g, x), scale=1.0)
    both, g = 2 * normal("swiglu", 2, 5, 38), normal("swiglu g", 2, 5, 19)
    swiglu = lambda t: F.silu(t[..., :19]) * t[..., 19:]
    case("SwiGlu", "SwiGlu", [both], [swiglu(both.double())], dim=-1)
    case("SwiGluGrad", "SwiGluGrad", [g, both], gradient(swiglu, g, both), dim=-1)


# ---------------------------------------------------------------- movement


def movement():
    x = normal("move", 3, 5, 7)
    case("Reshape", "Reshape", [x, torch.tensor([15, 7])], [x.reshape(15, 7)], axis=0, num_axes=-1)
    case("Transpose", "Transpose", [x, torch.tensor([2, 0, 1])], [x.permute(2, 0, 1)])
    case("BroadcastTo", "BroadcastTo", [x[:, :1], torch.tensor([2, 3, 5, 7])], [x[:, :1].broadcast_to(2, 3, 5, 7)])
    case("Slice", "Slice", [x, torch.tensor([1, 0, 2]), torch.tensor([2, 5, 4])], [x[1:3, :, 2:6]])
    y = normal("more", 3, 2, 7)
    case("ConcatV2", "ConcatV2", [x, y, x, torch.tensor(1)], [torch.cat([x, y, x], 1)], N=3)
    pads, value = torch.tensor([1, 0, 0, 2, 3, 4]), torch.tensor(-2.5)
    case("PadV3", "PadV3", [x, pads, value], [F.pad(x, (3, 4, 0, 2, 1, 0), value=-2.5)], mode="constant", paddings_contiguous=True)
    ids = torch.randint(5, (2, 4), generator=rng("ids"))
    picked = torch.stack([x.index_select(1, row) for row in ids], 1)
    flags = dict(batch_dims=0, is_preprocessed=False, negative_index_support=False)
    case("GatherV2", "GatherV2", [x, ids, torch.tensor([1])], [picked], **flags)
    picked = x.gather(1, ids[:1].expand(3, 4)[:, :, None].expand(3, 4, 7))
    case("GatherV2 batched", "GatherV2", [x, ids[:1].expand(3, 4), torch.tensor([1])], [picked], **flags | dict(batch_dims=1))
    at = torch.randint(7, (3, 5, 2), generator=rng("at"))
    case("GatherElements", "GatherElements", [x, at], [x.gather(2, at)], dim=2)
    on, off = torch.tensor(1.0), torch.tensor(0.0)
    case("OneHot", "OneHot", [ids, torch.tensor(5), on, off], [F.one_hot(ids, 5).float()], axis=-1)
    start, limit, delta = (torch.tensor(n) for n in (2, 16, 3))
    case("Range", "Range", [start, limit, delta], [torch.arange(2, 16, 3)])
    case("Fill", "Fill", [torch.tensor([3, 4]), torch.tensor(1.5)], [torch.full((3, 4), 1.5)])


# ---------------------------------------------------------------- sums, products, norms


def products():
    x = normal("sum", 3, 5, 7)
    for keep in (False, True):
        case(f"ReduceSum {keep}", "ReduceSum", [x, torch.tensor([0, 2])], [x.double().sum((0, 2), keepdim=keep)], keep_dims=keep)
        case(f"ReduceMax {keep}", "ReduceMax", [x, torch.tensor([1])], [x.amax(1, keepdim=keep)], keep_dims=keep)
    for reverse in (False, True):
        sums = x.double().flip(1).cumsum(1).flip(1) if reverse else x.double().cumsum(1)
        case(f"Cumsum {reverse}", "Cumsum", [x, torch.tensor(1)], [sums], exclusive=False, reverse=reverse)
        few = (2 * normal(f"few {reverse}", 5, 11)).round()
        values, places = few.sort(dim=-1, descending=reverse, stable=True)
        case(f"Sort {reverse}", "Sort", [few], [values, places], axis=-1, descending=reverse, stable=True)
    rows, ids = normal("rows", 2, 6, 7), torch.randint(4, (2, 6), generator=rng("segments"))
    sums = torch.zeros(4, 7, dtype=torch.float64).index_add(0, ids.flatten(), rows.double().flatten(0, 1))
    case("UnsortedSegmentSum", "UnsortedSegmentSum", [rows, ids, torch.tensor(4)], [sums], is_preprocessed=False)
    for a in (False, True):
        for b in (False, True):
            x, y = normal(f"left {a}", 2, 13, 5) if a else normal(f"left {a}", 2, 5, 13), normal(f"right {b}", 2, 7, 13) if b else normal(f"right {b}", 2, 13, 7)
            turn = lambda t, turned: t.double().mT if turned else t.double()
            z = turn(x, a) @ turn(y, b)
            case(f"MatMulV3 {a} {b}", "MatMulV3", [x[0], y[0], None, None], [z[0]], transpose_x1=a, transpose_x2=b, offset_x=0, opImplMode=1)
            case(f"BatchMatMulV3 {a} {b}", "BatchMatMulV3", [x, y, None, None], [z], adj_x1=a, adj_x2=b, offset_x=0, enable_hf32=False)


def norms():
    x, g = 3 * normal("softmax", 3, 5, 17), normal("softmax g", 3, 5, 17)
    for axis in (-1, 1):
        y = x.double().softmax(axis)
        case(f"SoftmaxV2 {axis}", "SoftmaxV2", [x], [y], axes=[axis], half_to_float=False)
        case(f"LogSoftmaxV2 {axis}", "LogSoftmaxV2", [x], [x.double().log_softmax(axis)], axes=[axis])
        case(f"SoftmaxGrad {axis}", "SoftmaxGrad", [y.float(), g], gradient(lambda t: t.softmax(axis), g, y.float().log()), axes=[axis])
    for scale, offset in ((1, 0), (1, 10), (1e-3, 0)):
        x, g = scale * normal(f"norm {scale} {offset}", 2, 5, 37) + offset, normal(f"norm g {scale}", 2, 5, 37)
        w, b = normal("gamma", 37), normal("beta", 37)
        at = f"{scale} {offset}"
        rstd = (x.double().square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        rms = lambda t, w: F.rms_norm(t, (37,), w, eps=1e-6)
        case(f"RmsNorm {at}", "RmsNorm", [x, w], [rms(*wide(x, w)), rstd], epsilon=1e-6)
        case(f"RmsNormGrad {at}", "RmsNormGrad", [g, x, rstd, w], gradient(rms, g, x, w))
        y, mean, rstd = torch.native_layer_norm(*wide(x), [37], *wide(w, b), 1e-6)
        size = torch.tensor([37])
        case(f"LayerNormV4 {at}", "LayerNormV4", [x, size, w, b], [y, mean, rstd], epsilon=1e-6)
        bare = torch.native_layer_norm(*wide(x), [37], None, None, 1e-6)
        case(f"LayerNormV4 bare {at}", "LayerNormV4", [x, size, None, None], bare, epsilon=1e-6)
        layer = lambda t, w, b: F.layer_norm(t, (37,), w, b, eps=1e-6)
        # The statistics in f64, so that what is compared is the formula.
        case(f"LayerNormGradV3 {at}", "LayerNormGradV3", [g, x, rstd, mean, w], gradient(layer, g, x, w, b))


def rope():
    x = normal("rope", 2, 11, 3, 24)
    angles = 100 * torch.rand((1, 11, 1, 12), generator=rng("angles"))
    cos, sin = angles.cos(), angles.sin()
    half = [torch.cat([t, t], -1) for t in (cos, sin)]
    c, s = wide(*half)
    case("RotaryPositionEmbedding half", "RotaryPositionEmbedding", [x, *half, None], [x.double() * c + rotate_half(x.double()) * s], mode=0)
    twice = [t.repeat_interleave(2, -1) for t in (cos, sin)]
    # As complex numbers, the way in which Wan's own release turns them.
    turned = torch.view_as_complex(x.double().unflatten(-1, (12, 2))) * torch.complex(*wide(cos, sin))
    case("RotaryPositionEmbedding interleaved", "RotaryPositionEmbedding", [x, *twice, None], [torch.view_as_real(turned).flatten(-2)], mode=1)


# ---------------------------------------------------------------- attention

ATTENTIONS = {  # batch, queries, keys, heads, key heads, width, sparse mode
    "plain": (2, 9, 9, 3, 3, 24, 0),
    "cross": (1, 7, 13, 2, 2, 32, 0),
    "grouped": (1, 9, 9, 4, 2, 24, 0),
    "masked": (1, 7, 9, 2, 2, 16, 1),
    "masked by sample": (3, 7, 9, 2, 2, 16, 1),
    "causal": (1, 11, 11, 2, 1, 24, 3),
    "causal, more keys": (1, 5, 11, 2, 2, 24, 3),
}


def attention():
    for name, (b, lq, lk, hq, hk, d, mode) in ATTENTIONS.items():
        q, g = (normal(name + s, b, lq, hq, d) for s in ("q", "g"))
        k, v = (normal(name + s, b, lk, hk, d) for s in ("k", "v"))
        seen = torch.ones(lq, lk, dtype=torch.bool)
        if mode == 1:
            seen = torch.rand((b, 1, lq, lk) if b > 1 else (lq, lk), generator=rng(name)) > 0.4
            seen[..., 0] = True
        elif mode == 3:
            seen = seen.tril(lk - lq)

        def attend(q, k, v):
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=0.3, enable_gqa=hq != hk).transpose(1, 2)

        wq, wk = q.double(), k.double().repeat_interleave(hq // hk, dim=2)
        scores = (0.3 * torch.einsum("blhd,bthd->bhlt", wq, wk)).masked_fill(~seen, -torch.inf)
        top = scores.amax(-1, keepdim=True)
        total = (scores - top).exp().sum(-1, keepdim=True)
        eight = lambda t: t.expand(*t.shape[:-1], 8)
        mask = {0: None, 1: ~seen, 3: TRIANGLE}[mode]
        far = 2**31 - 1
        attrs = dict(scale_value=0.3, keep_prob=1.0, pre_tockens=far, next_tockens=far, head_num=hq, input_layout="BSND", inner_precise=1, sparse_mode=mode)
        out = attend(*wide(q, k, v))
        fed = [q, k, v, None, None, None, mask, None, None, None, None, None]
        case(f"FlashAttentionScore {name}", "FlashAttentionScore", fed, [eight(top), eight(total), None, out], **attrs)
        grads = [*gradient(attend, g, q, k, v), None]
        # The statistics apart, and as mmc gives them: the log of the sum as the maximum, and 1 as the sum.
        for form, (m, s) in {"": (top, total), ", log": (top + total.log(), torch.ones_like(total))}.items():
            fed = [q, k, v, g, None, None, None, mask, eight(m), eight(s), None, out, None, None, None, None, None]
            case(f"FlashAttentionScoreGrad {name}{form}", "FlashAttentionScoreGrad", fed, grads, **attrs)


def adamw():
    for step, lr, b1, b2, eps, decay in ((1, 1e-3, 0.9, 0.999, 1e-8, 0.01), (7, 2e-2, 0.8, 0.95, 1e-6, 0.1)):
        # CANN takes these as f32, and 1 - beta shows it.
        lr, b1, b2, eps, decay = torch.tensor([lr, b1, b2, eps, decay]).tolist()
        p, g, m = (normal(f"adamw {step}{s}", 7, 13) for s in "pgm")
        v = torch.rand((7, 13), generator=rng(f"adamw {step}"))
        if step == 1:
            m, v = torch.zeros_like(m), torch.zeros_like(v)
        var = torch.nn.Parameter(p.double())
        var.grad = g.double()
        opt = torch.optim.AdamW([var], lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay)
        opt.state[var] = {"step": torch.tensor(float(step - 1)), "exp_avg": m.double(), "exp_avg_sq": v.double()}
        opt.step()
        after = [var, opt.state[var]["exp_avg"], opt.state[var]["exp_avg_sq"]]
        # The powers of the betas are those before this step.
        numbers = [torch.tensor([n]) for n in (b1 ** (step - 1), b2 ** (step - 1), lr, decay, b1, b2, eps)]
        case(f"ApplyAdamW {step}", "ApplyAdamW", [p, m, v, *numbers, g, None], after, amsgrad=False, maximize=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for group in (elementwise, activations, movement, products, norms, rope, attention, adamw):
        group()
    save_file(tensors, OUT, metadata={"cases": json.dumps(cases)})
    print(f"{len(cases)} cases, {OUT.stat().st_size // 1024} KiB")
