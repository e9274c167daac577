"""The tiny model's shape: Qwen2.5-VL's architecture, patch 14 and merge 2 as in the real one, 2.3 M parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from demo.training.tokenizer import END_OF_TEXT, IM_END, IMAGE_PAD, VISION_END, VISION_START

HIDDEN = 192
LAYERS = 4
HEADS = 6  # of 32: an integer number of the rotary sections below
INTERMEDIATE = 512
VISION_HIDDEN = 64
VISION_DEPTH = 2


def save_configs(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes config.json, generation_config.json and preprocessor_config.json."""
    for name, content in (
        ("config.json", model_config(tokenizer)),
        ("generation_config.json", _generation_config(tokenizer)),
        ("preprocessor_config.json", _preprocessor_config()),
    ):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def model_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """The configuration as Qwen2.5-VL's own config.json lays it out."""
    vocabulary = -(-tokenizer.get_vocab_size() // 64) * 64
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "transformers_version": "4.41.2",  # absent, vLLM warns about a tokenizer that is not there
        "torch_dtype": "bfloat16",
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-6,
        "use_cache": True,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "sliding_window": 32768,
        "max_window_layers": LAYERS,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id(END_OF_TEXT),
        "pad_token_id": tokenizer.token_to_id(END_OF_TEXT),
        "eos_token_id": tokenizer.token_to_id(IM_END),
        "vision_start_token_id": tokenizer.token_to_id(VISION_START),
        "vision_end_token_id": tokenizer.token_to_id(VISION_END),
        "vision_token_id": tokenizer.token_to_id("<|vision_pad|>"),
        "image_token_id": tokenizer.token_to_id(IMAGE_PAD),
        "video_token_id": tokenizer.token_to_id("<|video_pad|>"),
        "vision_config": _vision_config(),
    }


def _vision_config() -> dict[str, Any]:
    return {
        "model_type": "qwen2_5_vl",
        "depth": VISION_DEPTH,
        "hidden_act": "silu",
        "hidden_size": VISION_HIDDEN,
        "intermediate_size": 2 * VISION_HIDDEN,
        "num_heads": 2,
        "in_chans": 3,
        "in_channels": 3,
        "out_hidden_size": HIDDEN,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [VISION_DEPTH - 1],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    }


def _generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    end_of_text, im_end = tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id(IM_END)
    return {
        "bos_token_id": end_of_text,
        "pad_token_id": end_of_text,
        "eos_token_id": [im_end, end_of_text],
        "do_sample": False,
    }


def _preprocessor_config() -> dict[str, Any]:
    """Qwen2.5-VL's, but from 28x28 pixels on: a frame of the smallest size is one token."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": 784,
        "max_pixels": 12845056,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
