"""A request refused for a picture that cannot be read is never the model's failure."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from harness import Bench, block, call, make_video, row
from PIL import Image
from scripted_server import Script, ScriptedServer

from eva.agent.refusal import find_picture_problem
from eva.video.picture import FORMATS, encode, whole_size

ANSWER = "<answer>B</answer>"
RGB = np.random.default_rng(1).integers(0, 255, (31, 29, 3), np.uint8)


def spoilt(data: bytes) -> dict[str, bytes]:
    middle = len(data) // 2
    return {"empty": b"", "cut off": data[:middle], "zeros": bytes(len(data)), "a page": b"<html>404</html>"}


def pillows_words(data: bytes) -> str:
    """What vLLM 0.32 answers, in multimodal/media/image.py: these words before Pillow's own."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except OSError as error:
        return f"Failed to load image: {error}"
    return ""


@pytest.mark.parametrize("picture_format", FORMATS)
@pytest.mark.parametrize("how", spoilt(b"").keys())
def test_a_refusal_of_a_spoilt_picture_is_known_by_its_words_and_by_the_file(
    tmp_path: Path, picture_format: str, how: str
) -> None:
    whole, broken = tmp_path / f"whole.{picture_format}", tmp_path / f"broken.{picture_format}"
    whole.write_bytes(encode(RGB, picture_format))
    broken.write_bytes(spoilt(whole.read_bytes())[how])
    words = pillows_words(broken.read_bytes())
    assert words
    assert words in find_picture_problem(words, [whole])
    assert str(broken) in find_picture_problem("This model's maximum context length is 16384 tokens.", [whole, broken])


# vLLM 0.32: load_file and _load_file_url of multimodal/media/connector.py; the first three are a 500 there.
OTHERS = [
    "[Errno 2] No such file or directory: '/tmp/eva-frames/store/x/0000001.bmp'",
    "[Errno 13] Permission denied: '/tmp/eva-frames/store/x/0000001.bmp'",
    "[Errno 116] Stale file handle: '/tmp/eva-frames/store/x/0000001.bmp'",
    "The file path /a/0000001.bmp must be a subpath of `--allowed-local-media-path /b`.",
    "cannot identify image file <_io.BytesIO object at 0x7fe9e2a3d4e0>",
]


@pytest.mark.parametrize("words", OTHERS)
def test_a_file_that_the_server_cannot_read_is_known_by_its_words(words: str) -> None:
    assert find_picture_problem(f"Error code: 400 - {{'error': {{'message': '{words}'}}}}", [])


REQUESTS_OWN = [
    "This model's maximum context length is 16384 tokens. However, your prompt contains 20000",
    "The decoder prompt (length 20000) is longer than the maximum model length of 16384.",
    "At most 256 image(s) may be provided in one prompt.",
    "1 validation error for ValidatorIterator",
]


@pytest.mark.parametrize("words", REQUESTS_OWN)
def test_a_request_that_is_too_long_stays_the_models(tmp_path: Path, words: str) -> None:
    for picture_format in FORMATS:
        (tmp_path / f"whole.{picture_format}").write_bytes(encode(RGB, picture_format))
    assert find_picture_problem(words, sorted(tmp_path.iterdir())) == ""


def test_a_frame_that_is_gone_is_named(tmp_path: Path) -> None:
    assert "gone.bmp cannot be read: No such file" in find_picture_problem("too long", [tmp_path / "gone.bmp"])


@pytest.mark.parametrize("picture_format", FORMATS)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (29, 31), (28, 1), (1, 400)])
def test_a_picture_is_whole_only_with_its_last_byte(
    tmp_path: Path, picture_format: str, width: int, height: int
) -> None:
    path = tmp_path / "frame"
    data = encode(np.full((height, width, 3), 7, np.uint8), picture_format)
    path.write_bytes(data)
    assert whole_size(path) == (width, height)
    for length in {*range(min(len(data), 100)), len(data) - 1}:
        path.write_bytes(data[:length])
        assert whole_size(path) is None, length


@pytest.mark.process
def test_a_sample_whose_picture_the_server_cannot_load_is_played_again_by_retry_error(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    refusal = {"status": 400, "message": "Failed to load image: image file is truncated", "times": 1, "text": ANSWER}
    with ScriptedServer(Script({"q": [block(call(0, 1, 2)), refusal]})) as server:
        bench = Bench(tmp_path, server.base_url, tokenizer_dir)
        make_video(bench.videos / "clip.mp4", frames=20)
        bench.write([row("q")])
        refused = bench.run().record()
        assert (refused["stop_reason"], refused["failure"]) == ("exception", "infrastructure")
        assert "image file is truncated" in refused["error"]
        assert len(refused["trajectory"]) == 1, "the round before it stays"
        again = bench.run("--retry-error", "--yes")
    assert again.code == 0, again.said
    assert again.record()["stop_reason"] == "answer_found"
