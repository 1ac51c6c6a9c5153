"""The tools of the trials: lines do their harm at exactly the moment that they were told to."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from tests.chaos.lines import Line, Trap, open_lines
from tests.chaos.night import until
from tests.chaos.wire import AmqpReader, MovingReader, PostgresReader, Statements

PREAMBLE = b"AMQP\x00\x00\x09\x01"


def method(class_id: int, method_id: int, rest: bytes = b"") -> bytes:
    payload = struct.pack(">HH", class_id, method_id) + rest
    return struct.pack(">BHI", 1, 1, len(payload)) + payload + b"\xce"


ACK = method(60, 80, struct.pack(">QB", 7, 0))
PUBLISH = method(60, 40, b"\0\0\0\1q\0")
BODY = struct.pack(">BHI", 3, 1, 5) + b"\x01\x00\x3c\x00P" + b"\xce"  # a body that looks like an acknowledgement


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">I", len(body) + 4) + body


def test_a_moving_counter_moves_and_keeps_its_length() -> None:
    answer = b'HTTP/1.1 200 OK\r\n\r\n{"dependentCount":12345,"directDependentCount":4115,"n":[{"dependentCount": 5}]}'
    (first, _), (second, _) = (unit for _ in range(2) for unit in MovingReader().read(answer))
    assert len({answer, first, second}) == 3
    assert {len(answer)} == {len(first), len(second)}
    assert first.replace(first[first.index(b"12") + 2 :][:3], b"345", 1) == answer


START = struct.pack(">II", 8, 196608)


@pytest.mark.parametrize("step", [1, 3, 10_000])
def test_frames_are_named_however_they_arrive(step: int) -> None:
    stream = PREAMBLE + PUBLISH + BODY + ACK + ACK
    reader = AmqpReader("client")
    units = [unit for i in range(0, len(stream), step) for unit in reader.read(stream[i : i + step])]
    assert b"".join(unit for unit, _ in units) == stream
    assert [name for _, name in units if name] == ["publish", "ack", "ack"]
    assert [name for _, name in AmqpReader("server").read(ACK + method(60, 60))] == ["confirm", "deliver"]


@pytest.mark.parametrize(
    ("asked", "answered", "event"),
    [
        ([message(b"Q", b"UPDATE batch SET state = 'done'\0")], [b"UPDATE 1\0"], "settle"),
        ([message(b"P", b"s1\0UPDATE batch SET state = $1\0"), message(b"B", b"\0s1\0")], [b"UPDATE 1\0"], "settle"),
        # Named, and not used in this transaction.
        ([message(b"P", b"s1\0UPDATE batch SET state = $1\0")], [], ""),
        ([message(b"Q", b"INSERT INTO run_cost VALUES (1)\0")], [b"INSERT 0 1\0"], "commit"),
        ([message(b"Q", b"SELECT 1 FROM lease FOR UPDATE\0")], [b"SELECT 1\0"], ""),
        # Of one whose first row alone is read the server says nothing.
        ([message(b"Q", b"WITH s AS (SELECT 1)\nUPDATE batch b\nSET state = 'done'\0")], [], "settle"),
    ],
)
def test_a_commit_is_named_by_what_its_transaction_did(asked: list[bytes], answered: list[bytes], event: str) -> None:
    statements = Statements()
    client, server = PostgresReader("client", statements), PostgresReader("server", statements)
    stream = b"".join([START, *asked])
    assert b"".join(unit for unit, _ in client.read(stream)) == stream
    answers = b"".join(message(b"C", tag) for tag in [*answered, b"COMMIT\0"])
    names = [name for i in range(len(answers)) for _, name in server.read(answers[i : i + 1])]
    assert names == [""] * len(answered) + [event]
    # What a transaction did is not the next one's.
    assert [name for _, name in server.read(message(b"C", b"COMMIT\0"))] == [""]


@asynccontextmanager
async def open_echo(protocol: str = "amqp") -> AsyncGenerator[tuple[Line, list[bytes]]]:
    """Give a line to a server that keeps what it hears and says it again."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                heard.append(data)
                writer.write(data)
            heard.append(b"<end>")
        except ConnectionError:
            heard.append(b"<broken>")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    line = Line("test", protocol, "127.0.0.1", server.sockets[0].getsockname()[1])
    async with open_lines(line):
        yield line, heard
    server.close()
    await server.wait_closed()


async def _until_heard(heard: list[bytes], count: int) -> bytes:
    async def enough() -> bool:
        return sum(map(len, heard)) >= count

    assert await until(enough, 10.0, 0.01), heard
    return b"".join(heard)


@pytest.mark.parametrize("passes", [False, True])
async def test_the_nth_event_cuts_its_connection_before_or_after_it_passes(passes: bool) -> None:
    async with open_echo() as (line, heard):
        trap = Trap("ack", 2, passes=passes, cuts=True)
        line.traps.append(trap)
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        sent = PREAMBLE + PUBLISH + BODY + ACK
        writer.write(sent + ACK + PUBLISH)
        await asyncio.wait_for(trap.sprung.wait(), 10)
        said = await _until_heard(heard, len(sent) + (len(ACK) if passes else 0) + 5)
        assert said.replace(b"<end>", b"").replace(b"<broken>", b"") == sent + (ACK if passes else b"")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(10_000)
        writer.close()
        assert line.seen == {"publish": 1, "ack": 2}


async def test_what_a_trap_does_happens_while_its_event_is_held_back() -> None:
    async with open_echo() as (line, heard):
        at_that_moment: list[bytes] = []
        line.traps.append(Trap("publish", 1, passes=True, then=lambda: at_that_moment.append(b"".join(heard))))
        _, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(PREAMBLE)
        await _until_heard(heard, len(PREAMBLE))
        writer.write(PUBLISH)
        assert await _until_heard(heard, len(PREAMBLE + PUBLISH)) == PREAMBLE + PUBLISH
        assert at_that_moment == [PREAMBLE]
        writer.close()


async def test_a_frozen_line_holds_everything_back_and_loses_nothing() -> None:
    async with open_echo("http") as (line, heard):
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        line.freeze()
        writer.write(b"hello")
        late = asyncio.create_task(asyncio.open_connection("127.0.0.1", line.port))
        await asyncio.sleep(0.2)
        assert heard == []
        line.thaw()
        assert await asyncio.wait_for(reader.readexactly(5), 10) == b"hello"
        _, second = await late
        second.close()
        writer.close()


async def test_an_abandoned_client_hears_nothing_until_it_is_cut() -> None:
    async with open_echo("http") as (line, heard):
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(b"hello")
        await reader.readexactly(5)
        line.abandon()
        await _until_heard(heard, 5 + len(b"<broken>"))
        answer = asyncio.create_task(reader.read())
        done, _ = await asyncio.wait({answer}, timeout=0.3)
        assert not done
        other_reader, other = await asyncio.open_connection("127.0.0.1", line.port)
        other.write(b"again")
        assert await asyncio.wait_for(other_reader.readexactly(5), 10) == b"again"
        line.cut()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(answer, 10)
        writer.close()
        other.close()


async def test_a_closed_door_lets_nobody_in() -> None:
    async with open_echo("http") as (line, _):
        line.close_door()
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(reader.readexactly(1), 10)
        writer.close()
        line.open_door()
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(b"x")
        assert await asyncio.wait_for(reader.readexactly(1), 10) == b"x"
        writer.close()
