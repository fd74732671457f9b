#!/usr/bin/env python3
"""Writes the golden values of whole models: diffusers' Wan, transformers' Qwen3 and Qwen3-MoE with small random configurations.

    python tests/goldens/generate.py            write every case beside this file
    python tests/goldens/generate.py NAME...    only the cases whose folder contains one of the names
    python tests/goldens/generate.py --check    write nothing; say how far this machine's values are from the committed ones

README.md beside this file describes the cases and the tensors in them.
"""
import contextlib
import copy
import json
import math
import pathlib
import sys
import zlib

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.optimization import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup

HERE = pathlib.Path(__file__).resolve().parent
STEPS = 5
ADAMW = "lr=1e-3,weight_decay=0.01,clip=1.0"


# ---------------------------------------------------------------- cases


def wan(name, task="train", preset="t2v-a14b", batch=1, dtype="f32", optim=ADAMW, faint=False, **dims):
    """`faint` scales what feeds the norms so far down that a wrong epsilon shows."""
    base = dict(LAYERS=1, HEADS=2, HEAD=12, FFN=40, IN=4, OUT=4, TEXT=10, FREQ=16, F=3, H=6, W=10, S=7)
    return dict(family="wan", name=name, task=task, preset=preset, batch=batch, dtype=dtype, optim=optim, faint=faint, set=base | dims)


def qwen3(name, task="train", batch=1, dtype="f32", optim=ADAMW, faint=False, ignored=0.0, **dims):
    """`ignored` is the share of labels that are -100."""
    base = dict(LAYERS=2, HIDDEN=40, HEADS=2, KV_HEADS=2, HEAD=16, FFN=56, VOCAB=61, S=11, TIE=0)
    return dict(family="qwen3", name=name, task=task, preset=None, batch=batch, dtype=dtype, optim=optim, faint=faint, ignored=ignored, set=base | dims)


def qwen3_moe(name, normalized=False, task="train", batch=1, optim=ADAMW, ignored=0.0, microbatches=1, form="one_by_one", **dims):
    """`form` is that of experts in the file of weights."""
    base = dict(LAYERS=2, HIDDEN=44, HEADS=3, KV_HEADS=1, HEAD=12, FFN=50, VOCAB=61, S=11, TIE=0, EXPERTS=7, CHOSEN=3, INNER=18, NORMALIZED=int(normalized))
    case = dict(form=form, family="qwen3_moe", name=name, task=task, preset=None, batch=batch, dtype="f32", optim=optim, faint=False, ignored=ignored, set=base | dims)
    return case if microbatches == 1 else case | dict(microbatches=microbatches)


# Lengths are odd on purpose, so that no tile, lane or shard divides them.
CASES = [
    # One token of video and one of text: every loop runs once.
    wan("t2v_forward_one_token", task="forward", F=1, H=2, W=2, S=1),
    # The default preset and the published width of the time embedding; times 0 and 1000 are among the three samples.
    wan("t2v_forward_batch3", task="forward", preset=None, batch=3, LAYERS=2, HEADS=3, FREQ=256),
    wan("t2v_forward_head24", task="forward", HEADS=3, HEAD=24, FFN=50, F=5, H=14, W=2, S=13),
    wan("t2v_forward_head32", task="forward", batch=2, HEADS=2, HEAD=32, FFN=37, IN=3, OUT=3, TEXT=9, FREQ=32, F=2, H=10, W=6),
    # Long enough for several attention tiles in each direction.
    wan("t2v_forward_long", task="forward", F=5, H=18, W=14, S=131, HEAD=16),
    wan("t2v_forward_faint", task="forward", batch=2, LAYERS=2, faint=True),
    wan("t2v_forward_bf16", task="forward", batch=2, LAYERS=2, HEADS=2, HEAD=16, dtype="bf16"),
    wan("i2v_forward", task="forward", preset="i2v-a14b", batch=2, LAYERS=2, HEAD=16, IN=11, F=2, H=10, W=6),
    # Beside the 512 tokens of text that the class counts from the end, the tokens of an encoded picture.
    wan("i2v_forward_picture", task="forward", preset="i2v-a14b", IN=7, F=2, H=4, W=6, S=512, TEXT=6, IMAGE=14, IMAGE_TOKENS=5),
    wan("i2v_train_picture", preset="i2v-a14b", IN=7, F=2, H=4, W=6, S=512, TEXT=6, IMAGE=14, IMAGE_TOKENS=5),
    # Every token has a time of its own.
    wan("ti2v_forward", task="forward", preset="ti2v-5b", batch=2, LAYERS=2, HEAD=16, IN=6, OUT=6, F=3, H=6, W=6),
    wan("t2v_train", batch=2, LAYERS=2, HEADS=3),
    wan("t2v_train_head24", HEADS=2, HEAD=24, F=1, H=10, W=14, FFN=41, S=9),
    wan("t2v_train_three_layers", batch=3, LAYERS=3, F=2, H=6, W=6, S=5, FFN=29),
    wan("t2v_train_sgd", batch=3, HEAD=16, F=5, H=6, W=2, optim="kind=sgd,lr=1e-2,weight_decay=0,clip=0"),
    wan("t2v_train_sgd_clip", batch=2, F=3, H=2, W=14, optim="kind=sgd,lr=1e-1,weight_decay=0,clip=0.2"),
    wan("t2v_train_clip", batch=2, HEADS=3, optim="lr=1e-3,weight_decay=0.01,clip=0.05"),
    # Warms up from a rate of 0, and the norm never reaches the clip.
    wan("t2v_train_cosine", batch=1, HEAD=16, optim="lr=2e-3,weight_decay=0.01,clip=100,schedule=cosine,warmup=2,total=6"),
    wan("t2v_train_constant_warmup", batch=2, optim="lr=1e-3,weight_decay=0.01,clip=1.0,schedule=constant,warmup=3,total=5"),
    wan("t2v_train_betas", batch=2, optim="lr=2e-3,beta1=0.8,beta2=0.95,eps=1e-6,weight_decay=0.1,clip=0"),
    wan("t2v_train_faint", batch=2, faint=True, optim="lr=1e-5,weight_decay=0.01,clip=1.0"),
    wan("t2v_train_bf16", batch=3, LAYERS=2, HEAD=16, dtype="bf16"),
    wan("i2v_train", preset="i2v-a14b", batch=2, LAYERS=2, HEADS=2, HEAD=16, IN=9, F=3, H=6, W=6),
    wan("ti2v_train", preset="ti2v-5b", batch=2, LAYERS=2, HEADS=2, HEAD=16, IN=6, OUT=6, F=3, H=6, W=6),
    wan("ti2v_train_batch3", preset="ti2v-5b", batch=3, HEADS=3, F=5, H=2, W=6, S=3),
    qwen3("untied_forward", task="forward", batch=2),
    qwen3("tied_forward", task="forward", TIE=1, KV_HEADS=1),
    qwen3("gqa4_forward", task="forward", batch=3, HEADS=4, KV_HEADS=1, HEAD=24, S=1),
    qwen3("long_forward", task="forward", HEADS=6, KV_HEADS=2, LAYERS=1, S=131),
    qwen3("faint_forward", task="forward", faint=True),
    qwen3("bf16_forward", task="forward", batch=2, HEADS=4, KV_HEADS=2, dtype="bf16"),
    qwen3("untied_train", batch=2),
    qwen3("tied_train", batch=2, TIE=1, HEADS=4, KV_HEADS=2),
    qwen3("gqa3_train", batch=1, LAYERS=3, HEADS=3, KV_HEADS=1, HEAD=12, HIDDEN=44, S=17),
    qwen3("gqa4_train", batch=2, HEADS=8, KV_HEADS=2, HEAD=12, S=9),
    qwen3("head32_train", batch=1, LAYERS=1, HEADS=3, KV_HEADS=3, HEAD=32, HIDDEN=50, FFN=37, VOCAB=97, S=13),
    qwen3("ignored_train", batch=3, HEADS=4, KV_HEADS=2, ignored=0.4, S=13),
    qwen3("ignored_tied_sgd_train", batch=3, TIE=1, HEADS=3, KV_HEADS=1, ignored=0.4, optim="kind=sgd,lr=1e-1,weight_decay=0,clip=0"),
    qwen3("clip_train", batch=2, HEADS=2, KV_HEADS=1, optim="lr=1e-3,weight_decay=0.01,clip=0.05"),
    qwen3("cosine_tied_train", batch=1, TIE=1, optim="lr=2e-3,weight_decay=0.01,clip=1.0,schedule=cosine,warmup=1,total=4"),
    # Padding behind the first sample and before the others.
    qwen3("masked_train", batch=3, HEADS=4, KV_HEADS=2, MASKED=1),
    qwen3("bf16_train", batch=3, HEADS=4, KV_HEADS=2, S=47, dtype="bf16"),
    qwen3_moe("untied_forward", task="forward", batch=2),
    qwen3_moe("tied_forward", task="forward", normalized=True, form="turned", TIE=1, EXPERTS=16, CHOSEN=1, S=37),
    qwen3_moe("kinds_forward", task="forward", form="fused", LAYERS=6, DENSE="2,3", SPARSE_STEP=2, HEADS=4, KV_HEADS=2),
    qwen3_moe("apart_forward", task="forward", form="apart", CHOSEN=7, S=1),
    qwen3_moe("untied_train", batch=2),
    qwen3_moe("tied_train", batch=2, normalized=True, TIE=1),
    qwen3_moe("kinds_train", normalized=True, LAYERS=4, DENSE="0", HEADS=2, KV_HEADS=2, S=17),
    qwen3_moe("balanced_train", batch=2, BALANCED=1, BALANCE=0.1),
    qwen3_moe("balanced_kinds_train", batch=3, normalized=True, LAYERS=3, DENSE="1", BALANCED=1, BALANCE=0.02, ignored=0.4, S=13),
    # Padding is not balanced.
    qwen3_moe("masked_train", batch=2, MASKED=1, BALANCED=1, BALANCE=0.1),
    # Each micro-batch balances its own tokens.
    qwen3_moe("balanced_parts_train", batch=6, microbatches=3, BALANCED=1, BALANCE=0.1, ignored=0.4, S=9),
]


# ---------------------------------------------------------------- models, weights, inputs


def build(case):
    d = case["set"]
    if case["family"] == "wan":
        model = WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=d["HEADS"], attention_head_dim=d["HEAD"], in_channels=d["IN"], out_channels=d["OUT"],
            text_dim=d["TEXT"], freq_dim=d["FREQ"], ffn_dim=d["FFN"], num_layers=d["LAYERS"], cross_attn_norm=True,
            qk_norm="rms_norm_across_heads", eps=1e-6, rope_max_seq_len=64,
            **(dict(image_dim=d["IMAGE"], added_kv_proj_dim=d["HEADS"] * d["HEAD"]) if "IMAGE" in d else {}),
        )
    elif case["family"] == "qwen3_moe":
        config = Qwen3MoeConfig(
            vocab_size=d["VOCAB"], hidden_size=d["HIDDEN"], intermediate_size=d["FFN"], num_hidden_layers=d["LAYERS"],
            num_attention_heads=d["HEADS"], num_key_value_heads=d["KV_HEADS"], head_dim=d["HEAD"], rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6}, tie_word_embeddings=bool(d["TIE"]), num_experts=d["EXPERTS"],
            num_experts_per_tok=d["CHOSEN"], moe_intermediate_size=d["INNER"], norm_topk_prob=bool(d["NORMALIZED"]),
            mlp_only_layers=[int(layer) for layer in d.get("DENSE", "").split(",") if layer], decoder_sparse_step=d.get("SPARSE_STEP", 1),
            output_router_logits=bool(d.get("BALANCED", 0)), router_aux_loss_coef=d.get("BALANCE", 0.0),
        )
        config._attn_implementation = "sdpa"
        config._experts_implementation = "eager"
        model = Qwen3MoeForCausalLM(config)
    else:
        config = Qwen3Config(
            vocab_size=d["VOCAB"], hidden_size=d["HIDDEN"], intermediate_size=d["FFN"], num_hidden_layers=d["LAYERS"],
            num_attention_heads=d["HEADS"], num_key_value_heads=d["KV_HEADS"], head_dim=d["HEAD"], rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6}, tie_word_embeddings=bool(d["TIE"]), attention_bias=False,
        )
        config._attn_implementation = "sdpa"
        model = Qwen3ForCausalLM(config)
    return model.float().train()


def randomise(model, case, rng):
    """Every parameter gets values that matter: biases and tables are not zero, norm weights are near one but not one."""
    for name, p in model.named_parameters():
        r = torch.randn(p.shape, generator=rng)
        if "norm" in name and name.endswith("weight"):
            value = 1 + 0.2 * r
        elif name.endswith("bias"):
            value = 0.2 * r
        elif name.endswith("scale_shift_table"):
            value = 0.4 * r
        elif "embed_tokens" in name:
            value = 0.5 * r
        elif ".experts." in name:
            value = r / math.sqrt(p.shape[-1])
        else:
            value = r / math.sqrt(math.prod(p.shape[1:]))
        if case["faint"] and any(s in name for s in ("patch_embedding", "embed_tokens", "to_q", "to_k", "q_proj", "k_proj")):
            value = 0.003 * value
        with torch.no_grad():
            p.copy_(value)


def draw_inputs(case, rng):
    d, b = case["set"], case["batch"]
    randn = lambda *shape: torch.randn(shape, generator=rng)
    if case["family"] != "wan":
        tensors = {"input_ids": torch.randint(d["VOCAB"], (b, d["S"]), generator=rng)}
        if case["task"] == "train":
            labels = tensors["input_ids"].clone()
            labels[torch.rand(labels.shape, generator=rng) < case["ignored"]] = -100
            if case["ignored"]:
                labels[0, : d["S"] // 2] = -100  # the samples count very different numbers of tokens,
                labels[-1, -1] = -100  # and the last position is ignored too
            tensors["labels"] = labels
            if d.get("MASKED"):
                mask = torch.ones_like(labels)
                mask[0, 7:], mask[1:, :3] = 0, 0
                labels[0, 7:], labels[1:, :4] = -100, -100  # what padding predicts does not count
                tensors["attention_mask"] = mask
        return tensors
    grid = (d["F"], d["H"], d["W"])
    text = randn(b, d["S"], d["TEXT"])
    picture = {"encoder_hidden_states_image": randn(b, d["IMAGE_TOKENS"], d["IMAGE"])} if "IMAGE" in d else {}
    if case["task"] == "forward":
        tokens = d["F"] * (d["H"] // 2) * (d["W"] // 2)
        t = 1000 * torch.rand((b, tokens) if case["preset"] == "ti2v-5b" else (b,), generator=rng)
        if b == 3:
            t[0], t[1] = 0, 1000
        return {"hidden_states": randn(b, d["IN"], *grid), "timestep": t, "encoder_hidden_states": text} | picture
    tensors = {"latent": randn(b, d["OUT"], *grid), "encoder_hidden_states": text, "noise": randn(b, d["OUT"], *grid)}
    tensors["t"] = torch.rand((b,), generator=rng)
    if case["preset"] == "i2v-a14b":
        tensors["cond"] = randn(b, d["IN"] - d["OUT"], *grid)
    return tensors | picture


# ---------------------------------------------------------------- what the command line means


def predict(model, case, feeds):
    """`forward`."""
    if case["family"] != "wan":
        return model(input_ids=feeds["input_ids"], use_cache=False).logits
    return model(hidden_states=feeds["hidden_states"], timestep=feeds["timestep"], encoder_hidden_states=feeds["encoder_hidden_states"], encoder_hidden_states_image=feeds.get("encoder_hidden_states_image"), return_dict=False)[0]


def loss_and_out(model, case, feeds):
    """`train`."""
    if case.get("microbatches", 1) > 1:
        return microbatches(model, case, feeds)
    if case["family"] != "wan":
        result = model(input_ids=feeds["input_ids"], attention_mask=feeds.get("attention_mask"), labels=feeds["labels"], use_cache=False)
        return result.loss, result.logits
    latent, noise, t = feeds["latent"], feeds["noise"], feeds["t"]
    at = t.view(-1, 1, 1, 1, 1)
    x, times, first = (1 - at) * latent + at * noise, 1000 * t, 0
    if case["preset"] == "i2v-a14b":
        x = torch.cat([x, feeds["cond"]], dim=1)
    if case["preset"] == "ti2v-5b":
        first = 1  # the first frame is given, not predicted
        x = torch.cat([latent[:, :, :1], x[:, :, 1:]], dim=2)
        frames, area = x.shape[2], (x.shape[3] // 2) * (x.shape[4] // 2)
        times = (times[:, None] * (torch.arange(frames * area) >= area)).to(times.dtype)
    out = model(hidden_states=x, timestep=times, encoder_hidden_states=feeds["encoder_hidden_states"], encoder_hidden_states_image=feeds.get("encoder_hidden_states_image"), return_dict=False)[0]
    error = out - (noise - latent)
    return error[:, :, first:].square().mean(), out


def microbatches(model, case, feeds):
    """The mean over all labels that count, and over micro-batches of what is added to it."""
    ids, labels = (feeds[name].chunk(case["microbatches"]) for name in ("input_ids", "labels"))
    results = [model(input_ids=i, labels=l, use_cache=False) for i, l in zip(ids, labels)]
    counts = [(l[:, 1:] != -100).sum() for l in labels]
    added = [model.router_aux_loss_coef * r.aux_loss for r in results]
    loss = sum((r.loss - a) * n for r, a, n in zip(results, added, counts)) / sum(counts) + sum(added) / len(added)
    return loss, torch.cat([r.logits for r in results])


def optimiser(model, text):
    """The optimiser, clip norm and schedule that an `--optim` string asks for, from torch and transformers."""
    o = dict(pair.split("=") for pair in text.split(","))
    lr, decay = float(o["lr"]), float(o["weight_decay"])
    if o.get("kind") == "sgd":
        opt = torch.optim.SGD(model.parameters(), lr=lr, weight_decay=decay)
    else:
        betas = (float(o.get("beta1", 0.9)), float(o.get("beta2", 0.999)))
        opt = torch.optim.AdamW(model.parameters(), lr=lr, betas=betas, eps=float(o.get("eps", 1e-8)), weight_decay=decay)
    if o.get("schedule") == "cosine":
        schedule = get_cosine_schedule_with_warmup(opt, int(o["warmup"]), int(o["total"]))
    else:
        schedule = get_constant_schedule_with_warmup(opt, int(o.get("warmup", 0)))
    return opt, float(o["clip"]), schedule


def gradients(model, case, feeds):
    model.zero_grad()
    loss, out = loss_and_out(model, case, feeds)
    loss.backward()
    return loss.detach(), out.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}


def train(model, case, feeds, precision=contextlib.nullcontext):
    """Losses of all steps, the gradients of the first, before clipping; `model` is left as after the last."""
    opt, clip, schedule = optimiser(model, case["optim"])
    losses, first = [], None
    for _ in range(STEPS):
        with precision():
            loss, out, grads = gradients(model, case, feeds)
        first = first or (out, grads)
        losses.append(loss.float())
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        opt.step()
        schedule.step()
    return torch.stack(losses), *first


# ---------------------------------------------------------------- other precisions


@contextlib.contextmanager
def true_f64():
    """Both libraries cast to f32 around norms and the loss; in an f64 model those casts would bring back f32 noise."""
    to_float, to = torch.Tensor.float, torch.Tensor.to

    def keep(x, *args, **kwargs):
        down = x.dtype == torch.float64 and torch.float32 in (*args, kwargs.get("dtype"))
        return x if down else to(x, *args, **kwargs)

    torch.Tensor.float = lambda x: x if x.dtype == torch.float64 else to_float(x)
    torch.Tensor.to = keep
    try:
        yield
    finally:
        torch.Tensor.float, torch.Tensor.to = to_float, to


def autocast():
    return torch.autocast("cpu", dtype=torch.bfloat16)


def as_f64(feeds):
    return {k: v.double() if v.is_floating_point() else v for k, v in feeds.items()}


def distance(a, b):
    """Norm of the difference over the norm of the reference `b`."""
    return ((a.double() - b.double()).norm() / b.double().norm()).float()


# ---------------------------------------------------------------- one case


def saved(name, value, form):
    """The tensors that files have of a parameter. `save_pretrained` makes one for each expert of it."""
    if not name.endswith(("experts.gate_up_proj", "experts.down_proj")) or form == "fused":
        return {name: value}
    if form == "turned":
        return {name: value.transpose(1, 2)}
    parts = {"down_proj": value} if "down" in name else dict(zip(("gate_proj", "up_proj"), value.chunk(2, dim=1)))
    owner = name.rpartition(".")[0]
    if form == "apart":
        return {f"{owner}.{part}": experts.clone() for part, experts in parts.items()}
    return {f"{owner}.{i}.{part}.weight": one.clone() for part, experts in parts.items() for i, one in enumerate(experts)}


def own(tensors):
    """Gradients and parameters under the names of the `.mm` file, which has gate and up apart."""
    out = {}
    for name, value in tensors.items():
        if name.endswith("experts.gate_up_proj"):
            out[name.replace("gate_up_proj", "gate")], out[name.replace("gate_up_proj", "up")] = value.chunk(2, dim=1)
        elif name.endswith("experts.down_proj"):
            out[name.removesuffix("_proj")] = value
        else:
            out[name] = value
    return out


def compute(case):
    """(weights, inputs, expected, noise): `noise` says how far f32 is from f64, for the report."""
    rng = torch.Generator().manual_seed(zlib.crc32(f"{case['family']}/{case['name']}".encode()))
    model = build(case)
    randomise(model, case, rng)
    weights = {name: t.clone() for k, v in model.state_dict().items() for name, t in saved(k, v, case.get("form")).items()}
    if case["set"].get("TIE"):
        del weights["lm_head.weight"]  # save_pretrained keeps one of the two names
    feeds = draw_inputs(case, rng)
    wide, narrow = copy.deepcopy(model).double(), copy.deepcopy(model)
    bf16 = case["dtype"] == "bf16"
    if case["task"] == "forward":
        with torch.no_grad():
            out = predict(model, case, feeds)
            with true_f64():
                noise = {"sample": distance(out, predict(wide, case, as_f64(feeds)))}
            expected = {"sample" if case["family"] == "wan" else "logits": out}
            if bf16:
                with autocast():
                    expected["autocast/sample"] = distance(predict(narrow, case, feeds), out)
        return weights, feeds, expected, noise

    with true_f64():
        loss64, _, grads64 = gradients(wide, case, as_f64(feeds))
    losses, out, grads = train(model, case, feeds)
    expected = {"loss": losses}
    expected |= {f"grad/{n}": g for n, g in own(grads).items()}
    expected |= {f"param/{n}": p.detach() for n, p in own(dict(model.named_parameters())).items()}
    expected |= {f"norm64/{n}": g.norm().float() for n, g in own(grads64).items()}
    floor = 1e-6 * torch.stack([g.norm() for g in grads64.values()]).median()
    noise = {"loss": distance(losses[0], loss64), "grad": max(distance(grads[n], g) for n, g in grads64.items() if g.norm() > floor)}
    if bf16:
        narrow_losses, narrow_out, narrow_grads = train(narrow, case, feeds, autocast)
        expected["autocast/sample"] = distance(narrow_out, out)
        expected["autocast/loss"] = ((narrow_losses - losses).abs() / losses).max()
        expected |= {f"autocast/{n}": distance(g, grads[n]) for n, g in narrow_grads.items()}
    return weights, feeds, expected, noise


def describe(case):
    keys = ("model", "preset", "set", "task", "batch", "dtype", "optim", "steps", *(k for k in ("microbatches",) if k in case))
    case = case | {"model": {"wan": "wan2.2.mm", "qwen3": "qwen3.mm", "qwen3_moe": "qwen3_moe.mm"}[case["family"]], "steps": STEPS}
    return {k: case[k] for k in keys if case["task"] == "train" or k not in ("optim", "steps")}


def write(folder, case, parts):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.json").write_text(json.dumps(describe(case)) + "\n")
    for name, tensors in parts.items():
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, folder / f"{name}.safetensors")


def compare(folder, parts):
    """The largest distance of any tensor from the committed one, over its own norm; tensors that are noise by norm64 are left out."""
    worst = (0.0, "")
    for name, tensors in parts.items():
        stored = load_file(folder / f"{name}.safetensors")
        assert stored.keys() == tensors.keys(), f"{folder}: {name} has other tensors"
        floor = 1e-6 * torch.tensor([v for k, v in stored.items() if k.startswith("norm64/")] or [0.0]).median()
        for k, v in tensors.items():
            if k.startswith(("norm64/", "autocast/")) or stored.get(f"norm64/{k.removeprefix('grad/')}", torch.inf) < floor:
                continue
            worst = max(worst, (float((v.double() - stored[k].double()).norm() / stored[k].double().norm().clamp(min=1e-30)), f"{name}:{k}"))
    return worst


def random_case(seed):
    """A case nobody chose: odd sizes, any form, any task."""
    pick = np.random.default_rng(seed)
    some = lambda *values: values[int(pick.integers(len(values)))]
    common = dict(task=some("train", "train", "forward"), batch=int(pick.integers(1, 4)), optim=some(ADAMW, "lr=3e-4,weight_decay=0.1,clip=0", "kind=sgd,lr=1e-2,weight_decay=0.01,clip=0.5"))
    size = lambda lo, hi: int(pick.integers(lo, hi + 1))
    if pick.random() < 0.5:
        preset = some("t2v-a14b", "i2v-a14b", "ti2v-5b")
        out = size(1, 6)
        dims = dict(LAYERS=size(1, 3), HEADS=size(1, 5), HEAD=2 * size(3, 20), FFN=size(1, 99), OUT=out, IN=out + (size(1, 7) if preset == "i2v-a14b" else 0), TEXT=size(1, 33), FREQ=2 * size(2, 40))
        return wan(f"random_{seed}", preset=preset, **common, **dims, F=size(2 if preset == "ti2v-5b" else 1, 5), H=2 * size(1, 9), W=2 * size(1, 9), S=size(1, 40))
    groups, kv = size(1, 4), size(1, 3)
    dims = dict(LAYERS=size(1, 3), HIDDEN=size(2, 90), HEADS=groups * kv, KV_HEADS=kv, HEAD=2 * size(2, 24), FFN=size(1, 120), VOCAB=size(3, 300), S=size(2, 90), TIE=size(0, 1))
    return qwen3(f"random_{seed}", ignored=some(0.0, 0.3), **common, **dims)


def main(args):
    """`--random N DIR` writes N cases that nobody chose to another folder: `GOLDENS=DIR cargo test --test conformance` runs them."""
    if args[:1] == ["--random"]:
        for seed in range(int(args[1])):
            case = random_case(seed)
            weights, feeds, expected, _ = compute(case)
            write(pathlib.Path(args[2]) / case["family"] / case["name"], case, {"weights": weights, "inputs": feeds, "expected": expected})
        return
    check, names = "--check" in args, [a for a in args if not a.startswith("--")]
    torch.set_num_threads(1)  # the order of sums, and so the bytes, must not depend on the machine's cores
    torch.use_deterministic_algorithms(True)
    for case in CASES:
        folder = HERE / case["family"] / case["name"]
        if names and not any(n in str(folder.relative_to(HERE)) for n in names):
            continue
        weights, feeds, expected, noise = compute(case)
        parts = {"weights": weights, "inputs": feeds, "expected": expected}
        if check:
            far, what = compare(folder, parts)
            print(f"{case['family']}/{case['name']}: {far:.1e} {what}")
            continue
        write(folder, case, parts)
        size = sum(f.stat().st_size for f in folder.iterdir())
        print(f"{case['family']}/{case['name']}: {size // 1024} KiB, f32 from f64: " + ", ".join(f"{k} {v:.1e}" for k, v in noise.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
