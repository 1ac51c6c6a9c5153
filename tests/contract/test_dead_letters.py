"""`astrid dlq`: dead letters are looked at without a loss, go back to work, and what is no batch stays and says so."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
from collections.abc import Sequence
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import aio_pika
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from astrid.broker.rabbitmq import DeadLetters, Letter, open_dead_letters
from astrid.broker.rabbitmq.letters import HELD_MAX
from astrid.broker.rabbitmq.topology import DEAD, work_queue
from astrid.cli import app
from astrid.commands import dlq
from astrid.errors import BrokerError, ConfigError
from astrid.wire import encode_batch
from tests.broker_bench import Bench, numbers, open_bench
from tests.line import open_line

pytestmark = pytest.mark.timeout(180)


def invoke(bench: Bench, arguments: Sequence[str]) -> tuple[Result, str]:
    printed = io.StringIO()
    with mock.patch.object(dlq, "out", Console(file=printed, width=140)):
        done = CliRunner().invoke(app, ["dlq", *arguments], env={"ASTRID_BROKER_URL": bench.url or "memory://"})
    return done, printed.getvalue() + done.output


async def astrid(bench: Bench, *arguments: str, expected: int = 0) -> str:
    """Run the command in a thread, for it has a loop of its own, and return what it printed."""
    done, printed = await asyncio.to_thread(invoke, bench, arguments)
    assert done.exit_code == expected, (printed, done.exception)
    return printed


async def refusal(bench: Bench, *arguments: str) -> str:
    """Run the command and return the sentence that it ends with; the shell around the commands prints it."""
    done, printed = await asyncio.to_thread(invoke, bench, arguments)
    assert isinstance(done.exception, ConfigError), (printed, done.exception)
    return str(done.exception)


async def set_aside(own: Bench, count: int, lane: str = "nightly") -> None:
    """Let a worker set aside batches 0 … count - 1, of a source that this version has."""
    await own.broker.publish([dataclasses.replace(own.batch(n, lane), attempt=4, pauses=2) for n in range(count)])
    for delivery in await own.receive_all(count):
        await own.broker.dead_letter(delivery, f"reason {numbers([delivery])[0]}")


@pytest.fixture
async def dead(own: Bench) -> Bench:
    """Give a bench whose source is one of this version's, with nothing in its queues."""
    own.source = "github"
    await own.broker.purge([own.source])
    return own


async def read(own: Bench) -> Sequence[Letter]:
    async with open_dead_letters(own.url) as queue:
        return (await queue.read())[0]


async def test_list_prints_when_whence_and_why_and_changes_nothing(dead: Bench) -> None:
    await set_aside(dead, 3)
    first, second = await astrid(dead, "list"), await astrid(dead, "list")
    assert first == second
    lines = first.splitlines()
    assert [line.rsplit("  ", 1)[1] for line in lines] == ["reason 0", "reason 1", "reason 2"]
    body = json.loads(await astrid(dead, "list", "--json"))
    assert body["count"] == 3
    for n, (line, letter) in enumerate(zip(lines, body["letters"], strict=True)):
        batch = dead.batch(n)
        assert letter["id"].startswith(line.split()[0])
        assert letter["at"][:10] in line
        assert line.split()[3:5] == ["github", batch.batch_id]
        expected = {"source": "github", "queue": "astrid.github.nightly", "batch_id": batch.batch_id, "run_id": 7}
        assert letter | expected | {"attempt": 4, "unreadable": ""} == letter


async def test_show_prints_a_letter_whole(dead: Bench) -> None:
    await set_aside(dead, 2)
    letter = (await read(dead))[1]
    for name in (letter.letter_id, letter.letter_id[:8]):
        text = await astrid(dead, "show", name)
        assert "reason 1" in text
        assert '"owner/é"' in text
        body = json.loads(await astrid(dead, "show", name, "--json"))
        assert body["message"].encode() == letter.body
    assert [found.letter_id for found in await read(dead)][1] == letter.letter_id
    assert "is no dead letter's id" in await refusal(dead, "show", "zz")
    assert "stands for 2" in await refusal(dead, "show", "")


async def test_requeue_puts_back_the_chosen_ones_as_if_they_had_never_failed(dead: Bench) -> None:
    await set_aside(dead, 4)
    letters = await read(dead)
    text = await astrid(dead, "requeue", letters[1].letter_id, letters[3].letter_id[:10])
    assert text.count("is queued again: github batch") == 2
    deliveries = await dead.receive_all(2)
    assert numbers(deliveries) == [1, 3]
    for n, delivery in zip((1, 3), deliveries, strict=True):
        assert delivery.batch == dead.batch(n)  # attempt and pauses too
        assert delivery.batch.batch_id == letters[n].batch_id
        assert delivery.returns == 0
        await dead.broker.ack(delivery)
    assert [letter.letter_id for letter in await read(dead)] == [letters[0].letter_id, letters[2].letter_id]


async def test_requeue_all_leaves_what_nobody_can_work_on(dead: Bench) -> None:
    """Garbage, a source of another version, a message past its size: they stay, in order, and say why."""
    await set_aside(dead, 1)
    stranger = dataclasses.replace(dead.batch(1), source="sourceforge")
    bodies = [b"\xff\x1b[2J no batch", encode_batch(stranger), encode_batch(dead.batch(2, "backfill"))]
    async with await aio_pika.connect(dead.url) as connection:
        channel = await connection.channel()
        for body in bodies:  # by somebody who knows nothing of our headers
            await channel.default_exchange.publish(aio_pika.Message(body), DEAD.name)
    text = await astrid(dead, "requeue", "--all", expected=1)
    assert text.count("queued again") == 2
    assert "it is no batch (message is not a batch: JSONDecodeError" in text
    assert "nobody works on 'sourceforge'" in text
    assert sorted(numbers(await dead.receive_all(2))) == [0, 2]
    left = await read(dead)
    assert [letter.body for letter in left] == bodies[:2]
    assert left[1].source == "sourceforge"
    body = json.loads(await astrid(dead, "requeue", "--all", "--json", expected=1))
    assert [len(body["requeued"]), len(body["left"])] == [0, 2]
    shown = await astrid(dead, "show", left[0].letter_id)
    assert "\x1b" not in shown  # a terminal obeys nothing that a message says


async def test_requeue_needs_to_be_told_what(dead: Bench) -> None:
    assert "--all" in await refusal(dead, "requeue")
    assert "--all" in await refusal(dead, "requeue", "0", "--all")


async def test_purge_drops_all(dead: Bench) -> None:
    await set_aside(dead, 3)
    assert await astrid(dead, "purge") == "3 dead letters were dropped.\n"
    assert await astrid(dead, "list") == "There are no dead letters.\n"
    assert json.loads(await astrid(dead, "purge", "--json")) == {"dropped": 0}


@pytest.mark.parametrize("arguments", [["list"], ["show", "0"], ["requeue", "--all"], ["purge"]])
async def test_memory_keeps_no_dead_letters(arguments: list[str]) -> None:
    async with open_bench() as memory:
        assert "ASTRID_BROKER_URL" in await refusal(memory, *arguments)


async def test_what_rabbitmq_set_aside_itself_tells_so(dead: Bench) -> None:
    """It came back as often as the delivery limit allows: RabbitMQ's own note of it is read."""
    await dead.broker.publish([dead.batch(5)])
    async with await aio_pika.connect(dead.url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(work_queue("github", "nightly").name)
        while (message := await queue.get(fail=False, timeout=10)) is not None:
            await message.reject(requeue=True)
            await asyncio.sleep(0.02)
    await asyncio.sleep(1.0)
    (letter,) = await read(dead)
    assert letter.reason == "it came back 50 times without an end"
    assert (letter.source, letter.queue) == ("github", "astrid.github.nightly")
    assert letter.at is not None
    await astrid(dead, "requeue", letter.letter_id)
    (again,) = await dead.receive_all(1)
    assert (numbers([again]), again.returns) == ([5], 0)


@pytest.mark.parametrize("start", range(6))
async def test_a_requeue_that_is_cut_off_loses_nothing(dead: Bench, start: int) -> None:
    """Wherever it ends, each letter is still here or in its work queue; at worst one is in both."""
    await set_aside(dead, 4)
    where = urlsplit(dead.url)
    async with open_line(where.hostname or "", where.port or 5672) as line:
        netloc = f"guest:guest@127.0.0.1:{line.port}"
        queue = DeadLetters(where._replace(netloc=netloc).geturl())
        await queue.open()
        line.cut_after("up", 150 + 500 * start)
        # Nobody tries again: the patience of the one that was cut ends with it.
        queue._link.patience_s = 0.0
        await asyncio.gather(queue.requeue(None, ["github"]), return_exceptions=True)
        await queue.close()
    await asyncio.sleep(1.0)  # the server returns what the cut connection held when it has seen the cut
    here = {letter.batch_id for letter in await read(dead)}
    there: set[str] = set()
    while deliveries := await dead.receive(wait_s=1.0):
        there |= {d.batch.batch_id for d in deliveries}
        for delivery in deliveries:
            await dead.broker.ack(delivery)
    assert here | there == {dead.batch(n).batch_id for n in range(4)}
    assert len(here & there) <= 1


async def test_a_reader_holds_no_more_than_a_small_plan_allows(dead: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared plans cut a connection that holds a thousand messages."""
    assert HELD_MAX < 1000
    monkeypatch.setattr("astrid.broker.rabbitmq.letters.HELD_MAX", 3)
    await set_aside(dead, 4)
    await set_aside(dead, 2, "backfill")
    assert "3 more are not shown" in await astrid(dead, "list")
    assert len(json.loads(await astrid(dead, "list", "--json"))["letters"]) == 3
    text = await astrid(dead, "requeue", "--all")  # those that go hold up nobody
    assert text.count("queued again") == 6


async def test_an_unreachable_broker_is_said(dead: Bench) -> None:
    async def attempt(url: str) -> Any:
        async with open_dead_letters(url):
            return None

    with pytest.raises(BrokerError, match="ASTRID_BROKER_URL"):
        await attempt("amqp://guest:guest@127.0.0.1:1/")
