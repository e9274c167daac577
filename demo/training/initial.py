"""A head start for the language model, so that minutes on a CPU are enough: where it begins, not what it ends as.

The agent's replies are copies: of a time, an option, a letter. Copying needs to know which token stands before which,
and which tokens mean the same; a small model spends most of its training on finding these two things out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from demo.questions import LETTERS
from demo.scenes import MAX_DURATION_S
from demo.training.tokenizer import spellings

LOOK_BACK = (1, 1, 2, 3)  # tokens, by head; the other heads start as usual
STRENGTH = 6.0


def head_start(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Changes a freshly initialised Qwen2.5-VL in place; training may undo any of it."""
    look_back(model.model.language_model)
    seconds = [spellings(second) for second in range(MAX_DURATION_S + 1)]
    marks = [(f"\n{letter}.", letter) for letter in LETTERS]
    for group in (seconds, marks):
        ids = torch.tensor([tokenizer.convert_tokens_to_ids(_names(tokenizer, row)) for row in group])
        share_meaning(model.get_input_embeddings().weight, ids)


def _names(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[str]:
    return [token for text in texts for token in tokenizer.tokenize(text)]


@torch.no_grad()
def look_back(language: Any) -> None:
    """Makes the first heads of the first layer look 1, 2 or 3 tokens back.

    Qwen2.5's queries and keys have biases, and rotary positions turn two constant vectors into a score that depends
    on the distance alone: with the key's bias turned by k positions, it peaks at distance k.
    """
    attention = language.layers[0].self_attn
    frequencies = language.rotary_emb.inv_freq
    half = len(frequencies)
    for head, distance in enumerate(LOOK_BACK):
        begin = 2 * half * head
        turned = frequencies * distance
        attention.q_proj.bias[begin : begin + half] = STRENGTH
        attention.k_proj.bias[begin : begin + half] = STRENGTH * torch.cos(turned)
        attention.k_proj.bias[begin + half : begin + 2 * half] = STRENGTH * torch.sin(turned)


@torch.no_grad()
def share_meaning(embedding: torch.Tensor, ids: torch.Tensor) -> None:
    """Rows of `ids` (meanings, forms) mean the same: their embeddings become a part for the row, one for the column."""
    scale, width = embedding[ids].std() / 2**0.5, embedding.shape[1]
    meanings, forms = torch.randn(ids.shape[0], 1, width), torch.randn(1, ids.shape[1], width)
    embedding[ids] = ((meanings + forms) * scale).to(embedding)
