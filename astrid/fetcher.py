"""From a request to its answer: permits, retries, conditional requests, receipts. Knows time and tasks, no socket.

What an upstream allows is :mod:`astrid.ratelimit`'s business, the sending itself a function that is handed in; so
the same code runs over aiohttp and over simulated upstreams in virtual time.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import SecretStr

from astrid import __version__
from astrid.answers import AnswerCache, StoredAnswer, address_of, keep_answer
from astrid.errors import NoToken, RateLimited, Unavailable
from astrid.models import Fetch, Request, Response
from astrid.ratelimit import ANSWER_S, LEASE_S, NIGHTLY, Ask, Grant, Receipt, rank_tokens
from astrid.signals import (
    Signal,
    read_github_signal,
    read_huggingface_signal,
    read_plain_signal,
    read_rate_limit,
)

log = logging.getLogger(__name__)

USER_AGENT: Final = f"astrid/{__version__} (open-source adoption index)"
MAX_WAIT_S: Final = 90.0
"""Longest wait for our own budget inside a request; longer ones go back to the broker."""
SPILL_S: Final = 2.0
"""A request that would wait longer for its own token tries the other ones, unless its own may answer with a 304."""
TRIES: Final = 3
RETRY_DELAYS_S: Final = (1.0, 4.0)
FLUSH_S: Final = 0.2
REAL_LEASE_S: Final = 180.0
REAL_ANSWER_S: Final = 75.0
"""A lease and its end in real seconds: on a fast clock the run's seconds are over before an answer can come."""

_SIGNALS: Final = {"github": read_github_signal, "huggingface": read_huggingface_signal}

Send = Callable[[Request, Mapping[str, str]], Awaitable[Response]]
"""The network: sends a request with exactly these headers and returns the answer, whatever its status.

Raises :class:`~astrid.errors.Unavailable`, ``TimeoutError`` or ``OSError`` if no whole answer came, and
:class:`~astrid.errors.Malformed` if the answer is larger than anybody may send."""

Exchange = Callable[[Sequence[Receipt], Sequence[int], Ask | None, float], Awaitable[Grant]]
"""Receipts and unused permits in, permits out: ``(receipts, unused, ask, now_s) -> Grant``; ``ask`` None only hands
back. :meth:`astrid.ratelimit.Budget.exchange`, here or behind an actor, answers."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One token of an upstream, or this machine's address: its name for logs, its secret, and who keeps its budget.

    Tokens of one ``user`` share a budget; empty: the credential has one of its own.
    """

    name: str
    secret: SecretStr | None
    exchange: Exchange
    user: str = ""


@dataclass(slots=True)
class _Permits:
    """Permits of one (credential, bucket, cost, lane) that are here and not used yet."""

    ready: deque[tuple[int, float]] = field(default_factory=deque)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Fetcher:
    """A ``Fetch`` over any network.

    Parameters
    ----------
    send
        The network.
    credentials
        Budgets per upstream, at least one for each that is asked.
    now_s, real_s
        The run's epoch seconds, and how many real seconds a duration of the run takes.
    answers
        Where answers are kept for conditional requests; None asks for everything anew.
    holder
        Who asks for the permits, see :class:`~astrid.ratelimit.Ask`.
    """

    def __init__(
        self,
        send: Send,
        credentials: Mapping[str, Sequence[Credential]],
        now_s: Callable[[], float],
        real_s: Callable[[float], float],
        answers: AnswerCache | None = None,
        holder: str = "",
    ) -> None:
        self._send = send
        self._credentials = credentials
        self._now_s = now_s
        self._real_s = real_s
        self._answers = answers
        self._holder = holder
        speed = 1.0 / real_s(1.0)
        self._lease_s = max(LEASE_S, REAL_LEASE_S * speed)
        self._answer_s = max(ANSWER_S, REAL_ANSWER_S * speed)
        self._permits: defaultdict[tuple[str, str, int, str], _Permits] = defaultdict(_Permits)
        self._receipts: dict[str, list[Receipt]] = defaultdict(list)
        self._flushes: dict[str, asyncio.Task[None]] = {}
        self._quarantined: dict[str, float] = {}
        self._paused_until_s: dict[str, float] = {}
        self._turns: Counter[str] = Counter()
        self.requests: dict[tuple[str, str], int] = defaultdict(int)
        self._spent: dict[int, dict[tuple[str, str], tuple[int, int]]] = defaultdict(dict)

    def for_run(self, lane: str, run_id: int) -> Fetch:
        """Return the ``Fetch`` of one lane whose requests go into the books of a run."""
        return functools.partial(self.fetch, lane=lane, run_id=run_id)

    @property
    def spenders(self) -> list[int]:
        """The runs that have spent something since their books were last taken."""
        return list(self._spent)

    def take_spent(self, run_id: int) -> dict[tuple[str, str], tuple[int, int]]:
        """Return (requests, points) per (upstream, bucket) that a run has spent since this was last asked."""
        return self._spent.pop(run_id, {})

    def put_back(self, run_id: int, spent: Mapping[tuple[str, str], tuple[int, int]]) -> None:
        """Take into the books again what was taken and could not be written."""
        for key, (requests, points) in spent.items():
            self._spend(run_id, *key, points, requests)

    def for_lane(self, lane: str) -> Fetch:
        """Return the ``Fetch`` of one lane over the same permits, receipts and answers."""
        return functools.partial(self.fetch, lane=lane)

    async def __call__(self, request: Request) -> Response:
        """Fetch in the nightly lane; see :meth:`fetch`."""
        return await self.fetch(request)

    async def fetch(self, request: Request, lane: str = NIGHTLY, run_id: int = 0) -> Response:
        """Send one request within its budget and return the answer, whatever its status.

        An answer that the upstream calls unchanged (304) comes back as the 200 that it was.

        Raises
        ------
        RateLimited
            If the upstream, or our budget, demands a longer wait than a worker should sleep.
        Unavailable
            If no answer came after short retries.
        NoToken
            If every credential of the upstream is in quarantine or none is set.
        Malformed
            If the body exceeds the size limit.
        """
        failures = 0
        pause_s = 60.0
        refusals: Counter[str] = Counter()
        while failures < TRIES:
            try:
                credential, permit_id = await self._acquire(request, lane, run_id)
                response, signal = await self._ask(request, credential, permit_id, run_id)
            except (Unavailable, TimeoutError, OSError) as exc:
                self._count(request.upstream, "unreachable")
                failures += 1
                if failures == TRIES:
                    raise Unavailable(
                        f"{request.upstream} did not answer {request.method} {request.path}: {_said(exc)}"
                    ) from exc
                await asyncio.sleep(self._real_s(RETRY_DELAYS_S[failures - 1]))
                continue
            if signal.verdict == "ok":
                return response
            if signal.verdict == "dead":
                # No failure of the request: it goes on with the next token, or with this one if a probe finds it
                # alive. One that is alive and refuses again means this request, which is the source's business.
                refusals[credential.name] += 1
                if refusals[credential.name] > 1:
                    return response
                continue
            failures += 1
            pause_s = signal.retry_after_s or pause_s
            # The budget now knows how long to wait; the next permit comes after the pause or not at all.
        raise RateLimited(
            f"{request.upstream} limits {request.path} again and again: the batch goes back to the queue",
            retry_after_s=pause_s,
        )

    async def close(self) -> None:
        """Hand back every receipt and unused permit."""
        for task in self._flushes.values():
            task.cancel()
        await asyncio.gather(*self._flushes.values(), return_exceptions=True)
        for credentials in self._credentials.values():
            for credential in credentials:
                await self._hand_back(credential)

    # Permits

    def _rank(self, request: Request) -> list[Credential]:
        """Order the credentials for a request: its own user first, and of that user its own token.

        What is not sticky goes round. Users come first because they, not tokens, have limits to be shared evenly.
        """
        credentials = self._credentials.get(request.upstream, ())
        if not request.sticky:
            turn = self._turns[request.upstream] = self._turns[request.upstream] + 1
            first = turn % max(len(credentials), 1)
            return [*credentials[first:], *credentials[:first]]
        by_user: dict[str, dict[str, Credential]] = defaultdict(dict)
        for credential in credentials:
            by_user[credential.user or credential.name][credential.name] = credential
        return [
            by_user[user][name]
            for user in rank_tokens(request.sticky, list(by_user))
            for name in rank_tokens(request.sticky, list(by_user[user]))
        ]

    async def _acquire(self, request: Request, lane: str, run_id: int) -> tuple[Credential, int]:
        ranked = self._rank(request)
        conditional = self._answers is not None and address_of(request) is not None
        until_s = self._now_s() + MAX_WAIT_S
        reasons: dict[str, str] = {}
        while True:
            waits: list[tuple[float, str]] = []
            elsewhere = True
            for n, credential in enumerate(ranked):
                if self._now_s() < self._quarantined.get(credential.name, 0.0):
                    continue
                left_s = until_s - self._now_s()
                patience_s = left_s if n == 0 and (conditional or len(ranked) == 1) else SPILL_S
                grant = await self._permit(credential, request, lane, patience_s, run_id)
                if grant.permit_ids:
                    return credential, grant.permit_ids[0]
                reasons[credential.name] = grant.reason
                if grant.dead:
                    self._quarantined[credential.name] = self._now_s() + grant.wait_s
                else:
                    elsewhere = elsewhere and grant.elsewhere
                    waits.append((grant.wait_s, f"{credential.name}: {grant.reason}"))
            if not waits:
                raise NoToken(_no_token(request.upstream, reasons))
            wait_s, reason = min(waits)
            if elsewhere or self._now_s() + wait_s > until_s:
                raise RateLimited(f"{request.upstream} ({reason})", retry_after_s=wait_s)
            await self._sleep(wait_s)

    async def _permit(
        self, credential: Credential, request: Request, lane: str, patience_s: float, run_id: int
    ) -> Grant:
        """Return a grant of one permit; or one of none, if it takes longer than ``patience_s`` or for good."""
        permits = self._permits[credential.name, request.bucket, request.cost, lane]
        permits.waiting += 1
        try:
            until_s = self._now_s() + patience_s
            async with permits.lock:
                while True:
                    while permits.ready:
                        permit_id, expires_s = permits.ready.popleft()
                        if self._now_s() < expires_s:
                            return Grant((permit_id,), expires_s)
                    grant = await self._exchange(credential, request, lane, permits)
                    if grant.dead or grant.elsewhere:
                        return grant
                    if grant.probe is not None:
                        await self._probe(credential, grant.permit_ids[0], grant.probe, run_id)
                    elif grant.permit_ids:
                        permits.ready.extend((p, grant.expires_s) for p in grant.permit_ids)
                    elif self._now_s() + grant.wait_s > until_s:
                        return grant
                    else:
                        await self._sleep(grant.wait_s)
        finally:
            permits.waiting -= 1
            if permits.ready and not permits.waiting:
                self._flush(credential)

    async def _exchange(self, credential: Credential, request: Request, lane: str, permits: _Permits) -> Grant:
        receipts = self._receipts.pop(credential.name, [])
        ask = Ask(
            request.bucket,
            request.cost,
            permits.waiting,
            token=credential.name,
            lane=lane,
            lease_s=self._lease_s,
            answer_s=self._answer_s,
            holder=self._holder,
            paused_until_s=self._paused_until_s.get(credential.user or credential.name, 0.0),
        )
        asking = asyncio.ensure_future(credential.exchange(receipts, (), ask, self._now_s()))
        try:
            grant = await asyncio.shield(asking)
            self._note_pause(credential, grant)
            return grant
        except asyncio.CancelledError:
            # The budget has taken the receipts and leased the permits; keep them, to be handed back.
            late = await asking
            if late.probe is None:
                permits.ready.extend((p, late.expires_s) for p in late.permit_ids)
            else:
                self._settle(credential, Receipt(late.permit_ids[0], None, self._now_s()))
            raise

    async def _probe(self, credential: Credential, permit_id: int, probe: Request, run_id: int) -> None:
        """Ask what the upstream thinks of a credential, and settle; its answer is the budget's business alone."""
        signal: Signal | None = None
        readings: dict[str, Signal] = {}
        started_s = self._now_s()
        try:
            response = await self._send(probe, self._headers(probe, credential))
            readings = read_rate_limit(response)
            # A body that is no JSON was torn on its way: it is as if none had come.
            if response.status < 500 and (response.status != 200 or readings or response.is_json()):
                signal = self._read_signal(probe, response)
                self._note_refusal(probe.upstream, credential, response, signal)
        finally:
            took_s = self._real_s(self._now_s() - started_s)
            self._settle(credential, Receipt(permit_id, signal, self._now_s(), took_s, readings))
            self._spend(run_id, probe.upstream, probe.bucket, 0)
            self._count(probe.upstream, "probe")

    def _note_refusal(self, upstream: str, credential: Credential, response: Response, signal: Signal) -> None:
        if signal.verdict != "dead":
            return
        log.error(
            "%s refuses token %s (%d): it is in quarantine and the others carry its work. Replace it in "
            "ASTRID_%s_TOKENS (names are the first hex digits of the token's BLAKE2b digest) or see why its account "
            "is suspended; it is tried again from time to time",
            upstream,
            credential.name,
            response.status,
            upstream.upper(),
        )

    # One request

    async def _ask(
        self, request: Request, credential: Credential, permit_id: int, run_id: int
    ) -> tuple[Response, Signal]:
        signal: Signal | None = None
        started_s = self._now_s()
        try:
            address = None if self._answers is None else address_of(request)
            kept = None if address is None else await self._kept(credential, address)
            conditions = {} if kept is None else kept.conditions()
            response = await self._send(request, self._headers(request, credential) | conditions)
            signal = self._read_signal(request, response)
        finally:
            took_s = self._real_s(self._now_s() - started_s)
            self._settle(credential, Receipt(permit_id, signal, self._now_s(), took_s))
            points = request.cost if signal is None or signal.points is None else signal.points
            self._spend(run_id, request.upstream, request.bucket, points)
        self._count(request.upstream, "304" if response.status == 304 else f"{response.status // 100}xx")
        if kept is not None and response.status == 304:
            return kept.revive(response), signal
        if self._answers is not None and address is not None and signal.verdict == "ok":
            fresh = keep_answer(response)
            if fresh is not None:
                await self._answers.put(credential.name, address, fresh)
        return response, signal

    async def _kept(self, credential: Credential, address: bytes) -> StoredAnswer | None:
        return None if self._answers is None else await self._answers.get(credential.name, address)

    def _headers(self, request: Request, credential: Credential) -> dict[str, str]:
        headers = {"User-Agent": USER_AGENT, **dict(request.headers)}
        if request.json is not None:
            headers["Content-Type"] = "application/json"
        if credential.secret is not None:
            headers["Authorization"] = f"Bearer {credential.secret.get_secret_value()}"
        return headers

    def _read_signal(self, request: Request, response: Response) -> Signal:
        read = _SIGNALS.get(request.upstream, read_plain_signal)
        return read(response, self._now_s())

    # Receipts

    def _settle(self, credential: Credential, receipt: Receipt) -> None:
        self._receipts[credential.name].append(receipt)
        self._flush(credential)

    def _flush(self, credential: Credential) -> None:
        if credential.name not in self._flushes or self._flushes[credential.name].done():
            self._flushes[credential.name] = asyncio.create_task(self._flush_later(credential))

    async def _flush_later(self, credential: Credential) -> None:
        await asyncio.sleep(FLUSH_S)
        await self._hand_back(credential)

    async def _hand_back(self, credential: Credential) -> None:
        receipts = self._receipts.pop(credential.name, [])
        unused: list[int] = []
        for (name, *_), permits in self._permits.items():
            if name == credential.name and not permits.waiting:
                unused += [permit_id for permit_id, _ in permits.ready]
                permits.ready.clear()
        if receipts or unused:
            self._note_pause(credential, await credential.exchange(receipts, unused, None, self._now_s()))

    def _note_pause(self, credential: Credential, grant: Grant) -> None:
        """Keep the end of a pause: a budget that begins anew has not heard of it."""
        self._paused_until_s[credential.user or credential.name] = grant.paused_until_s

    async def _sleep(self, wait_s: float) -> None:
        # At least a millisecond: on a fast clock a wait must still let answers arrive.
        await asyncio.sleep(max(self._real_s(wait_s), 0.001))

    def _spend(self, run_id: int, upstream: str, bucket: str, points: int, requests: int = 1) -> None:
        requests_before, points_before = self._spent[run_id].get((upstream, bucket), (0, 0))
        self._spent[run_id][upstream, bucket] = (requests_before + requests, points_before + points)

    def _count(self, upstream: str, outcome: str) -> None:
        self.requests[upstream, outcome] += 1


def _no_token(upstream: str, reasons: Mapping[str, str]) -> str:
    what = "set ASTRID_GITHUB_TOKENS to at least one token that works" if upstream == "github" else "none is set"
    said = "".join(f"; {name}: {reason}" for name, reason in sorted(reasons.items()))
    return f"no live credential for {upstream}: {what}{said}"


def _said(exc: Exception) -> str:
    return str(exc) if isinstance(exc, Unavailable) else f"{type(exc).__name__} {exc}".strip()
