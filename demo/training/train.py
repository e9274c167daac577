"""Trains the tiny agent model: first in EVA's form, then, with --start, in all forms (demo/README.md has the times)."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from demo.questions import KINDS
from demo.training.architecture import save_configs
from demo.training.batches import Batch, Encoder, Sample, collate, pack
from demo.training.episodes import MOST_GIVEN, Episode, blind, drill_frames, drill_times, given, play
from demo.training.forms import EVA, HERMES
from demo.training.initial import head_start
from demo.training.muon import Muon
from demo.training.sight import NAMES, Memory, make_album, train_sight
from demo.training.tokenizer import build_tokenizer, save_tokenizer

MUON_LR, ADAM_LR = 0.02, 3e-3
WARM_UP_STEPS = 40
DECAY_SHARE = 0.6
GO_ON_RATE = 0.5  # of these rates, for a model that is trained already
HELD_OUT: Mapping[str, Callable[[random.Random], Episode]] = {
    "one-look": lambda rng: play(rng, "one-look", held_out=True),
    "two-looks": lambda rng: play(rng, "two-looks", held_out=True),
    "one-look, hermes": lambda rng: play(rng, "one-look", held_out=True, form=HERMES),
    "two-looks, hermes": lambda rng: play(rng, "two-looks", held_out=True, form=HERMES),
    "one frame given": lambda rng: given(rng, rng.choice(KINDS), held_out=True, count=1),
    "frames given": lambda rng: given(rng, rng.choice(KINDS), held_out=True, count=rng.randint(2, MOST_GIVEN)),
    "blind": lambda rng: blind(rng, rng.choice(KINDS), held_out=True),
}


def main() -> int:
    """Tokenizer and configs, then sight, then play."""
    args = parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    save_tokenizer(build_tokenizer(), args.out)
    save_configs(build_tokenizer(), args.out)
    device = torch.device(args.device)
    config = AutoConfig.from_pretrained(args.out)
    model = Qwen2_5_VLForConditionalGeneration(config).float().to(device)
    tokenizer = AutoTokenizer.from_pretrained(args.out)
    if args.start:
        load(model, args.start)
    else:
        head_start(model, tokenizer)
    memory = open_eyes(model, args)
    Trainer(model, Encoder(tokenizer, memory), args).run()
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--start", type=Path, help="folder of a model to go on from, in all forms instead of EVA's")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--sight-steps", type=int, default=400)
    parser.add_argument("--tokens", type=int, default=3000, help="tokens in a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--every", type=int, default=200, help="steps between two evaluations, each saves the model")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def open_eyes(model: Any, args: argparse.Namespace) -> Memory:
    """Trains the vision tower, unless it is a trained one, and freezes it; gives its view of the album's frames."""
    began_s = time.monotonic()
    album = make_album(AutoImageProcessor.from_pretrained(args.out), seed=args.seed)
    filmed_s = time.monotonic() - began_s
    tokenizer = AutoTokenizer.from_pretrained(args.out)
    words = torch.tensor([tokenizer.encode(f" {name}") for name in NAMES], device=args.device)[:, 0]
    targets = model.get_input_embeddings().weight[words].detach()
    steps = 0 if args.start else args.sight_steps
    accuracy = train_sight(model, album, targets, steps=steps, seed=args.seed)
    model.model.visual.requires_grad_(False)
    report(stage="sight", accuracy=accuracy, filmed_s=filmed_s, seconds=time.monotonic() - began_s)
    return Memory(model, album, torch.device(args.device))


def load(model: Any, folder: Path) -> None:
    """Takes over the weights of a saved model."""
    missing, unexpected = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:  # tied to the embeddings
        raise SystemExit(f"{folder} is not a model of this shape: {missing=} {unexpected=}")


class Trainer:
    """The language model's training: a stream of mixed episodes, one step a batch."""

    def __init__(self, model: Any, encoder: Encoder, args: argparse.Namespace) -> None:
        self.model, self.encoder, self.args = model, encoder, args
        self.device = torch.device(args.device)
        self.language = model.model.language_model
        ALL_ATTENTION_FUNCTIONS["float32_causal"] = float32_causal
        self.language.config._attn_implementation = "float32_causal"
        hidden = [p for name, p in self.language.named_parameters() if p.ndim == 2 and "embed" not in name]
        matrices = {id(p) for p in hidden}
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in matrices]
        self.muon = Muon(hidden, lr=MUON_LR)
        self.adam = torch.optim.AdamW(others, lr=ADAM_LR, betas=(0.9, 0.97), weight_decay=0.0)
        self.others = others
        self.rate = GO_ON_RATE if args.start else 1.0
        self.held_out = {name: held_out_samples(encoder, name, draw) for name, draw in HELD_OUT.items()}

    def run(self) -> None:
        """All steps; every now and then a measurement and the model as it is."""
        began_s, losses = time.monotonic(), []
        stream = self.batches(random.Random(self.args.seed))
        for step in range(1, self.args.steps + 1):
            losses.append(self.step(next(stream), share_done=step / self.args.steps, step=step))
            if step % self.args.every == 0 or step == self.args.steps:
                seconds, loss = time.monotonic() - began_s, sum(losses) / len(losses)
                report(step=step, seconds=seconds, loss=loss, **self.evaluate())
                save(self.model, self.args.out)
                losses = []

    def batches(self, rng: random.Random) -> Iterator[Batch]:
        """Drills first, then more and more whole episodes."""
        step = 0
        while True:
            pool = [self.draw(rng, min(1.0, step / self.args.steps)) for _ in range(160)]
            groups = pack(pool, tokens=self.args.tokens)
            rng.shuffle(groups)
            for group in groups:
                yield collate(group, pad=self.encoder.pad, device=self.device)
            step += len(groups)

    def draw(self, rng: random.Random, share_done: float) -> Sample:
        episode = draw_any_form(rng) if self.args.start else draw_episode(rng, share_done)
        return self.encoder.encode(episode, rng, held_out=False)

    def step(self, batch: Batch, *, share_done: float, step: int) -> float:
        """One update; gives the weighted loss."""
        rate = self.rate * min(1.0, step / WARM_UP_STEPS) * min(1.0, max(0.01, (1 - share_done) / DECAY_SHARE))
        self.muon.lr = MUON_LR * rate
        for group in self.adam.param_groups:
            group["lr"] = ADAM_LR * rate
        weights = batch.weights[:, 1:]
        logits = self.logits(batch, weights > 0)
        chosen, wanted = weights[weights > 0], batch.ids[:, 1:][weights > 0]
        loss = (F.cross_entropy(logits, wanted, reduction="none") * chosen).sum() / chosen.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.others, 1.0)
        self.muon.step()
        self.adam.step()
        self.model.zero_grad(set_to_none=True)
        return loss.item()

    def logits(self, batch: Batch, where: torch.Tensor) -> torch.Tensor:
        """Scores of the next token at the places `where` (n, length - 1) marks: (places, vocabulary)."""
        embedding = self.model.get_input_embeddings()
        inputs = embedding(batch.ids)
        if batch.features is not None:
            images = batch.ids == self.model.config.image_token_id
            inputs = inputs.masked_scatter(images[..., None], batch.features.to(inputs.dtype))
        with torch.autocast(self.device.type, torch.bfloat16):
            hidden = self.language(
                inputs_embeds=inputs, position_ids=batch.positions, attention_mask=None, use_cache=False
            ).last_hidden_state
            return (hidden[:, :-1][where] @ embedding.weight.T).float()

    @torch.no_grad()
    def evaluate(self) -> dict[str, list[float]]:
        """By HELD_OUT's names: the share of episodes whose reply 1, 2, ... is right to the byte, given those before."""
        return {name: self.replies_right(samples) for name, samples in self.held_out.items()}

    def replies_right(self, samples: list[Sample]) -> list[float]:
        batch = collate(samples, pad=self.encoder.pad, device=self.device)
        turns = batch.turns[:, 1:]
        hit = torch.ones_like(turns, dtype=torch.bool)
        hit[turns >= 0] = self.logits(batch, turns >= 0).argmax(-1) == batch.ids[:, 1:][turns >= 0]
        last = int(turns.max())
        return [round((hit | (turns != turn)).all(1).float().mean().item(), 3) for turn in range(last + 1)]


def held_out_samples(
    encoder: Encoder, name: str, draw: Callable[[random.Random], Episode], *, count: int = 64
) -> list[Sample]:
    rng = random.Random(f"held out, {name}")
    return [encoder.encode(draw(rng), rng, held_out=True) for _ in range(count)]


def draw_episode(rng: random.Random, share_done: float) -> Episode:
    """One episode for the training; `share_done` in [0, 1] moves from drills to whole episodes."""
    choice, drills = rng.random(), max(0.1, 0.8 - share_done)
    if choice < 0.2 * drills:
        return drill_times(rng)
    kind = rng.choices(KINDS, (1, 2))[0]
    return drill_frames(rng, kind) if choice < drills else play(rng, kind, held_out=False)


def draw_any_form(rng: random.Random) -> Episode:
    """One episode for the training of a model that knows EVA's form: all forms, whole episodes and some drills."""
    share, kind = rng.random(), rng.choices(KINDS, (1, 2))[0]
    if share < 0.2:
        count = rng.choice((1, 1, *range(2, MOST_GIVEN + 1)))
        return given(rng, rng.choice(KINDS), held_out=False, count=count)
    if share < 0.23:
        return blind(rng, kind, held_out=False)
    form = EVA if share < 0.6 else HERMES
    drill = rng.random()
    if drill < 0.05:
        return drill_times(rng, form)
    return drill_frames(rng, kind, form) if drill < 0.2 else play(rng, kind, held_out=False, form=form)


def float32_causal(  # noqa: PLR0917  the signature that transformers asks for
    module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float | None = None, **_: Any
) -> tuple[torch.Tensor, None]:
    """Causal attention in float32: on a CPU the backward pass in bfloat16 takes 3.5 times as long."""
    with torch.autocast(query.device.type, enabled=False):
        out = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), is_causal=True, scale=scaling)
    return out.transpose(1, 2).contiguous(), None


def save(model: Any, folder: Path) -> None:
    """Writes model.safetensors in bfloat16; the configs that stand in the folder stay as they are."""
    state = {name: tensor.to(torch.bfloat16).contiguous().cpu() for name, tensor in model.state_dict().items()}
    state.pop("lm_head.weight", None)  # tied to the embeddings
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # save_file leaves it to its owner alone


def report(**values: Any) -> None:
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()}
    print(json.dumps(rounded), flush=True)


if __name__ == "__main__":
    sys.exit(main())
