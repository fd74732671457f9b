#!/usr/bin/env python3
"""Opens what `mmrun --save` wrote with `from_pretrained` of transformers and diffusers, with no argument, and compares
what the classes compute with what mmrun does.

    python scripts/pretrained_oracle.py [BIN]      BIN is the folder of mmc and mmrun (target/release)

Needs torch, transformers and diffusers (tests/goldens/requirements.txt); `make oracle` runs it where MMC_PYTHON has them.
"""
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, UMT5Config, UMT5EncoderModel

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/release").resolve()
TOLERANCE = 2e-5
TOKENS = 9


def run(program, *words, where):
    command = [str(BIN / program), *map(str, words)]
    done = subprocess.run(command, cwd=where, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def train(where, model, flags, steps=2):
    """Trains a published folder, or a preset from its initialisers; gives the checkpoint."""
    sizes = [word for word in flags if word.startswith("compile:")]
    saves = [word for word in flags if not word.startswith("compile:")]
    sizes = [part for word in sizes for part in word.removeprefix("compile:").split()]
    run("mmc", "compile", *model, "--batch", 2, "--optim", "lr=1e-3", *sizes, "-o", "train.bin", where=where)
    weights = ["--weights", model[0]] if len(model) == 1 else []
    run("mmrun", "train.bin", *weights, "--steps", steps, "--save", "saved", "--save-over", *saves, where=where)
    return where / f"saved/step-{steps:06}"


def forward(where, folder, sizes, inputs, output, weights=None):
    """What mmrun computes of a saved folder, of which mmc takes the sizes."""
    save_file(inputs, where / "in.safetensors")
    run("mmc", "compile", folder, "--task", "forward", "--batch", 2, *sizes, "-o", "forward.bin", where=where)
    run("mmrun", "forward.bin", "--weights", weights or folder, "--inputs", "in.safetensors", "--outputs", "out.safetensors", where=where)
    return load_file(where / "out.safetensors")[output]


def opened(cls, folder):
    model, about = cls.from_pretrained(folder, output_loading_info=True)
    wrong = {kind: list(names) for kind, names in about.items() if names}
    assert not wrong, f"{folder}: {wrong}"
    return model.eval()


def compare(name, theirs, ours):
    error = ((theirs - ours).abs().max() / theirs.abs().max()).item()
    print(f"{name}: {error:.1e}")
    assert error < TOLERANCE, f"{name}: the class and mmrun differ by {error}"


def tokenizer(folder, cls=PreTrainedTokenizerFast):
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "a": 2, "b": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    cls(tokenizer_object=words, unk_token="<unk>", pad_token="<pad>").save_pretrained(folder)


# ---------------------------------------------------------------- cases


def qwen3(where, flags, **figures):
    """Sizes that do not divide, three queries for a key."""
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=61, hidden_size=44, intermediate_size=56, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
        head_dim=12, rope_parameters={"rope_type": "default", "rope_theta": 5e5}, rms_norm_eps=1e-5, **figures,
    )
    published = where / "published"
    Qwen3ForCausalLM(config).save_pretrained(published)
    GenerationConfig(eos_token_id=7).save_pretrained(published)
    tokenizer(published)
    step = train(where, [published], [f"compile:--set S={TOKENS}", *flags])
    model = opened(Qwen3ForCausalLM, step)
    assert model.generation_config.eos_token_id == 7
    assert AutoTokenizer.from_pretrained(step)("a b")["input_ids"] == [2, 3]
    return step, model


def qwen3_case(where, name, flags, **figures):
    step, model = qwen3(where, flags, **figures)
    ids = torch.randint(0, 61, (2, TOKENS))
    with torch.no_grad():
        theirs = model(ids).logits
    compare(name, theirs, forward(where, step, ["--set", f"S={TOKENS}"], {"input_ids": ids}, "logits"))


def qwen3_rounded(where, dtype, torch_dtype):
    """The model is rounded, and what the run goes on from is not."""
    step, model = qwen3(where, ["--save-dtype", dtype])
    assert model.dtype == torch_dtype, model.dtype
    masters = load_file(step / "state/parameters.safetensors")
    rounded = model.state_dict()
    assert masters.keys() == load_file(step / "model.safetensors").keys()
    assert all(torch.equal(rounded[name], value.to(torch_dtype)) for name, value in masters.items())
    assert any(not torch.equal(value.to(torch_dtype).float(), value) for value in masters.values())
    # Broken off and resumed, the run is the unbroken one.
    run("mmrun", "train.bin", "--resume", "saved", "--save", "saved", "--save-dtype", dtype, "--until", 4, where=where)
    run("mmrun", "train.bin", "--weights", "published", "--steps", 4, "--save", "unbroken", where=where)
    unbroken = load_file(where / "unbroken/step-000004/model.safetensors")
    resumed = load_file(where / "saved/step-000004/state/parameters.safetensors")
    assert all(torch.equal(unbroken[name], value) for name, value in resumed.items()) and unbroken.keys() == resumed.keys()
    print(f"qwen3 saved as {dtype}: rounded once, resumed to the bit")


WAN_SIZES = ["--set", "F=2", "--set", "H=4", "--set", "W=6", "--set", "S=7"]
WAN = dict(
    patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=10, freq_dim=16,
    ffn_dim=40, num_layers=2, cross_attn_norm=True, qk_norm="rms_norm_across_heads", eps=1e-6, rope_max_seq_len=64,
)


def wan_inputs():
    return {"hidden_states": torch.randn(2, 4, 2, 4, 6), "timestep": torch.tensor([3.0, 801.0]), "encoder_hidden_states": torch.randn(2, 7, 10)}


def wan_case(where, name, step, model, folder=None):
    inputs = wan_inputs()
    with torch.no_grad():
        theirs = model(**inputs, return_dict=False)[0]
    compare(name, theirs, forward(where, step, WAN_SIZES, inputs, "sample", folder))


def wan(where):
    torch.manual_seed(2)
    published = where / "published"
    WanTransformer3DModel(**WAN).save_pretrained(published)
    step = train(where, [published], [f"compile:{' '.join(WAN_SIZES)}"])
    wan_case(where, "wan", step, opened(WanTransformer3DModel, step))


def wan_pipeline(where):
    """A whole pipeline, of which the transformer was trained."""
    torch.manual_seed(3)
    published = where / "pipeline"
    text = UMT5EncoderModel(UMT5Config(vocab_size=8, d_model=10, d_kv=4, d_ff=12, num_layers=1, num_heads=2))
    vae = AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False], latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    tokenizer(where / "tokenizer")
    words = AutoTokenizer.from_pretrained(where / "tokenizer")
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    WanPipeline(tokenizer=words, text_encoder=text, vae=vae, transformer=WanTransformer3DModel(**WAN), scheduler=scheduler).save_pretrained(published)
    step = train(where, [published], [f"compile:{' '.join(WAN_SIZES)}"])
    pipeline = WanPipeline.from_pretrained(step)
    assert pipeline.scheduler.config.shift == 3.0 and pipeline.vae.config.z_dim == 4
    assert torch.equal(pipeline.text_encoder.state_dict()["shared.weight"], text.state_dict()["shared.weight"])
    assert torch.is_tensor(pipeline.tokenizer("a", return_tensors="pt")["input_ids"])
    wan_case(where, "wan, in its pipeline", step, pipeline.transformer.eval())


def presets(where):
    """Without weights the config has the plan's figures."""
    step = train(where, ["qwen3.mm", "--preset", "tiny"], [])
    ids = torch.randint(0, 128, (2, 16))
    with torch.no_grad():
        theirs = opened(Qwen3ForCausalLM, step)(ids).logits
    compare("qwen3 of a preset", theirs, forward(where, step, ["--set", "S=16"], {"input_ids": ids}, "logits"))
    dims = dict(IMAGE=14, IMAGE_TOKENS=5, IN=4, OUT=4, S=512, TEXT=10, F=2, H=4, W=6)
    sets = [word for name, size in dims.items() for word in ("--set", f"{name}={size}")]
    step = train(where, ["wan2.2.mm", "--preset", "tiny", *sets], [])
    model = opened(WanTransformer3DModel, step)
    inputs = wan_inputs() | {"encoder_hidden_states": torch.randn(2, 512, 10), "encoder_hidden_states_image": torch.randn(2, 5, 14)}
    with torch.no_grad():
        theirs = model(**inputs, return_dict=False)[0]
    sets = [word for name in ("IMAGE_TOKENS", "S", "F", "H", "W") for word in ("--set", f"{name}={dims[name]}")]
    compare("wan of a preset, with a picture", theirs, forward(where, step, sets, inputs, "sample"))


def main():
    cases = [
        lambda where: qwen3_case(where, "qwen3 tied", [], tie_word_embeddings=True),
        lambda where: qwen3_case(where, "qwen3 untied", ["compile:--fsdp 2"], tie_word_embeddings=False),
        lambda where: qwen3_rounded(where, "bf16", torch.bfloat16),
        lambda where: qwen3_rounded(where, "f16", torch.float16),
        wan,
        wan_pipeline,
        presets,
    ]
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            case(pathlib.Path(folder))


if __name__ == "__main__":
    main()
