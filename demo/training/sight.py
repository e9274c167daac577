"""The tiny model's eyes: frames as the agent will get them, and the training of the vision tower on them.

The frames go the whole way: painted, encoded as H.264, decoded, resized by OpenCV's bicubic, normalised by the
processor. The tower learns to turn every 28 x 28 pixels into the embedding of the colour's word; it is then frozen,
and the language model trains on its cached outputs.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from demo.scenes import COLOURS, SIZES, paint
from demo.training.episodes import GIVEN_GRIDS, Shown, token_grid
from demo.video_writer import write_pictures

VARIANTS = 12  # of each colour at each video size
HELD_OUT_VARIANTS = 3
NAMES = list(COLOURS)
Grid = tuple[int, int]


@dataclass(frozen=True)
class Album:
    """Frames by grid (rows, columns in tokens): patches of shape (colours, variants, 4 * rows * columns, 1176)."""

    patches: dict[Grid, torch.Tensor]


def make_album(image_processor: Any, *, seed: int) -> Album:
    """Encodes, decodes, resizes and normalises VARIANTS frames of every colour at every video size."""
    rng = np.random.default_rng(seed)
    by_grid: dict[Grid, list[torch.Tensor]] = {}
    for width, height in SIZES:
        film = _film(rng, width=width, height=height)
        for grid in {token_grid(width=width, height=height), *GIVEN_GRIDS}:
            pixels = image_processor(images=[_as_used(frame, grid) for frame in film], return_tensors="pt")
            shape = (len(NAMES), VARIANTS, 4 * grid[0] * grid[1], -1)
            by_grid.setdefault(grid, []).append(pixels["pixel_values"].reshape(shape))
    return Album({grid: torch.cat(parts, dim=1) for grid, parts in by_grid.items()})


def _film(rng: np.random.Generator, *, width: int, height: int) -> list[NDArray[np.uint8]]:
    """Every colour VARIANTS times, three frames each, through an H.264 file; the last of the three comes back."""
    pictures = ((paint(name, width=width, height=height, rng=rng), 3) for name in NAMES for _ in range(VARIANTS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_pictures(path, pictures, width=width, height=height)
        with av.open(str(path)) as container:
            return [f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(video=0)) if i % 3 == 2]


def _as_used(frame: NDArray[np.uint8], grid: Grid) -> NDArray[np.uint8]:
    rows, columns = grid
    resized = cv2.resize(frame, (28 * columns, 28 * rows), interpolation=cv2.INTER_CUBIC)
    return np.asarray(resized, dtype=np.uint8)


def look(model: Any, patches: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Patches of n frames of one grid -> the tower's tokens, (n, rows * columns, hidden)."""
    rows, columns = grid
    frames = patches.shape[0]
    grids = torch.tensor([[1, 2 * rows, 2 * columns]] * frames, device=patches.device)
    tokens = model.model.visual(patches.flatten(0, 1), grid_thw=grids).pooler_output
    return tokens.reshape(frames, rows * columns, -1)


def train_sight(model: Any, album: Album, targets: torch.Tensor, *, steps: int, seed: int) -> float:
    """Pulls each token to its colour's row of `targets` (colours, hidden); gives the accuracy on held-out frames."""
    draws = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.model.visual.parameters(), lr=2e-3)
    scale = targets.std()
    grids = list(album.patches)
    for step in range(steps):
        grid = grids[step % len(grids)]
        seen = album.patches[grid].shape[1] - HELD_OUT_VARIANTS
        colours = torch.randint(len(NAMES), (24,), generator=draws)
        variants = torch.randint(seen, (24,), generator=draws)
        tokens = look(model, album.patches[grid][colours, variants].to(targets.device), grid)
        loss = ((tokens - targets[colours][:, None]) / scale).pow(2).mean()
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 30, (steps - step) / (steps / 2))
        optimiser.step()
        optimiser.zero_grad()
    return _accuracy(model, album, targets)


@torch.no_grad()
def _accuracy(model: Any, album: Album, targets: torch.Tensor) -> float:
    right = []
    for grid, patches in album.patches.items():
        for colour in range(len(NAMES)):
            tokens = look(model, patches[colour, -HELD_OUT_VARIANTS:].to(targets.device), grid)
            distances = (tokens[..., None, :] - targets).pow(2).sum(-1)
            right.append((distances.argmin(-1) == colour).float().mean())
    return float(torch.stack(right).mean())


class Memory:
    """What the trained tower makes of each frame of the album, computed once."""

    @torch.no_grad()
    def __init__(self, model: Any, album: Album, device: torch.device) -> None:
        self._tokens = {
            grid: torch.stack([look(model, of_colour.to(device), grid).cpu() for of_colour in patches])
            for grid, patches in album.patches.items()
        }

    def recall(self, shown: Shown, draw: float, *, held_out: bool) -> torch.Tensor:
        """One frame's tokens, (rows * columns, hidden); `draw` in [0, 1) picks the variant."""
        of_colour = self._tokens[shown.rows, shown.columns][NAMES.index(shown.colour)]
        seen = len(of_colour) - HELD_OUT_VARIANTS
        index = seen + int(draw * HELD_OUT_VARIANTS) if held_out else int(draw * seen)
        return of_colour[index]
