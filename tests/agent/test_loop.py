"""The loop of one sample, with a scripted model and a scripted frame tool: what it asks, what it shows, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from played_agent import PROMPT, VIDEO, failed, play

from eva.agent.play import Episode
from eva.agent.refusal import PictureUnreadableError
from eva.agent.tool_call import Outcome
from eva.agents.eva import Eva
from eva.endpoint.completion import Reply
from eva.endpoint.errors import BadRequestError
from eva.protocol.messages import Frame, Message, VideoInfo, assistant_message, opening_messages, tool_response
from eva.protocol.reply import CallAttempt, Usage
from eva.records.schema import Call

CALL = '{"tool": "frame_select", "arguments": {"start_time": %s, "end_time": 9, "nframes": 1}}'
OPENING = list(opening_messages(PROMPT, VIDEO).messages)


def block(*starts_s: int) -> str:
    return "<tool_call>" + "".join(CALL % start_s for start_s in starts_s) + "</tool_call>"


def shown(start_s: int) -> Frame:
    return Frame(start_s, f"file:///{start_s}.png")


def arguments(call: CallAttempt) -> Mapping[str, int]:
    assert call.arguments is not None
    return call.arguments


def files(episode: Episode) -> list[Path]:
    return [Path(file) for outcome in episode.all_outcomes() for file in outcome.call.frames]


@dataclass
class Script:
    """A model that gives `replies` in turn, and a frame tool that shows one frame per call or fails with an error."""

    replies: Sequence[str | Exception]
    failing: Mapping[int, str] = field(default_factory=dict)
    folder: Path = Path("/frames")
    requests: list[list[Message]] = field(default_factory=list)

    async def complete(self, messages: Sequence[Message], fields: Mapping[str, Any]) -> Reply:
        self.requests.append(list(messages))
        reply = self.replies[len(self.requests) - 1]
        if isinstance(reply, Exception):
            raise reply
        return Reply(reply, Usage(1, 1, 2), "stop")

    async def run_call(self, call: CallAttempt, video: VideoInfo, *, budget: bool) -> Outcome:
        start_s = arguments(call)["start_time"]
        if start_s in self.failing:
            return failed(call, self.failing[start_s])
        frames = (str(self.folder / f"{start_s}.png"),)
        return Outcome(call, Call(call.arguments, None, None, frames, 0, None, None), (shown(start_s),))

    def run(self, *, max_turns: int = 6) -> Episode:
        episode = Episode()
        asyncio.run(self.run_in(episode, max_turns=max_turns))
        return episode

    async def run_in(self, episode: Episode, *, max_turns: int = 6) -> None:
        await play(Eva(), self.complete, self.run_call, episode=episode, max_turns=max_turns)


def test_an_answer_ends_the_sample_and_nothing_is_asked_after_it() -> None:
    script = Script(["<answer>B</answer>", "never asked"])
    episode = script.run()
    assert (episode.stop_reason, episode.answer, len(episode.rounds)) == ("answer_found", "B", 1)
    assert script.requests == [OPENING]
    assert episode.messages == [*OPENING, {"role": "assistant", "content": "<answer>B</answer>"}]


@pytest.mark.parametrize(
    ("reply", "stop_reason"),
    [("Hm.", "no_answer_no_tool_call"), ("<tool_call></tool_call>", "no_valid_tool_call")],
)
def test_a_reply_without_an_action_ends_the_sample(reply: str, stop_reason: str) -> None:
    episode = Script([reply]).run()
    assert (episode.stop_reason, episode.answer, len(episode.rounds)) == (stop_reason, "", 1)
    assert episode.outcomes == [[], []]


def test_the_next_request_has_the_reply_and_the_frames_of_its_calls_in_their_order() -> None:
    script = Script([block(7, 3), "<answer>B</answer>"])
    episode = script.run()
    shown_again = [*OPENING, assistant_message(block(7, 3)), tool_response([shown(7), shown(3)], "Q?")]
    assert script.requests == [OPENING, shown_again]
    assert [arguments(outcome.attempt)["start_time"] for outcome in episode.all_outcomes()] == [7, 3]
    assert episode.outcomes[2] == []
    assert episode.rounds[0].reply == block(7, 3)


def test_the_calls_of_a_reply_run_side_by_side() -> None:
    @dataclass
    class Waiting(Script):
        second_began: asyncio.Event = field(default_factory=asyncio.Event)

        async def run_call(self, call: CallAttempt, video: VideoInfo, *, budget: bool) -> Outcome:
            if arguments(call)["start_time"] == 3:
                self.second_began.set()
            await asyncio.wait_for(self.second_began.wait(), timeout=60)
            return await super().run_call(call, video, budget=budget)

    async def run() -> str:
        episode = Episode()
        await Waiting([block(7, 3), "<answer>B</answer>"]).run_in(episode)
        return episode.answer

    assert asyncio.run(run()) == "B"


def test_the_frames_of_the_calls_that_worked_are_shown_where_another_one_failed() -> None:
    script = Script([block(1, 2, 3), "<answer>B</answer>"], failing={1: "no_nframes", 3: "arguments_not_json"})
    assert script.run().stop_reason == "answer_found"
    assert script.requests[1][-1] == tool_response([shown(2)], "Q?")


def test_a_reply_whose_calls_all_fail_ends_the_sample_with_all_their_names() -> None:
    script = Script([block(1, 2), "never asked"], failing={1: "no_nframes", 2: "call_frame_select_failed"})
    episode = script.run()
    assert (episode.stop_reason, episode.answer) == ("no_nframes; call_frame_select_failed", "")
    assert len(script.requests) == 1
    assert [outcome.error for outcome in episode.all_outcomes()] == ["no_nframes", "call_frame_select_failed"]


@pytest.mark.parametrize("max_turns", [1, 2, 3])
def test_a_sample_has_max_turns_replies_and_not_one_more(max_turns: int) -> None:
    script = Script([block(number) for number in range(4)])
    episode = script.run(max_turns=max_turns)
    assert (episode.stop_reason, episode.answer) == ("max_turns_exceeded", "")
    assert len(script.requests) == len(episode.rounds) == max_turns


def test_an_answer_in_the_last_round_counts() -> None:
    assert Script([block(1), "<answer>B</answer>"]).run(max_turns=2).stop_reason == "answer_found"


def test_a_refused_request_ends_the_sample_and_keeps_the_servers_words() -> None:
    script = Script([BadRequestError("too long"), "never asked"])
    episode = script.run()
    assert (episode.stop_reason, episode.answer, episode.refusal) == ("openai_bad_request", "", "too long")
    assert (len(script.requests), episode.rounds) == (1, [])


def test_a_request_that_is_refused_for_a_broken_frame_is_not_the_models_failure(tmp_path: Path) -> None:
    (tmp_path / "2.png").touch()
    script = Script([block(2), BadRequestError("bad picture"), "never asked"], folder=tmp_path)
    episode = Episode()
    with pytest.raises(PictureUnreadableError, match=r"2\.png is empty; the server says: bad picture"):
        asyncio.run(script.run_in(episode))
    assert episode.stop_reason == ""
    assert len(episode.rounds) == 1


def test_a_failure_of_the_server_is_raised_and_the_completed_rounds_stay() -> None:
    episode = Episode()
    with pytest.raises(OSError, match="gone"):
        asyncio.run(Script([block(1), block(2), OSError("gone")]).run_in(episode))
    assert [len(outcomes) for outcomes in episode.outcomes] == [0, 1, 1]
    assert files(episode) == [Path("/frames/1.png"), Path("/frames/2.png")]


def test_a_sample_shows_the_frames_of_the_calls_that_worked_only() -> None:
    episode = Script([block(1, 2), "<answer>B</answer>"], failing={1: "no_nframes"}).run()
    assert files(episode) == [Path("/frames/2.png")]
