#!/usr/bin/env python3
"""Writes what `save_pretrained` of transformers and diffusers writes for small models, without the weights themselves:
pretrained/<case>/ has the texts, and listing.json the header of each safetensors file.

    python tests/goldens/pretrained.py
"""
import json
import pathlib
import shutil
import struct
import tempfile

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, UMT5Config, UMT5EncoderModel

HERE = pathlib.Path(__file__).resolve().parent / "pretrained"


def header(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length))


def keep(name, folder):
    """The texts of a saved folder, and the headers of its tensors."""
    case = HERE / name
    shutil.rmtree(case, ignore_errors=True)
    listing = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        inside = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            tensors = header(path)
            listing[inside] = {
                "metadata": tensors.pop("__metadata__", None),
                "tensors": {name: [info["dtype"], info["shape"]] for name, info in sorted(tensors.items())},
            }
            continue
        (case / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, case / inside)
    (case / "listing.json").write_text(json.dumps(listing, indent=1) + "\n")


def tokenizer(folder):
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "a": 2, "b": 3}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<pad>").save_pretrained(folder)


WAN = dict(
    num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=10, freq_dim=16, ffn_dim=40, num_layers=1,
    rope_max_seq_len=64,
)


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=61, hidden_size=44, intermediate_size=56, num_hidden_layers=1, num_attention_heads=3, num_key_value_heads=1,
                head_dim=12, tie_word_embeddings=True,
            )
        ).save_pretrained(folder / "qwen3")
        tokenizer(folder / "qwen3")
        keep("qwen3", folder / "qwen3")
        WanTransformer3DModel(**WAN).save_pretrained(folder / "wan")
        keep("wan", folder / "wan")
        tokenizer(folder / "words")
        WanPipeline(
            tokenizer=AutoTokenizer.from_pretrained(folder / "words"),
            text_encoder=UMT5EncoderModel(UMT5Config(vocab_size=8, d_model=10, d_kv=4, d_ff=12, num_layers=1, num_heads=2)),
            vae=AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1], num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4, temperal_downsample=[]),
            transformer=WanTransformer3DModel(**WAN),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        ).save_pretrained(folder / "pipeline")
        keep("pipeline", folder / "pipeline")


if __name__ == "__main__":
    main()
