#!/usr/bin/env python3
"""Writes composites/<case>/: a small folder of a class that has a language model as a part, as `save_pretrained` of
transformers writes it, and what that part computes (expected.safetensors).

    python tests/goldens/composites.py
"""
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import Qwen2_5OmniConfig, Qwen2_5OmniForConditionalGeneration, Qwen3VLConfig, Qwen3VLForConditionalGeneration

HERE = pathlib.Path(__file__).resolve().parent / "composites"
TEXT = dict(vocab_size=50, hidden_size=24, intermediate_size=28, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, rms_norm_eps=1e-5)


def omni():
    thinker = dict(
        text_config=dict(TEXT, rope_parameters=dict(rope_theta=5000.0, rope_type="default", mrope_section=[1, 1, 0])),
        vision_config=dict(depth=1, hidden_size=8, intermediate_size=8, num_heads=2, out_hidden_size=24, patch_size=2, spatial_patch_size=2, fullatt_block_indexes=[0]),
        audio_config=dict(d_model=8, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=8, num_mel_bins=4, output_dim=24, n_window=4, max_source_positions=20),
    )
    talker = dict(vocab_size=30, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=4, embedding_size=24)
    talker["rope_parameters"] = dict(rope_theta=5000.0, rope_type="default", mrope_section=[1, 1, 0])
    voice = dict(
        dit_config=dict(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, ff_mult=1, emb_dim=4, head_dim=4, num_embeds=30, mel_dim=4, enc_emb_dim=4, enc_dim=4,
            enc_channels=[4, 4], enc_kernel_sizes=[3, 3], enc_dilations=[1, 1], enc_attention_channels=2, enc_res2net_scale=2, enc_se_channels=2,
        ),
        bigvgan_config=dict(mel_dim=4, upsample_initial_channel=4, resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3, 5]], upsample_rates=[2], upsample_kernel_sizes=[4]),
    )
    model = Qwen2_5OmniForConditionalGeneration(Qwen2_5OmniConfig(thinker_config=thinker, talker_config=talker, token2wav_config=voice, enable_audio_output=True))
    return model, model.thinker, "thinker."


def vl():
    text = dict(TEXT, head_dim=8, rope_parameters=dict(rope_theta=5000.0, rope_type="default", mrope_section=[2, 1, 1], mrope_interleaved=True))
    vision = dict(depth=1, hidden_size=8, intermediate_size=8, num_heads=2, out_hidden_size=24, patch_size=2, num_position_embeddings=4, deepstack_visual_indexes=[0])
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False))
    return model, model, ""


def main():
    for name, make in [("omni", omni), ("vl", vl)]:
        torch.manual_seed(0)
        model, part, prefix = make()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.1 + (parameter.dim() == 1))
        case = HERE / name
        shutil.rmtree(case, ignore_errors=True)
        model.save_pretrained(case)
        for path in case.iterdir():
            if path.name not in ("config.json", "model.safetensors"):
                path.unlink()
        ids = torch.randint(0, TEXT["vocab_size"], (2, 7))
        out = part(input_ids=ids, labels=ids, use_cache=False)
        out.loss.backward()
        tensors = {"input_ids": ids, "labels": ids.clone(), "logits": out.logits.detach(), "loss": out.loss.detach()}
        wanted = {"model.layers.0.self_attn.k_proj.weight", "lm_head.weight", "model.norm.weight"}
        for path, parameter in part.named_parameters():
            ours = path.replace("model.language_model.", "model.")
            if ours in wanted:
                tensors[f"grad/{ours}"] = parameter.grad.clone()
        assert len(tensors) == 7, tensors.keys()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, case / "expected.safetensors")


main()
