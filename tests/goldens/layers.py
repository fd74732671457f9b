#!/usr/bin/env python3
"""Writes the golden values of libraries of layers, from the functions and classes of transformers: layers/<case>/.

    python tests/goldens/layers.py [NAME...]

The models are those of tests/conformance/layers. Cases are laid out as those of generate.py, and computed in f64: rotary
positions too, so that position 30,000 is as exact as position 3.
"""
import contextlib
import json
import pathlib
import sys
import zlib

import torch
from safetensors.torch import save_file
from transformers import DeepseekV2Config, DeepseekV3Config, LlamaConfig, MixtralConfig, Qwen2MoeConfig, Qwen3MoeConfig
from transformers.models.deepseek_v2 import modeling_deepseek_v2 as deepseek_v2
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as deepseek_v3
from transformers.models.glm4v import modeling_glm4v as glm4v
from transformers.models.glm4v.configuration_glm4v import Glm4vTextConfig
from transformers.models.llama import modeling_llama as llama
from transformers.models.mixtral import modeling_mixtral as mixtral
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen2_5_vl
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_moe import modeling_qwen2_moe as qwen2_moe
from transformers.models.qwen2_vl import modeling_qwen2_vl as qwen2_vl
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig
from transformers.models.qwen3_5 import modeling_qwen3_5 as qwen3_5
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_moe import modeling_qwen3_moe as qwen3_moe
from transformers.models.qwen3_vl import modeling_qwen3_vl as qwen3_vl
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig

HERE = pathlib.Path(__file__).resolve().parent / "layers"
MODELS = "../tests/conformance/layers"
SGD = "kind=sgd,lr=1e-1,weight_decay=0,clip=0"
STEPS = 2


@contextlib.contextmanager
def in_f64():
    """What the library computes in f32, however it says so, it computes in f64."""
    tensor, kept = torch.Tensor, (torch.float, torch.float32, torch.Tensor.float, torch.Tensor.to, torch.Tensor.type)
    single = torch.float32

    def wide(x):
        return torch.float64 if x is single else x

    torch.float = torch.float32 = torch.float64
    tensor.float = tensor.double
    tensor.to = lambda x, *args, **named: kept[3](x, *map(wide, args), **{k: wide(v) for k, v in named.items()})
    tensor.type = lambda x, *args: kept[4](x, *map(wide, args))
    try:
        yield
    finally:
        torch.float, torch.float32, tensor.float, tensor.to, tensor.type = kept


# ---------------------------------------------------------------- rotary positions


def text(module, rotary, config):
    """Turns q by position_ids [3, B, S] as a language model's class does."""

    def turn(q, position_ids):
        embedding = getattr(module, rotary)(config)
        where = position_ids if hasattr(embedding, "mrope_section") else position_ids[0]
        cos, sin = embedding(q, where)
        return module.apply_rotary_pos_emb(q, q, cos, sin, unsqueeze_dim=2)[0]

    return turn


def vision(config):
    def turn(q, position_ids):
        cos, sin = qwen2_5_vl.Qwen2_5_VLVisionRotaryEmbedding(config)(q, position_ids[:2, 0].T)
        return torch.stack([qwen2_5_vl.apply_rotary_pos_emb_vision(one, one, cos, sin)[0] for one in q])

    return turn


def llama_of(**rope):
    rope = dict(rope_theta=10_000.0) | rope
    config = LlamaConfig(hidden_size=32, num_attention_heads=2, head_dim=16, max_position_embeddings=64, rope_parameters=rope)
    return text(llama, "LlamaRotaryEmbedding", config)


def sectioned(module, rotary, config, sections, **rope):
    rope = dict(rope_type="default", rope_theta=10_000.0, mrope_section=sections) | rope
    config = config(hidden_size=32, num_attention_heads=2, num_key_value_heads=2, head_dim=16, rope_parameters=rope)
    config.head_dim = 16
    return text(module, rotary, config)


QWEN2_VL = lambda sections: sectioned(qwen2_vl, "Qwen2VLRotaryEmbedding", Qwen2VLTextConfig, sections)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=512)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=512)

# Name, the class's function, settings, and the positions: near is below 100, far is up to 32,767.
ROPES = [
    ("rope_default", llama_of(rope_type="default"), dict(OF="rope"), "counted"),
    ("rope_far", llama_of(rope_type="default"), dict(OF="rope_at"), "far"),
    ("rope_linear", llama_of(rope_type="linear", factor=3.0), {"OF": "rope", "rope.rotary.KIND": "linear", "rope.rotary.FACTOR": 3.0}, "counted"),
    ("rope_llama3", llama_of(**LLAMA3), {"OF": "rope_at", "rope.rotary.KIND": "llama3", "rope.rotary.FACTOR": 8.0, "rope.rotary.ORIGINAL": 512.0}, "far"),
    ("rope_yarn", llama_of(**YARN), {"OF": "rope_at", "rope.rotary.KIND": "yarn", "rope.rotary.FACTOR": 4.0, "rope.rotary.ORIGINAL": 512.0}, "far"),
    (
        "rope_yarn_scaled",
        llama_of(**YARN, beta_fast=20.0, beta_slow=2.0, mscale=0.8, mscale_all_dim=0.5, truncate=False),
        {
            "OF": "rope", "rope.rotary.KIND": "yarn", "rope.rotary.FACTOR": 4.0, "rope.rotary.ORIGINAL": 512.0, "rope.rotary.BETA_FAST": 20.0,
            "rope.rotary.BETA_SLOW": 2.0, "rope.rotary.MSCALE": 0.8, "rope.rotary.MSCALE_ALL_DIM": 0.5, "rope.rotary.TRUNCATE": "false",
        },
        "counted",
    ),
    (
        "rope_yarn_attention",
        llama_of(**YARN, attention_factor=0.7),
        {"OF": "rope", "rope.rotary.KIND": "yarn", "rope.rotary.FACTOR": 4.0, "rope.rotary.ORIGINAL": 512.0, "rope.rotary.ATTENTION": 0.7},
        "counted",
    ),
    ("mrope_runs", QWEN2_VL([2, 3, 3]), dict(OF="mrope", ROW=3, COLUMN=3), "near"),
    ("mrope_runs_far", QWEN2_VL([4, 1, 3]), dict(OF="mrope", ROW=1, COLUMN=3), "far"),
    (
        "mrope_interleaved",
        sectioned(qwen3_vl, "Qwen3VLTextRotaryEmbedding", Qwen3VLTextConfig, [4, 2, 2]),
        {"OF": "mrope", "ROW": 2, "COLUMN": 2, "mrope.ORDER": "interleaved"},
        "far",
    ),
    (
        "mrope_partial",
        sectioned(qwen3_5, "Qwen3_5TextRotaryEmbedding", Qwen3_5TextConfig, [2, 1, 1], partial_rotary_factor=0.5),
        {"OF": "mrope", "ROW": 1, "COLUMN": 1, "mrope.ORDER": "interleaved", "PARTIAL": 0.5},
        "near",
    ),
    (
        "mrope_neighbours",
        sectioned(glm4v, "Glm4vTextRotaryEmbedding", Glm4vTextConfig, [1, 1, 2], partial_rotary_factor=0.5),
        {"OF": "mrope", "ROW": 1, "COLUMN": 2, "mrope.PAIRING": "neighbours", "PARTIAL": 0.5},
        "near",
    ),
    (
        "vision_rope",
        vision(Qwen2_5_VLVisionConfig(hidden_size=32, num_heads=2)),
        dict(OF="vision_rope"),
        "near",
    ),
]


def positions(kind, rng, batch, tokens):
    if kind == "counted":
        return torch.arange(tokens).expand(3, batch, tokens).clone()
    drawn = torch.randint(100 if kind == "near" else 32_768, (3, batch, tokens), generator=rng)
    if kind == "far":
        drawn[:, 0, 0], drawn[:, -1, -1] = 32_767, torch.tensor([30_000, 17, 512])
    return drawn


def ropes():
    for name, turn, settings, kind in ROPES:
        rng = generator(name)
        q, weight = (torch.randn(2, 6, 2, 16, generator=rng) for _ in range(2))
        where = positions(kind, rng, *q.shape[:2])
        feeds = {} if kind == "counted" else {"position_ids": where}

        def forward(parameters, feeds, turn=turn, where=where):
            return {"turned": turn(parameters["q"], where)}

        def loss(parameters, feeds, turn=turn, where=where):
            return (turn(parameters["q"], where) * feeds["weight"]).mean()

        yield name, "ropes", settings, {"q": q}, feeds, forward, None
        yield f"{name}_train", "ropes", settings, {"q": q}, feeds | {"weight": weight}, None, loss


# ---------------------------------------------------------------- mixtures of experts


SIZES = dict(hidden_size=12, moe_intermediate_size=10, num_experts_per_tok=3)
V3 = dict(n_routed_experts=8, n_group=4, topk_group=2, routed_scaling_factor=2.5, n_shared_experts=2)
V2 = dict(num_attention_heads=2, n_routed_experts=8, n_group=4, topk_group=2, routed_scaling_factor=1.5, n_shared_experts=1, topk_method="group_limited_greedy")
GROUPS = {"moe.GROUPS": 4, "moe.CHOSEN_GROUPS": 2, "moe.SHARED_NAME": "shared_experts"}
NORMALIZED = {"moe.NORMALIZED": "true"}

# Name, the class's block, settings.
MIXTURES = [
    ("qwen3_moe", lambda: qwen3_moe.Qwen3MoeSparseMoeBlock(Qwen3MoeConfig(**SIZES, num_experts=8)), {}),
    ("qwen3_moe_normalized", lambda: qwen3_moe.Qwen3MoeSparseMoeBlock(Qwen3MoeConfig(**SIZES, num_experts=8, norm_topk_prob=True)), NORMALIZED),
    (
        "mixtral",
        lambda: mixtral.MixtralSparseMoeBlock(MixtralConfig(hidden_size=12, intermediate_size=10, num_local_experts=8, num_experts_per_tok=3)),
        {"moe.SCORES": "softmax_of_chosen"},
    ),
    (
        "qwen2_moe",
        lambda: qwen2_moe.Qwen2MoeSparseMoeBlock(Qwen2MoeConfig(**SIZES, num_experts=8, shared_expert_intermediate_size=6)),
        {"SHARED": 6, "moe.SHARED_GATE": "true"},
    ),
    (
        "deepseek_v3",
        lambda: deepseek_v3.DeepseekV3MoE(DeepseekV3Config(**SIZES, **V3, norm_topk_prob=True)),
        {"SHARED": 20, "moe.SCORES": "sigmoid", "moe.CORRECTED": "true", "moe.SCALE": 2.5} | NORMALIZED | GROUPS,
    ),
    (
        "deepseek_v2",
        lambda: deepseek_v2.DeepseekV2Moe(DeepseekV2Config(**SIZES, **V2)),
        {"SHARED": 10, "moe.GROUP_SCORE": "best", "moe.SCALE": 1.5} | GROUPS,
    ),
]


def own_names(state):
    """The class's parameters under the names of the model's."""
    own = {}
    for name, value in state.items():
        if name == "experts.gate_up_proj":
            own["mlp.experts.gate"], own["mlp.experts.up"] = value.chunk(2, dim=1)
        elif name == "experts.down_proj":
            own["mlp.experts.down"] = value
        else:
            own[f"mlp.{name}"] = value
    return own


def class_names(own):
    state = {name.removeprefix("mlp."): value for name, value in own.items() if not name.startswith("mlp.experts.")}
    state["experts.gate_up_proj"] = torch.cat([own["mlp.experts.gate"], own["mlp.experts.up"]], dim=1)
    return state | {"experts.down_proj": own["mlp.experts.down"]}


def mixtures():
    for name, make, settings in MIXTURES:
        rng = generator(name)
        block = make()
        draws = {k: torch.randn(v.shape, generator=rng) * (0.5 if v.dim() > 1 else 0.2) for k, v in block.state_dict().items()}
        parameters = own_names(draws)
        x, weight = (torch.randn(2, 7, 12, generator=rng) for _ in range(2))
        mask = torch.tensor([[1] * 7, [0] * 2 + [1] * 5])

        def mix(parameters, x, block=block):
            return torch.func.functional_call(block, class_names(parameters), (x,))

        def forward(parameters, feeds, mix=mix):
            return {"mixed": mix(parameters, feeds["x"])}

        def loss(parameters, feeds, mix=mix):
            return (mix(parameters, feeds["x"]) * feeds["weight"]).mean()

        def balanced(parameters, feeds, loss=loss):
            logits = feeds["x"].reshape(-1, 12) @ parameters["mlp.gate.weight"].T
            balance = qwen3_moe.load_balancing_loss_func((logits,), 8, 3, feeds["attention_mask"])
            return loss(parameters, feeds) + 0.5 * balance

        yield name, "experts", settings, parameters, {"x": x}, forward, None
        yield f"{name}_train", "experts", settings, parameters, {"x": x, "weight": weight}, None, loss
        if name == "qwen3_moe":
            feeds = {"x": x, "weight": weight, "attention_mask": mask}
            yield f"{name}_balanced_train", "experts", settings | {"BALANCE": 0.5}, parameters, feeds, None, balanced


# ---------------------------------------------------------------- cases


def generator(name):
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def wide(tensors):
    return {name: t.double() if t.is_floating_point() else t for name, t in tensors.items()}


def compute(parameters, feeds, forward, loss):
    """What the case's results are, rounded once."""
    parameters, feeds = wide(parameters), wide(feeds)
    with in_f64():
        if forward:
            with torch.no_grad():
                return {name: value.to(torch.float64) for name, value in forward(parameters, feeds).items()}
        losses, first = [], None
        for _ in range(STEPS):
            parameters = {name: p.detach().requires_grad_(not name.endswith("bias")) for name, p in parameters.items()}
            value = loss(parameters, feeds)
            trained = {name: p for name, p in parameters.items() if p.requires_grad}
            grads = dict(zip(trained, torch.autograd.grad(value, list(trained.values()))))
            losses.append(value.detach())
            first = first or grads
            parameters = {name: p.detach() - 0.1 * grads.get(name, 0) for name, p in parameters.items()}
    expected = {"loss": torch.stack(losses)}
    expected |= {f"grad/{name}": g for name, g in first.items()}
    expected |= {f"param/{name}": p for name, p in parameters.items()}
    return expected | {f"norm64/{name}": g.norm() for name, g in first.items()}


def main(names):
    torch.set_num_threads(1)
    for name, model, settings, parameters, feeds, forward, loss in (*ropes(), *mixtures()):
        if names and not any(n in name for n in names):
            continue
        expected = {k: v.detach().double().to(torch.float32) for k, v in compute(parameters, feeds, forward, loss).items()}
        folder = HERE / name
        folder.mkdir(parents=True, exist_ok=True)
        case = dict(model=f"{MODELS}/{model}.mm", preset=None, set=settings, task="forward" if forward else "train", batch=2, dtype="f32")
        if loss:
            case |= dict(optim=SGD, steps=STEPS)
        (folder / "case.json").write_text(json.dumps(case) + "\n")
        for part, tensors in (("weights", parameters), ("inputs", feeds), ("expected", expected)):
            save_file({k: v.contiguous().clone() for k, v in tensors.items()}, folder / f"{part}.safetensors")
        print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
