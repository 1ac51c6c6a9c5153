"""One connection to RabbitMQ that is opened anew when it drops; what belongs to a lost connection is never used again.

aio-pika's robust connections would do the same behind our back, channels and consumers included. Here a
:class:`Session` is one connection, once: a delivery belongs to a channel of it, and a channel's number is given to no
other channel of it, so that an acknowledgement can reach nothing but the message it was meant for.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import ssl
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import aiormq
from aiormq.abc import AbstractConnection

from astrid.broker.rabbitmq.topology import Queue, declare
from astrid.errors import BrokerError

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_S: Final = 10.0
CALL_S: Final = 30.0
"""So long a call that needs an answer may take; a line that is silent for longer counts as dead."""

SETTLE_S: Final = 1.5
"""So long nothing is entrusted to a queue that was just made: RabbitMQ 3.10 notes a new quorum queue on disk up to a
second later than it says so. Killed before, it loses what the queue has confirmed, and the queue never works again."""

HEARTBEAT_S: Final = 30
"""Asked for unless the URL says otherwise (``?heartbeat=``): a worker that stopped is missed after about a minute."""

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 5.0

ERRORS: Final = (
    aiormq.AMQPError,
    RuntimeError,  # the driver's for a channel or connection that has just dropped
    OSError,
    TimeoutError,
    EOFError,
)


@contextlib.contextmanager
def driver_calls() -> Iterator[None]:
    """Make an error of what the driver raises in waiting calls when a connection ends.

    It ends them with a bare ``Exception``, or as if they had been cancelled, which would end a worker without a word.
    """
    try:
        yield
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ConnectionResetError("the connection ended") from exc
    except Exception as exc:
        if type(exc) is Exception:
            raise ConnectionResetError("the connection ended") from exc
        raise


class Session:
    """One connection: a channel that publishes with confirms, the queues known to be there, and further channels."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._publisher: aiormq.Channel | None = None
        self._opening = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._declared: set[str] = set()

    @property
    def is_open(self) -> bool:
        """Tell whether the connection is there, as far as is known."""
        return self._connection.is_opened

    async def channel(self, *, confirms: bool = False) -> aiormq.Channel:
        """Open a channel.

        Its number is new on this connection: the driver would give that of a closed one again, and what is said late on
        the closed one would be taken for the new one's.
        """
        number = next(self._numbers)
        if number > (self._connection.connection_tune.channel_max or 65535):
            await self.close()  # what is held comes again, over a connection with numbers to give
            raise ConnectionResetError("every number of a channel has been used")
        with driver_calls():
            async with asyncio.timeout(CALL_S):
                channel = await self._connection.channel(number, publisher_confirms=confirms, on_return_raises=True)
        assert isinstance(channel, aiormq.Channel)
        return channel

    async def declare(self, *queues: Queue) -> None:
        """Declare what this connection does not know; errors as in :func:`~.topology.declare`."""
        if all(queue.name in self._declared for queue in queues):
            return
        async with self._opening:
            unknown = [queue for queue in queues if queue.name not in self._declared]
            made = [await self._make(queue) for queue in unknown]
            if any(made):
                await asyncio.sleep(SETTLE_S)
            self._declared.update(queue.name for queue in unknown)

    def forget(self, *queues: Queue) -> None:
        """Declare these again before they are used: they may be gone."""
        self._declared.difference_update(queue.name for queue in queues)

    async def send(
        self, queue: Queue, body: bytes, headers: Mapping[str, str | int], timeout_s: float, routing_key: str = ""
    ) -> None:
        """Put a message into a queue; return when the broker has confirmed it.

        What goes through the queue's exchange keeps ``routing_key`` for where it goes from there.
        """
        await self.declare(queue)
        try:
            await self._publish(queue, body, headers, timeout_s, routing_key or queue.name)
        except (aiormq.PublishError, aiormq.ChannelNotFoundEntity):
            # Somebody deleted it since. (The broker confirms also what no queue took, but returns it first.)
            self.forget(queue)
            await self.declare(queue)
            await self._publish(queue, body, headers, timeout_s, routing_key or queue.name)

    async def start_sending(self, messages: Sequence[tuple[Queue, bytes]]) -> Sending:
        """Begin to put messages into queues that were declared, in this order."""
        channel = await self._open_publisher()
        return Sending(
            self, messages, [asyncio.ensure_future(_publish(channel, q, b, {}, q.name)) for q, b in messages]
        )

    async def unblocked(self, timeout_s: float) -> None:
        """Wait until the broker takes messages: low on memory or disk it reads nothing from those who publish.

        Raises
        ------
        BrokerError
            If it takes none within ``timeout_s``.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._connection.ready()
        except TimeoutError:
            raise BrokerError(
                "RabbitMQ takes no messages now, it is low on memory or disk (`rabbitmqctl status` names the alarm): "
                "free some, then try again"
            ) from None

    async def require_answer(self) -> None:
        """Close the connection if the broker does not answer on it."""
        try:
            async with asyncio.timeout(CONNECT_S):
                await close_quietly(await self.channel())
        except ERRORS:
            await self.close()

    async def close(self) -> None:
        """Close the connection; the broker returns what is unacknowledged."""
        # A connection that is half dead must not hold up the new one.
        with contextlib.suppress(*ERRORS):
            async with asyncio.timeout(CONNECT_S):
                with driver_calls():
                    await self._connection.close()

    async def _make(self, queue: Queue) -> bool:
        """Declare a queue and tell whether it is new."""
        is_new = False
        # On channels of their own, for a refusal closes the channel.
        channel = await self.channel()
        try:
            with driver_calls():
                try:
                    await channel.queue_declare(queue.name, passive=True, timeout=CALL_S)
                except aiormq.ChannelNotFoundEntity:
                    is_new = True
            if is_new:
                channel = await self.channel()
            with driver_calls():
                async with asyncio.timeout(CALL_S):
                    await declare(channel, queue)
        finally:
            await close_quietly(channel)
        return is_new

    async def _publish(
        self, queue: Queue, body: bytes, headers: Mapping[str, str | int], timeout_s: float, routing_key: str
    ) -> None:
        channel = await self._open_publisher()
        try:
            with driver_calls():
                async with asyncio.timeout(timeout_s):
                    await _publish(channel, queue, body, headers, routing_key)
        except TimeoutError:
            raise TimeoutError(f"{queue.name} confirms nothing") from None

    async def _open_publisher(self) -> aiormq.Channel:
        if self._publisher is not None and not self._publisher.is_closed:
            return self._publisher
        async with self._opening:
            if self._publisher is None or self._publisher.is_closed:
                self._publisher = await self.channel(confirms=True)
            return self._publisher


class Sending:
    """Messages on their way, to be confirmed."""

    def __init__(
        self, session: Session, messages: Sequence[tuple[Queue, bytes]], tasks: Sequence[asyncio.Task[None]]
    ) -> None:
        self._session = session
        self._messages = messages
        self._tasks = tasks

    def __len__(self) -> int:
        return len(self._messages)

    def cancel(self) -> None:
        """Wait for nothing any more."""
        for task in self._tasks:
            task.cancel()

    async def finish(self, timeout_s: float) -> list[tuple[tuple[Queue, bytes], BaseException]]:
        """Return the messages that were not confirmed in that time, each with what was said of it."""
        try:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
        except asyncio.CancelledError:
            self.cancel()
            raise
        for task in late:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        failed: list[tuple[tuple[Queue, bytes], BaseException]] = []
        for message, task, end in zip(self._messages, self._tasks, ends, strict=True):
            if end is None:
                continue
            error: BaseException = end
            if task in late:
                error = TimeoutError(f"{message[0].name} confirms nothing")
            elif isinstance(end, asyncio.CancelledError) or type(end) is Exception:
                error = ConnectionResetError("the connection ended")  # see driver_calls
            elif isinstance(end, aiormq.PublishError):
                self._session.forget(message[0])
            failed.append((message, error))
        return failed


async def _publish(
    channel: aiormq.Channel, queue: Queue, body: bytes, headers: Mapping[str, str | int], routing_key: str
) -> None:
    properties = aiormq.spec.Basic.Properties(
        content_type="application/json",
        delivery_mode=2,  # kept on disk
        headers=dict(headers),
        message_id=uuid.uuid4().hex,  # of no other: the driver tells by it which message was returned
    )
    # The driver need not wait for the socket: the confirmation says more.
    await channel.basic_publish(
        body, exchange=queue.exchange, routing_key=routing_key, properties=properties, mandatory=True, wait=False
    )


class Link:
    """Gives the session, and opens a new one when it has dropped.

    Parameters
    ----------
    url
        amqp(s)://user:password@host:port/vhost; for amqps ``?cafile=`` names the authority's file.
    patience_s
        How long the broker may be out of reach before callers hear of it.
    """

    def __init__(self, url: str, patience_s: float) -> None:
        self.patience_s = patience_s
        try:
            self._where = urlsplit(url)
        except ValueError:
            raise BrokerError("ASTRID_BROKER_URL is no address: write amqps://user:password@host/vhost") from None
        self._session: Session | None = None
        self._opening: asyncio.Task[Session | BrokerError] | None = None
        self._refused = ""  # why there is no session
        self._is_closed = False

    async def open(self) -> None:
        """Connect, without patience.

        Raises
        ------
        BrokerError
            If the broker cannot be reached or refuses; the message names host and port, never the password.
        """
        self._session = await self._connect()

    async def session(self, wait_s: float) -> Session | None:
        """Return the session; None if there is none yet after ``wait_s``.

        Raises
        ------
        BrokerError
            If the broker is out of reach for longer than the patience, or this link was closed.
        """
        if self._is_closed:
            raise BrokerError("the connection to RabbitMQ was closed by its owner")
        if self._session is not None and self._session.is_open:
            return self._session
        if self._opening is None:
            self._opening = asyncio.create_task(self._reopen(self._session))
        opening = self._opening
        await asyncio.wait([opening], timeout=wait_s)
        if not opening.done():
            return None
        if self._opening is opening:
            self._opening = None
        found = opening.result()
        if isinstance(found, BrokerError):
            raise BrokerError(str(found)) from found
        return found

    async def attempt(self, action: str, work: Callable[[Session], Awaitable[T]]) -> T:
        """Do ``work`` with the session; do it again with a new one where the line fails, for as long as the patience.

        Raises
        ------
        BrokerError
            As the work raises it, or if the patience has come to its end.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self.patience_s
        pause_s = FIRST_PAUSE_S
        while True:
            session = await self.session(max(0.0, deadline_s - loop.time()))
            if session is None:
                raise BrokerError(f"RabbitMQ did not {action}: {self._refused or 'it does not answer'}")
            try:
                return await work(session)
            except ERRORS as exc:
                if loop.time() >= deadline_s:
                    raise BrokerError(f"RabbitMQ did not {action} ({describe(exc)}): try again later") from exc
                log.info("RabbitMQ did not %s (%s): it is tried again", action, describe(exc))
            await asyncio.sleep(min(pause_s, max(0.0, deadline_s - loop.time())))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def close(self) -> None:
        """Close the connection for good."""
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
            found = (await asyncio.gather(self._opening, return_exceptions=True))[0]
            if isinstance(found, Session):
                await found.close()
        if self._session is not None:
            await self._session.close()

    async def _reopen(self, lost: Session | None) -> Session | BrokerError:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self.patience_s
        pause_s = FIRST_PAUSE_S
        if lost is not None:
            await lost.close()
        while True:
            try:
                self._session = await self._connect()
            except BrokerError as exc:
                self._refused = str(exc)
                if loop.time() >= deadline_s:
                    return exc
                log.info("%s", exc)
            else:
                return self._session
            await asyncio.sleep(min(pause_s, max(0.0, deadline_s - loop.time())))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _connect(self) -> Session:
        try:
            query = self._where.query
            if "heartbeat" not in parse_qs(query):
                query = f"{query}&heartbeat={HEARTBEAT_S}".lstrip("&")
            url = self._where._replace(query=query).geturl()
            with driver_calls():
                async with asyncio.timeout(CONNECT_S):
                    connection = await aiormq.connect(url, client_properties={"connection_name": "astrid"})
        except (*ERRORS, ValueError, KeyError) as exc:
            raise BrokerError(self._refusal(exc)) from exc
        return Session(connection)

    def _refusal(self, exc: BaseException) -> str:
        place = self._where.netloc.rpartition("@")[2]
        said, password = describe(exc), self._where.password
        if password:
            said = said.replace(unquote(password), "***").replace(password, "***")
        if isinstance(exc, aiormq.ProbableAuthenticationError):
            return f"RabbitMQ at {place} refuses the user or the password: correct ASTRID_BROKER_URL"
        if isinstance(exc.__cause__, ssl.SSLCertVerificationError):
            return (
                f"RabbitMQ at {place} shows a certificate that is not trusted ({exc.__cause__.verify_message}): name "
                "its authority's file in ASTRID_BROKER_URL, amqps://…/vhost?cafile=/path/ca.pem, and the host as the "
                "certificate does"
            )
        return f"cannot open RabbitMQ at {place} ({said}): check ASTRID_BROKER_URL and that the broker runs"


def describe(exc: BaseException) -> str:
    """Return what an error says, in one line."""
    said = " ".join(str(exc).split())
    return f"{type(exc).__name__}: {said}" if said else type(exc).__name__


async def close_quietly(channel: aiormq.Channel) -> None:
    """Close a channel, whatever its state."""
    with contextlib.suppress(*ERRORS):
        async with asyncio.timeout(CONNECT_S):
            with driver_calls():
                await channel.close()
