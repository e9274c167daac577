"""Schedule and Servers against real servers, in one process: who gets which sample, and when a sample is given up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from scripted_server import Handler, Script, ScriptedServer

from eva.dataset.items import Item
from eva.endpoint import client
from eva.endpoint import pool as servers
from eva.endpoint.client import ChatModel
from eva.endpoint.errors import OutageError, UnansweredError, UnavailableError
from eva.endpoint.http_client import Client
from eva.endpoint.pool import Assignment, Server, Servers
from eva.run import schedule
from eva.run.connect import connect_all
from eva.run.options import Options
from eva.run.schedule import Schedule

ANSWER = "<answer>B</answer>"
ALWAYS_500 = {"status": 500, "message": "cannot decode this image"}


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps with shorter waits between them."""
    monkeypatch.setattr(servers, "PROBE_EVERY_S", 0.05)
    monkeypatch.setattr(servers, "BACKOFF_S", 0.005)


@contextlib.contextmanager
def serving(*scripts: Script) -> Iterator[list[ScriptedServer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(ScriptedServer(script)) for script in scripts]


def question(key: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "s" * 1000}, {"role": "user", "content": f"[[{key}]] What?"}]


def items(count: int) -> list[Item]:
    return [Item(n, ("clip.mp4",), (), "B") for n in range(count)]


@dataclass
class Samples:
    """Samples of `rounds` questions each, run by the real schedule on the real pool."""

    addresses: list[str]
    rounds: int = 1
    outage_timeout_s: float = 20
    ceiling: int = 8
    ranks: int | None = None
    done: Counter[int] = field(default_factory=Counter)
    given_up: dict[int, str] = field(default_factory=dict)
    work: Schedule = field(init=False)

    @contextlib.asynccontextmanager
    async def pool(self, models: Sequence[ChatModel] = ()) -> AsyncIterator[Servers]:
        clients = [Client(url, "k", 20) for url in self.addresses]
        models = models or [await ChatModel(client).connect() for client in clients]
        pool = Servers(models, ceiling=self.ceiling, outage_timeout_s=self.outage_timeout_s, ranks=self.ranks)
        try:
            yield pool
        finally:
            await pool.close()

    async def run_all(self, todo: list[Item], models: Sequence[ChatModel] = ()) -> None:
        async with self.pool(models) as pool:

            async def run(item: Item, avoiding: Collection[Server]) -> None:
                async with pool.assign(avoiding=avoiding) as assignment:
                    await self.play(item, assignment)
                    self.done[item.index] += 1

            def give_up(item: Item, failing: UnansweredError) -> None:
                self.given_up[item.index] = str(failing)

            self.work = Schedule(run, give_up, self.outage_timeout_s, lambda waiting: waiting.popleft())
            await self.work.run_all(todo, max_concurrent=self.ceiling)

    async def play(self, item: Item, assignment: Assignment) -> None:
        messages = question(f"{item.index}")
        for _ in range(self.rounds):
            reply = await assignment.complete(messages)
            messages = [*messages, {"role": "assistant", "content": reply.text}, {"role": "user", "content": "go on"}]

    def run(self, count: int, *, timeout_s: float = 60) -> None:
        async def timed() -> None:
            await asyncio.wait_for(self.run_all(items(count)), timeout_s)

        asyncio.run(timed())


def failing_for(bad: Collection[int]) -> Script:
    return Script(lambda key: [ALWAYS_500 if int(key) in bad else ANSWER])


# --- samples that keep failing


@pytest.mark.parametrize(
    ("count", "bad"), [(20, {3}), (20, set(range(20)) - {7}), (3, {0, 1, 2})], ids=["one", "most", "all of a few"]
)
def test_samples_that_fail_for_good_are_given_up_after_a_second_try(count: int, bad: set[int]) -> None:
    with serving(failing_for(bad)) as (server,):
        samples = Samples([server.base_url])
        samples.run(count)
        asked = server.journal.keys()
    assert set(samples.given_up) == bad
    assert all("cannot decode this image" in reason for reason in samples.given_up.values())
    assert samples.done == Counter(set(range(count)) - bad)
    assert {asked[str(index)] for index in bad} == {2 * servers.REQUEST_TRIES}


def test_a_server_that_answers_only_probes_ends_the_run() -> None:
    """It fell ill in the middle."""
    script = Script(lambda key: [ANSWER])

    def fall_ill(key: str) -> list[Any]:
        script.sick = int(key) >= 10
        return [ANSWER]

    script.replies = fall_ill
    with serving(script) as (server,):
        samples = Samples([server.base_url], outage_timeout_s=0.5, ceiling=4)
        with pytest.raises(OutageError, match=r"no sample has finished for 0.5 s; .*out of memory"):
            samples.run(1000)
    assert samples.given_up == {}
    # Up to three samples are under way when the server falls ill, and these may have no answer yet.
    assert len(samples.done) >= 10 - (samples.ceiling - 1)


def test_a_sick_server_beside_a_well_one_costs_no_sample() -> None:
    """It fails fast, so it is always the least loaded: samples that failed there are tried elsewhere."""
    with serving(Script(lambda key: [ANSWER], sick=True), Script(lambda key: [ANSWER])) as (sick, well):
        samples = Samples([sick.base_url, well.base_url])
        samples.run(40)
    assert samples.given_up == {}
    assert samples.done == Counter(range(40))


def test_a_sample_that_brings_its_server_down_each_time_is_given_up_and_no_other() -> None:
    script = Script({})

    def replies(key: str) -> list[Any]:
        if key == "5":
            script.down = True
            threading.Timer(0.2, lambda: setattr(script, "down", False)).start()
            return [{"fault": "drop"}]
        return [{"text": ANSWER, "delay_s": 0.05}]

    script.replies = replies
    with serving(script) as (server,):
        samples = Samples([server.base_url], ceiling=4)
        samples.run(20)
    assert set(samples.given_up) == {5}
    assert samples.done == Counter(set(range(20)) - {5})


def test_a_sample_whose_node_or_server_went_down_starts_again_at_once_and_alone_at_the_end() -> None:
    order: list[int] = []
    together: Counter[int] = Counter()

    async def play(item: Item, assignment: Assignment) -> None:
        order.append(item.index)
        together.update([item.index])
        try:
            await asyncio.sleep(0.01)
            if item.index in {3, 4}:
                assert order.count(item.index) <= schedule.LOSSES or together.total() == 1
                raise UnansweredError(UnavailableError("its power went"), lost=True)
        finally:
            together.subtract([item.index])

    with serving(Script(lambda key: [ANSWER])) as (server,):
        samples = Samples([server.base_url], ceiling=3)
        samples.play = play  # type: ignore[method-assign]
        samples.run(20)
    assert set(samples.given_up) == {3, 4}
    assert samples.done == Counter(set(range(20)) - {3, 4})
    assert Counter(order) == Counter(range(20)) + Counter({3: schedule.LOSSES, 4: schedule.LOSSES})
    assert order.index(19) < max(place for place, index in enumerate(order) if index == 3)


# --- which server


def test_new_samples_go_to_the_least_loaded_server_and_stay_there() -> None:
    slow = Script(lambda key: [{"text": ANSWER, "delay_s": 0.3}])
    quick = Script(lambda key: [{"text": ANSWER, "delay_s": 0.02}])
    with serving(slow, quick) as both:
        samples = Samples([server.base_url for server in both], rounds=3)
        samples.run(40)
        asked = [server.journal.keys() for server in both]
    assert samples.done == Counter(range(40))
    assert not set(asked[0]) & set(asked[1]), "all rounds of a sample are asked on one server"
    assert len(asked[1]) > 2 * len(asked[0]) > 0


class Silent(Handler):
    """Takes every connection and answers nothing while it is `down`, as a machine whose server hangs."""

    def do_GET(self) -> None:
        self.server.wait(float("inf") if self.server.script.down else 0)
        super().do_GET()

    def do_POST(self) -> None:
        if self.server.script.down:
            self.server.journal.add_unexpected("a request to a server that was down")
        super().do_POST()


def options_for(*servers: ScriptedServer) -> Options:
    return Options("own", base_url=[server.base_url for server in servers], request_timeout=600)


def test_servers_that_are_silent_at_the_start_get_no_sample_until_they_answer_and_are_waited_for_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "PAGE_TIMEOUT_S", 1.0)

    def replies(key: str) -> list[Any]:
        one.script.down = one.script.down and int(key) < 20
        return [{"text": ANSWER, "delay_s": 0.1}]

    async def play() -> float:
        started = time.monotonic()
        models = await connect_all(options_for(one, there, other))
        took_s = time.monotonic() - started
        await samples.run_all(items(80), models=models)
        return took_s

    silent = [Script(lambda key: [{"text": ANSWER, "delay_s": 0.1}], down=True) for _ in range(2)]
    with serving(*silent, Script(replies)) as (one, other, there):
        one.RequestHandlerClass = other.RequestHandlerClass = Silent
        samples = Samples([], ceiling=4)
        assert asyncio.run(asyncio.wait_for(play(), 30)) < 1.9, "they were asked side by side"
        assert (len(other.journal.seen), other.journal.unexpected, one.journal.unexpected) == (0, [], [])
        assert len(one.journal.seen) > 5
    assert samples.done == Counter(range(80))
    assert sum("starts without one server" in line for line in caplog.messages) == 2


# --- which rank of a server


@dataclass
class OnRanks(Samples):
    """Samples that note how many of them are on which rank."""

    loads: Counter[int] = field(default_factory=Counter)
    uneven: list[str] = field(default_factory=list)

    async def play(self, item: Item, assignment: Assignment) -> None:
        rank = assignment.rank
        assert rank is not None
        if self.loads[rank] != min(self.loads[other] for other in range(8)):
            self.uneven.append(f"{item.index} went to {rank} while the loads were {self.loads}")
        self.loads[rank] += 1
        if sum(self.loads.values()) == self.ceiling and max(self.loads.values()) - min(self.loads.values()) > 1:
            self.uneven.append(f"all are under way, and the loads are {self.loads}")
        try:
            await super().play(item, assignment)
        finally:
            self.loads[rank] -= 1


def ranks_of(server: ScriptedServer) -> dict[str, set[int | None]]:
    """Per sample the ranks that its requests named and got; None for a request that named none."""
    found: dict[str, set[int | None]] = {}
    for seen in server.journal.seen:
        found.setdefault(seen.key, set()).add(seen.rank if seen.named_rank else None)
    return found


SHORT = {"text": ANSWER, "delay_s": 0.02}


def said_of_ranks(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if "data-parallel ranks" in line]


def test_all_rounds_of_a_sample_go_to_one_rank_and_the_load_is_level_within_one_sample(
    caplog: pytest.LogCaptureFixture,
) -> None:
    delays = Script(lambda key: [{"text": ANSWER, "delay_s": 0.01 * (int(key) % 4)}], ranks=8)
    with serving(delays) as (server,):
        samples = OnRanks([server.base_url], rounds=3, ceiling=30)
        samples.run(150)
    ranks = ranks_of(server)
    assert samples.done == Counter(range(150))
    assert all(len(named) == 1 for named in ranks.values()), ranks
    assert {rank for named in ranks.values() for rank in named} == set(range(8))
    assert samples.uneven == []
    assert said_of_ranks(caplog) == []


@pytest.mark.parametrize(
    ("ranks", "configured"), [(None, None), (1, None), (8, 0)], ids=["no /metrics", "one rank", "switched off"]
)
def test_a_server_without_ranks_to_choose_from_gets_no_header_and_no_complaint(
    ranks: int | None, configured: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(Script(lambda key: [ANSWER], ranks=ranks)) as (server,):
        samples = Samples([server.base_url], rounds=2, ranks=configured)
        samples.run(20)
    assert samples.done == Counter(range(20))
    assert {rank for named in ranks_of(server).values() for rank in named} == {None}
    assert said_of_ranks(caplog) == []
    assert server.journal.paths["/metrics"] == (0 if configured == 0 else 1), "asked once, not per sample"


def test_a_server_restarted_with_fewer_ranks_costs_no_sample_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(lambda key: [ANSWER], ranks=8)

    def replies(key: str) -> list[Any]:
        if int(key) >= 40:
            script.ranks = 4
        return [SHORT]

    script.replies = replies
    with serving(script) as (server,):
        samples = Samples([server.base_url], rounds=4, ceiling=16)
        samples.run(120)
    assert samples.done == Counter(range(120))
    assert samples.given_up == {}
    (line,) = said_of_ranks(caplog)
    assert line == f"{server.base_url} had 8 data-parallel ranks: 4 now"
    late = [named for key, named in ranks_of(server).items() if int(key) >= 60]
    assert all(len(named) == 1 for named in late)
    assert {rank for named in late for rank in named} == {0, 1, 2, 3}


def test_after_an_outage_the_ranks_are_looked_up_again(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(lambda key: [SHORT], ranks=2)

    async def out_and_back() -> list[int | None]:
        async with samples.pool() as pool:
            async with pool.assign(avoiding=()) as before:
                await before.complete(question("0"))
                script.down, script.ranks = True, 4
                threading.Timer(0.3, lambda: setattr(script, "down", False)).start()
                await before.complete(question("0"))
            async with contextlib.AsyncExitStack() as stack:
                return [(await stack.enter_async_context(pool.assign(avoiding=()))).rank for _ in range(4)]

    with serving(script) as (server,):
        samples = Samples([server.base_url])
        assert asyncio.run(asyncio.wait_for(out_and_back(), 30)) == [0, 1, 2, 3]
    assert said_of_ranks(caplog) == [f"{server.base_url} had 2 data-parallel ranks: 4 now"]


def test_a_server_that_refuses_a_rank_costs_no_sample() -> None:
    """As one that several machines share, and that takes only the ranks of its own machine."""
    script = Script(lambda key: [SHORT], ranks=4)
    with serving(script) as (server,):
        samples = Samples([server.base_url], rounds=2, ranks=6)
        samples.run(20)
    assert samples.done == Counter(range(20))
    assert {4, 5} & {rank for named in ranks_of(server).values() for rank in named} == set()


# --- how many at a time


def test_overload_halves_the_requests_under_way_and_success_raises_them_again() -> None:
    """The server can take four at a time from sample 100 until 500 is asked, and any number before and after."""
    peaks: Counter[int] = Counter()
    recovered = threading.Event()

    def replies(key: str) -> list[Any]:
        under_way, hundred = server.journal.flow[-1], int(key) // 100
        if not (recovered.is_set() and hundred < 5):  # those that failed come once more at the end
            peaks[hundred] = max(peaks[hundred], under_way)
        if hundred >= 5:
            recovered.set()
        overloaded = hundred >= 1 and not recovered.is_set() and under_way > 4
        return [{"status": 503} if overloaded else {"text": ANSWER, "delay_s": 0.1}]

    with serving(Script(replies)) as (server,):
        samples = Samples([server.base_url], ceiling=16)
        samples.run(900, timeout_s=120)
    assert samples.done == Counter(range(900))
    assert samples.given_up == {}
    assert peaks[0] >= 12
    assert peaks[3] <= 8
    assert peaks[8] >= 12, "it climbed back"


# --- the end


def test_a_watcher_that_fails_ends_the_run_instead_of_letting_it_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = Counter[str]()

    async def probe(self: ChatModel) -> str:
        probes["asked"] += 1
        if probes["asked"] > 1:
            raise RuntimeError("a fault in the probe")
        return "down"

    monkeypatch.setattr(ChatModel, "probe", probe)
    with serving(Script(lambda key: [ANSWER], down=True)) as (server,), pytest.raises(RuntimeError, match="a fault in"):
        Samples([server.base_url]).run(3, timeout_s=20)
