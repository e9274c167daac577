"""Episodes as training tensors: token ids, three-axis positions, loss weights, and the places of the frames."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from demo.training.episodes import Episode
from demo.training.sight import Memory
from demo.training.tokenizer import BRANCH_MARKS, IM_END, IM_START, IMAGE_PAD, OPTION_MARKS

# The agent's own words count in full, the choice between the next line and the end twice. A little weight on the
# tool's text trains copying: the question stands in it for the second time.
REPLY_WEIGHT, STOP_WEIGHT, TOOL_WEIGHT = 1.0, 2.0, 0.2


@dataclass(frozen=True)
class Sample:
    """One episode: `positions` are Qwen2.5-VL's (time, row, column) per token, `weights` those of predicting it."""

    ids: list[int]
    positions: list[tuple[int, int, int]]
    weights: list[float]
    turns: list[int]  # which reply a token belongs to, -1 for what the harness says
    features: list[torch.Tensor]


class Encoder:
    """Turns episodes into samples with the model's own chat template and tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, memory: Memory) -> None:
        self._tokenizer = tokenizer
        self._memory = memory
        self._image = tokenizer.convert_tokens_to_ids(IMAGE_PAD)
        self._start = tokenizer.convert_tokens_to_ids(IM_START)
        self._end = tokenizer.convert_tokens_to_ids(IM_END)
        self._assistant = tokenizer.encode("assistant")[0]
        self._tool = tokenizer.encode("tool")[0]
        marks = (*OPTION_MARKS, ". <answer>", *BRANCH_MARKS, "Ċ")
        self._stops = {tokenizer.convert_tokens_to_ids(mark) for mark in marks}
        self.pad = tokenizer.pad_token_id

    def encode(self, episode: Episode, rng: random.Random, *, held_out: bool) -> Sample:
        """Tokenises, widens each image to its tokens, and weighs."""
        text = self._tokenizer.apply_chat_template(episode.messages, tokenize=False)
        features = [self._memory.recall(shown, rng.random(), held_out=held_out) for shown in episode.frames]
        ids, positions = self._widen(self._tokenizer.encode(text), [(s.rows, s.columns) for s in episode.frames])
        weights, turns = self._weigh(ids)
        return Sample(ids, positions, weights, turns, features)

    def _widen(
        self, narrow: Sequence[int], grids: Sequence[tuple[int, int]]
    ) -> tuple[list[int], list[tuple[int, int, int]]]:
        ids: list[int] = []
        positions: list[tuple[int, int, int]] = []
        remaining, position = iter(grids), 0
        for token in narrow:
            rows, columns = next(remaining) if token == self._image else (1, 1)
            ids += [token] * (rows * columns)
            positions += [(position, position + y, position + x) for y in range(rows) for x in range(columns)]
            position += max(rows, columns)
        return ids, [(t, y, x) if i == self._image else (t, t, t) for i, (t, y, x) in zip(ids, positions, strict=True)]

    def _weigh(self, ids: Sequence[int]) -> tuple[list[float], list[int]]:
        """A message runs from <|im_start|>; its role and the newline after it are nobody's prediction."""
        weights, turns = [0.0] * len(ids), [-1] * len(ids)
        reply, body, role = -1, 0, 0
        for i, token in enumerate(ids):
            if token == self._start:
                role, body = ids[i + 1], i + 3
                reply += role == self._assistant
            if i < body or role not in (self._assistant, self._tool):
                continue
            if role == self._assistant:
                weights[i] = STOP_WEIGHT if token in self._stops else REPLY_WEIGHT
                turns[i] = reply
            elif token != self._image:
                weights[i] = TOOL_WEIGHT
            if token == self._end:
                role = 0
        return weights, turns


@dataclass(frozen=True)
class Batch:
    """Right-padded samples: ids and weights (n, length), positions (3, n, length), features (image tokens, hidden)."""

    ids: torch.Tensor
    positions: torch.Tensor
    weights: torch.Tensor
    turns: torch.Tensor
    features: torch.Tensor | None


def collate(samples: Sequence[Sample], *, pad: int, device: torch.device) -> Batch:
    """Pads to the longest; padding weighs nothing, and stands behind everything under a causal mask."""
    count, length = len(samples), max(len(sample.ids) for sample in samples)
    ids = torch.full((count, length), pad)
    weights, turns = torch.zeros(count, length), torch.full((count, length), -1)
    positions = torch.zeros(3, count, length, dtype=torch.long)
    for i, sample in enumerate(samples):
        end = len(sample.ids)
        ids[i, :end] = torch.tensor(sample.ids)
        weights[i, :end] = torch.tensor(sample.weights)
        turns[i, :end] = torch.tensor(sample.turns)
        positions[:, i, :end] = torch.tensor(sample.positions).T
    features = [feature for sample in samples for feature in sample.features]
    images = torch.cat(features).to(device) if features else None
    return Batch(ids.to(device), positions.to(device), weights.to(device), turns.to(device), images)


def pack(samples: Sequence[Sample], *, tokens: int) -> list[list[Sample]]:
    """Groups samples of like length so that each padded group stays within `tokens`."""
    groups: list[list[Sample]] = []
    for sample in sorted(samples, key=lambda sample: len(sample.ids)):
        if not groups or (len(groups[-1]) + 1) * len(sample.ids) > tokens:
            groups.append([])
        groups[-1].append(sample)
    return groups
