"""One life of one worker at the queues of one source: a channel of its own, and what has reached it.

The nightly lane is pushed, up to what the worker can hold; so whatever reaches it finds room. While there is work of a
backfill, both lanes are asked for instead, one batch at a time, the nightly lane first: so no batch of a backfill
starts while the nightly queue has one that nobody holds, and none of either lane lies at a worker that does not start
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import aiormq
from aiormq.abc import DeliveredMessage

from astrid.broker import LANES
from astrid.broker.rabbitmq.link import CALL_S, ERRORS, Session, close_quietly, driver_calls
from astrid.broker.rabbitmq.topology import DEAD, work_queue
from astrid.errors import BrokerError, Malformed
from astrid.models import Batch
from astrid.wire import decode_batch

log = logging.getLogger(__name__)

NIGHTLY, BACKFILL = LANES

POLL_S: Final = 0.5
"""An idle worker looks for batches of a backfill this often: a count, which costs the broker little."""

LINGER_S: Final = 10.0
"""So long what was pushed waits for its worker to ask; then it goes back, and nothing more is pushed until it asks."""

MESSAGE_BYTES_MAX: Final = 2**22
"""The largest batch asks a source about everybody: a hundred bytes for each of some ten thousand. 4.x takes 16 MiB."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A batch that has reached the worker: the broker's tag on this channel, and how often it had come back."""

    number: int
    batch: Batch
    returns: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that is no batch for this queue, and why."""

    number: int
    body: bytes
    reason: str
    source: str
    queue: str
    batch: Batch | None


class Reception:
    """The channel of one life of a worker for one source.

    Once it is over, for whatever reason, it stays over: what it held comes again through another one.

    Parameters
    ----------
    prefetch
        How many batches the worker can hold.
    set_aside
        Puts a message that is no batch among the dead letters and acknowledges it here.
    """

    def __init__(
        self,
        session: Session,
        source: str,
        prefetch: int,
        set_aside: Callable[[Reception, Unreadable], Awaitable[None]],
    ) -> None:
        self.session = session
        self.source = source
        self.held: set[int] = set()  # the tags of its deliveries
        self._nightly, self._backfill = (work_queue(source, lane) for lane in LANES)
        self._prefetch = prefetch
        self._set_aside = set_aside
        self._channel: aiormq.Channel | None = None
        self._consumer_tag = ""  # empty: nothing is pushed
        self._is_over = self._is_stopped = False
        self._arrivals: deque[Arrival] = deque()
        self._backfill_held: set[int] = set()
        self._news = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._next_look_s = 0.0
        self._switching = asyncio.Lock()
        self._calls = 0
        self._asked_s = 0.0
        self._lingering: asyncio.TimerHandle | None = None
        self._errands: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Declare the queues and open the channel.

        Raises
        ------
        BrokerError
            If a queue cannot be declared; the driver's errors where the line fails.
        """
        await self.session.declare(DEAD, self._nightly, self._backfill)
        self._channel = await self.session.channel()
        self._channel.closing.add_done_callback(lambda _: self._end())
        self._channel.on_consumer_cancel_callbacks.add(self._queue_is_gone)
        with driver_calls():
            await self._channel.basic_qos(prefetch_count=self._prefetch, timeout=CALL_S)

    @property
    def is_open(self) -> bool:
        """Tell whether what it holds is still its worker's."""
        return not self._is_over and self._channel is not None and not self._channel.is_closed

    async def receive(self, limit: int, until_s: float) -> list[Arrival]:
        """Return what has reached the worker, waiting for it until ``until_s`` of the loop's clock.

        A caller that is cancelled leaves its question under way: what it brings is taken by the next one.
        """
        loop = asyncio.get_running_loop()
        self._calls += 1
        try:
            while self.is_open and not self._is_stopped:
                if not self._arrivals:
                    await self._look()
                if taken := self._take(limit):
                    return taken
                if loop.time() >= until_s:
                    break
                await self._wait(until_s)
            return []
        finally:
            self._calls -= 1
            self._asked_s = loop.time()
            if self._lingering is None and self.is_open:
                self._lingering = loop.call_later(LINGER_S, self._linger_ends)

    def settle(self, number: int) -> None:
        """Note that a batch is no longer in the worker's hands."""
        self._backfill_held.discard(number)

    async def ack(self, number: int) -> None:
        """Acknowledge; the broker does not confirm it. It is written before whatever this channel says later."""
        assert self._channel is not None
        if not self._channel.write_queue.full():  # then nothing here waits, and nothing can fail half-way
            await self._channel.basic_ack(number, wait=False)
            return
        with driver_calls():
            async with asyncio.timeout(CALL_S):
                await self._channel.basic_ack(number, wait=False)

    def return_later(self, number: int) -> None:
        """Return a message to its queue, without waiting for it."""
        self._start(partial(self._return, [number]))

    async def stop(self) -> None:
        """Take nothing more, and return what the worker has not taken; what it holds stays its own."""
        self._is_stopped = True
        self._news.set()
        with contextlib.suppress(*ERRORS):  # then the channel ends, and everything returns
            await self._rest()

    async def close(self) -> None:
        """Close the channel; the broker returns what was not acknowledged to the queues."""
        self._end()
        errands = self._errands - {asyncio.current_task()}
        for errand in errands:
            errand.cancel()
        await asyncio.gather(*errands, return_exceptions=True)
        if self._channel is not None:
            await close_quietly(self._channel)

    def _end(self) -> None:
        self._is_over = True
        self._arrivals.clear()
        self._news.set()
        if self._lingering is not None:
            self._lingering.cancel()

    def _take(self, limit: int) -> list[Arrival]:
        taken = [self._arrivals.popleft() for _ in range(min(limit, len(self._arrivals)))]
        self._backfill_held |= {a.number for a in taken if a.batch.lane == BACKFILL}
        return taken

    async def _wait(self, until_s: float) -> None:
        """Wait for news, or for the moment to look again."""
        if self._arrivals or not self.is_open or self._is_stopped:
            return
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(until_s, self._next_look_s)):
                await self._news.wait()

    async def _look(self) -> None:
        """See what the broker does not push; in a task of its own, for a cancelled question would close the channel."""
        if self._looking is None:
            if asyncio.get_running_loop().time() < self._next_look_s:
                return
            self._looking = asyncio.create_task(self._look_around())
        await asyncio.shield(self._looking)

    async def _look_around(self) -> None:
        assert self._channel is not None
        try:
            with driver_calls():
                async with self._switching:
                    await self._ask()
        except ERRORS as exc:
            log.info("asking for batches of %s failed: %s", self.source, exc)
            self.session.forget(self._nightly, self._backfill)  # one of them may be gone
            self._end()
            self._start(partial(close_quietly, self._channel))
        finally:
            self._looking = None
            self._news.set()

    async def _ask(self) -> None:
        assert self._channel is not None
        self._next_look_s = asyncio.get_running_loop().time() + POLL_S
        if self._is_stopped:
            return
        if not self._backfill_held:
            found = await self._channel.queue_declare(self._backfill.name, passive=True, timeout=CALL_S)
            if not found.message_count:
                await self._push()
                return
            await self._push_no_more()
            if self._arrivals:
                return
        for queue, lane in ((self._nightly, NIGHTLY), (self._backfill, BACKFILL)):
            message = await self._channel.basic_get(queue.name, timeout=CALL_S)
            if not isinstance(message.delivery, aiormq.spec.Basic.GetEmpty):
                self._arrive(message, lane)
                self._next_look_s = 0.0  # there may be more
                return

    async def _push(self) -> None:
        """Let the broker push the nightly lane, unless it does."""
        assert self._channel is not None
        if self._consumer_tag:
            return

        async def arrive(message: DeliveredMessage) -> None:
            self._arrive(message, NIGHTLY)

        started = await self._channel.basic_consume(self._nightly.name, arrive, timeout=CALL_S)
        self._consumer_tag = started.consumer_tag or ""

    async def _push_no_more(self) -> None:
        assert self._channel is not None
        tag, self._consumer_tag = self._consumer_tag, ""
        if tag:
            await self._channel.basic_cancel(tag, timeout=CALL_S)

    def _linger_ends(self) -> None:
        """Let the worker rest if it asks no more; else look again when the time since it asked would be over."""
        left_s = self._asked_s + LINGER_S - asyncio.get_running_loop().time()
        self._lingering = None
        if self._calls or left_s > 0.0:
            self._lingering = asyncio.get_running_loop().call_later(max(left_s, 0.1), self._linger_ends)
        else:
            self._start(self._rest)

    async def _rest(self) -> None:
        """Let nothing more be pushed, and return what nobody has taken: others may have time for it."""
        async with self._switching:
            with driver_calls():
                await self._push_no_more()
            # Somebody may have asked meanwhile.
            if self._is_stopped or not self._calls:
                await self._return([arrival.number for arrival in self._arrivals])
                self._arrivals.clear()

    async def _return(self, numbers: Sequence[int]) -> None:
        assert self._channel is not None
        with driver_calls():
            async with asyncio.timeout(CALL_S):
                for number in numbers:
                    await self._channel.basic_nack(number, requeue=True)

    async def _queue_is_gone(self, _: Any) -> None:
        # The broker goes on without this consumer: nothing would ever arrive any more.
        log.warning("the queue of %s is gone: it is made anew", self.source)
        self.session.forget(self._nightly, self._backfill)
        self._start(self.close)

    def _arrive(self, message: DeliveredMessage, lane: str) -> None:
        """Take in a message; set aside one that is no batch for this queue."""
        if self._is_over:
            return
        number, batch = message.delivery_tag or 0, None
        try:
            if len(message.body) > MESSAGE_BYTES_MAX:
                raise Malformed(f"message of {len(message.body)} bytes, at most {MESSAGE_BYTES_MAX} are read")
            batch = decode_batch(message.body)
            if (batch.source, batch.lane) != (self.source, lane):
                raise Malformed(
                    f"batch of {batch.source!r}, lane {batch.lane!r}, in the queue of {self.source!r}, lane {lane!r}"
                )
        except Malformed as exc:
            queue = work_queue(self.source, lane).name
            found = Unreadable(number, message.body, str(exc), self.source, queue, batch)
            self._start(partial(self._set_aside, self, found))
        else:
            self._arrivals.append(Arrival(number, batch, count_returns(message.header.properties.headers)))
            self._news.set()

    def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        errand = asyncio.ensure_future(self._run(work))
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (BrokerError, *ERRORS) as exc:
            # Unacknowledged, a message comes again with the channel's end.
            log.warning("a message of %s stays where it is for now: %s", self.source, exc)


def count_returns(headers: Mapping[str, Any] | None) -> int:
    """Return how often a message came back to its queue: 4.3 counts most returns under a name of its own."""
    counts = [(headers or {}).get(name, 0) for name in ("x-delivery-count", "x-acquired-count")]
    return max(c if isinstance(c, int) and c > 0 else 0 for c in counts)
