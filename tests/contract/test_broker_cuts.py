"""RabbitMQ over a line that fails: cut at any byte, silent, or away; nothing is lost, and no commit is repeated."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aio_pika
import pytest

from astrid.broker import Broker, Delivery
from astrid.broker.rabbitmq import RabbitBroker, open_rabbitmq
from astrid.errors import BrokerError
from astrid.wire import encode_batch
from tests.broker_bench import PREFETCH, Bench, numbers
from tests.line import Line, open_line

CUTS = 20


@pytest.fixture
async def line(rabbit: Bench) -> AsyncIterator[Line]:
    where = urlsplit(rabbit.url)
    async with open_line(where.hostname or "", where.port or 5672) as found:
        yield found


def over(line: Line, bench: Bench, query: str = "") -> str:
    """Return the server's address by way of the line."""
    where = urlsplit(bench.url)
    return where._replace(netloc=f"{where.username}:{where.password}@127.0.0.1:{line.port}", query=query).geturl()


class Books:
    """What a worker commits: each batch once, however often it comes."""

    def __init__(self) -> None:
        self.commits: Counter[int] = Counter()
        self.retried: set[int] = set()
        self.aside: set[int] = set()

    async def handle(self, broker: Broker, delivery: Delivery) -> None:
        """Commit, then acknowledge; number 1 is tried again once, number 2 is set aside."""
        (number,) = numbers([delivery])
        with contextlib.suppress(BrokerError):
            if number == 1 and delivery.batch.attempt == 0 and not self.commits[1]:
                self.retried.add(1)
                return await broker.retry(delivery, 0.05)
            if number == 2:
                self.aside.add(2)
                return await broker.dead_letter(delivery, "for a test")
            if not self.commits[number]:
                self.commits[number] += 1
            await broker.ack(delivery)
        return None


async def run_worker(broker: Broker, bench: Bench, books: Books, count: int) -> None:
    """Publish and drain, until all is committed or set aside and nothing is left anywhere."""
    await broker.publish([bench.batch(n, "backfill" if n == 3 else "nightly") for n in range(count)])
    everything = set(range(count))
    while everything - set(books.commits) - books.aside:
        for delivery in await broker.receive(bench.source, "w#1", PREFETCH, 0.3):
            await books.handle(broker, delivery)


async def drain(bench: Bench, books: Books) -> None:
    """Let a worker with a line that holds find what is left: only what was done already."""
    while deliveries := await bench.receive(wait_s=1.0):
        for delivery in deliveries:
            await books.handle(bench.broker, delivery)
    assert await bench.counts() == {"nightly": 0, "backfill": 0}
    await bench.broker.release(bench.consumer)  # else what comes next would be pushed to it too
    bench.life += 1


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_cut_at_any_byte_loses_nothing_and_repeats_no_commit(
    rabbit: Bench, line: Line, seed: int, way: str, long_mode: bool
) -> None:
    """From the first byte of the connection to the last acknowledgement, in each direction."""
    rng = random.Random(f"{seed} {way}")
    async with open_rabbitmq(over(line, rabbit), prefetch={rabbit.source: PREFETCH}) as broker:
        await run_worker(broker, rabbit, Books(), 6)
    await drain(rabbit, Books())
    whole = line.passed[way]
    cuts = 10 * CUTS if long_mode else CUTS
    for start in range(cuts):
        at = int(whole * (start + rng.random()) / cuts)
        before = line.connections
        line.cut_after(way, at)
        books = Books()
        broker = RabbitBroker(over(line, rabbit), {rabbit.source: PREFETCH}, patience_s=20.0)
        async with asyncio.timeout(60):
            await run_worker(broker, rabbit, books, 6)
            await broker.close()
            await drain(rabbit, books)
        assert set(books.commits) == {0, 1, 3, 4, 5}, (way, at)
        assert set(books.commits.values()) == {1}
        assert books.aside == {2}
        letters = await rabbit.letters()
        assert {headers["x-astrid-reason"] for _, headers in letters} == {"for a test"}, (way, at)
        line.cut_after(way, 10**9)  # a run may have needed fewer bytes than the first one
        assert line.connections > before


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_cut_while_much_is_published_loses_nothing(
    rabbit: Bench, line: Line, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several parts are on their way, some confirmed, some not, some not yet written."""
    monkeypatch.setattr("astrid.broker.rabbitmq.broker.IN_FLIGHT_MAX", 8)
    await rabbit.broker.ready([rabbit.source])
    batches = [rabbit.batch(n) for n in range(40)]
    async with open_rabbitmq(over(line, rabbit)) as broker:
        await broker.publish(batches)
    await rabbit.broker.purge([rabbit.source])
    whole = line.passed[way]
    for turn in range(12):
        line.cut_after(way, whole * turn // 12)
        broker = RabbitBroker(over(line, rabbit), patience_s=20.0)
        await broker.publish(batches)
        await broker.close()
        line.cut_after(way, 10**9)
        async with await aio_pika.connect(rabbit.url) as connection:
            channel = await connection.channel()
            queue = await channel.get_queue(f"astrid.{rabbit.source}.nightly")
            found = set()
            while (message := await queue.get(fail=False, no_ack=True)) is not None:
                found.add(message.body)
        assert found == {encode_batch(batch) for batch in batches}, turn


async def test_between_commit_and_acknowledgement(rabbit: Bench, line: Line) -> None:
    """The batch comes again, marked as one that came back, and its second acknowledgement holds."""
    async with open_rabbitmq(over(line, rabbit), prefetch={rabbit.source: PREFETCH}) as broker:
        await broker.publish([rabbit.batch(1)])
        (held,) = await broker.receive(rabbit.source, "w#1", 1, 5.0)
        line.cut()
        await asyncio.sleep(0.1)
        with pytest.raises(BrokerError, match="delivered again"):
            await broker.ack(held)
        assert await broker.receive(rabbit.source, "w#1", 1, 0.2) == []  # out of reach is no reason to end
        line.mend()
        (again,) = await broker.receive(rabbit.source, "w#1", 1, 30.0)
        assert (again.batch, again.batch.attempt) == (held.batch, 0)
        assert again.returns >= 1
        await broker.ack(again)
        await broker.publish([rabbit.batch(2)])
        assert numbers(await broker.receive(rabbit.source, "w#1", 5, 10.0)) == [2]


async def stale_and_fresh(
    rabbit: Bench, broker: RabbitBroker, end_channel: str, line: Line
) -> tuple[Delivery, Delivery]:
    """Hold a batch, lose its channel, and hold one again: on the new channel it has the old one's number."""
    await broker.publish([rabbit.batch(1)])
    (stale,) = await broker.receive(rabbit.source, "w#1", 1, 10.0)
    reception = broker._receptions["w#1", rabbit.source]
    channel = reception._channel
    assert channel is not None
    if end_channel == "line":
        line.cut()
        line.mend()
    else:
        await channel.basic_ack(4711)  # the server closes a channel for it
    await asyncio.wait([channel.closing], timeout=10)
    assert not reception.is_open
    (fresh,) = await broker.receive(rabbit.source, "w#1", 1, 20.0)
    renewed = broker._receptions["w#1", rabbit.source]
    assert broker._deliveries[fresh.tag] == (renewed, 1)
    assert renewed._channel is not None
    if end_channel == "server":
        assert renewed._channel.connection is channel.connection
        assert renewed._channel.number != channel.number
    # Said on the old channel itself, past all our books, it goes nowhere.
    with contextlib.suppress(Exception):
        await channel.basic_ack(1)
    return stale, fresh


@pytest.mark.parametrize("end_channel", ["line", "server"])
async def test_a_late_acknowledgement_reaches_no_other_message(rabbit: Bench, line: Line, end_channel: str) -> None:
    """The number of a lost delivery is given again on the next channel, to whatever comes first there."""
    async with open_rabbitmq(over(line, rabbit), prefetch={rabbit.source: PREFETCH}) as broker:
        stale, fresh = await stale_and_fresh(rabbit, broker, end_channel, line)
        for settle in (broker.ack(stale), broker.retry(stale, 0.0), broker.dead_letter(stale, "said too late")):
            with pytest.raises(BrokerError, match="no longer"):
                await settle
        assert fresh.batch == stale.batch
        assert await broker.ready([rabbit.source]) == {rabbit.source: 0}
        await broker.release("w#1")
        (again,) = await broker.receive(rabbit.source, "w#2", 1, 10.0)  # so nobody had acknowledged it
        assert again.batch == stale.batch
        await broker.ack(again)
    assert await rabbit.receive(wait_s=0.5) == []
    assert await rabbit.letters() == []


async def test_no_number_of_a_channel_is_given_twice(rabbit: Bench) -> None:
    """The driver would give a closed channel's number to the next one, and what is said late would be taken for its."""
    assert isinstance(rabbit.broker, RabbitBroker)
    session = await rabbit.broker._link.session(5.0)
    assert session is not None
    seen = []
    for _ in range(5):
        channel = await session.channel()
        seen.append(channel.number)
        await channel.close()
    assert len(set(seen)) == 5
    limit = session._connection.connection_tune.channel_max
    session._numbers = iter([limit + 1])  # type: ignore[assignment]
    await rabbit.broker.publish([rabbit.batch(1)])  # with no number left it takes a new connection
    assert await rabbit.broker._link.session(5.0) is not session
    assert numbers(await rabbit.receive_all(1)) == [1]


async def test_a_silent_line_is_given_up_and_a_new_one_taken(rabbit: Bench, line: Line) -> None:
    """No byte comes and nobody says goodbye: heartbeats tell it; what waits for an answer is neither lost nor hangs."""
    url = over(line, rabbit, "heartbeat=1")
    async with open_rabbitmq(url, prefetch={rabbit.source: PREFETCH}, patience_s=50.0) as broker:
        await broker.publish([rabbit.batch(1)])
        (held,) = await broker.receive(rabbit.source, "w#1", 1, 5.0)
        line.freeze()
        published = asyncio.create_task(broker.publish([rabbit.batch(2)]))
        acknowledged = asyncio.create_task(broker.ack(held))
        async with asyncio.timeout(60):
            await published
            with contextlib.suppress(BrokerError):  # written into the silence, it may count as said
                await acknowledged
            got: set[int] = set()
            while got != {1, 2}:
                for delivery in await broker.receive(rabbit.source, "w#1", PREFETCH, 1.0):
                    await broker.ack(delivery)
                    got.update(numbers([delivery]))


async def test_a_broker_that_stays_away_is_said_after_the_patience(rabbit: Bench, line: Line) -> None:
    async with open_rabbitmq(over(line, rabbit), prefetch={rabbit.source: PREFETCH}, patience_s=1.5) as broker:
        await broker.publish([rabbit.batch(1)])
        await broker.receive(rabbit.source, "w#1", 1, 5.0)
        line.cut()
        start = time.perf_counter()
        with pytest.raises(BrokerError) as caught:
            await broker.publish([rabbit.batch(2)])
        assert 1.0 < time.perf_counter() - start < 15.0
        assert f"127.0.0.1:{line.port}" in str(caught.value)
        with pytest.raises(BrokerError):
            await broker.receive(rabbit.source, "w#1", 1, 60.0)
        line.mend()
        # Whoever asks again finds it, when it is there again.
        async with asyncio.timeout(20):
            got: list[int] = []
            while not got:
                with contextlib.suppress(BrokerError):
                    got = numbers(await broker.receive(rabbit.source, "w#1", 1, 1.0))
        assert got == [1]


async def test_a_cancelled_publish_ends_at_once(rabbit: Bench, line: Line) -> None:
    """Ctrl-C while the broker is away."""
    async with open_rabbitmq(over(line, rabbit), patience_s=50.0) as broker:
        line.cut()
        await asyncio.sleep(0.05)
        publishing = asyncio.create_task(broker.publish([rabbit.batch(1)]))
        await asyncio.sleep(0.3)
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(publishing, 5)


async def test_a_closed_broker_says_so(rabbit: Bench) -> None:
    broker = await rabbit.another()
    await broker.publish([rabbit.batch(1)])
    await broker.close()
    with pytest.raises(BrokerError, match="closed"):
        await broker.publish([rabbit.batch(2)])
    with pytest.raises(BrokerError, match="closed"):
        await broker.receive(rabbit.source, "w#1", 1, 1.0)
