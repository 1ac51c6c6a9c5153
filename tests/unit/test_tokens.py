"""Whose tokens are: what GitHub says, what is declared, and what neither says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from astrid.errors import ConfigError, Unavailable
from astrid.models import Request, Response
from astrid.ratelimit import token_name
from astrid.settings import load_settings
from astrid.simulators.github import User
from astrid.simulators.simulation import Simulation
from astrid.simulators.world import load_world
from astrid.tokens import REFUSED, UNKNOWN, Owners, Viewer, assign_users, match_declared, parse_viewer, read_users
from tests.virtual.virtual_time import run_virtual

START = 1_775_019_600.0
NAMES = ["aaaaaaaa", "bbbbbbbb", "12345678", "dddddddd"]


def says(database_id: object = 7, login: object = "octocat") -> Response:
    return Response(200, {}, orjson.dumps({"data": {"viewer": {"databaseId": database_id, "login": login}}}))


FORBIDDEN = Response(
    200,
    {},
    b'{"data":{"viewer":null},"errors":[{"type":"FORBIDDEN","message":"Resource not accessible by integration"}]}',
)
REFUSAL = Response(401, {}, b'{"message":"Bad credentials"}')


class TestViewer:
    def test_a_user(self) -> None:
        assert parse_viewer(says()) == Viewer(7, "octocat")

    @pytest.mark.parametrize("odd", [says(None), says(True), says("7"), says(-1), says(1.5), says(7, None)])
    def test_no_user(self, odd: Response) -> None:
        assert parse_viewer(odd) is None

    @given(st.binary(max_size=80) | st.sampled_from([b"null", b'{"data":[]}', b'{"data":{"viewer":7}}']))
    def test_any_body(self, body: bytes) -> None:
        assert parse_viewer(Response(200, {}, body)) is None


class TestAssignment:
    def test_what_github_says_goes_before_what_is_declared(self) -> None:
        viewers = {"aaaaaaaa": Viewer(7, "Octocat"), "bbbbbbbb": Viewer(7, "Octocat")}
        declared = {"aaaaaaaa": "somebody", "12345678": "octocat", "dddddddd": "bot[bot]"}
        assert assign_users(NAMES, viewers, declared) == {
            "aaaaaaaa": "user:7",
            "bbbbbbbb": "user:7",
            "12345678": "user:7",
            "dddddddd": "declared:bot[bot]",
        }

    def test_those_that_nobody_tells_of_are_one_user(self) -> None:
        assert set(assign_users(NAMES, {}, {}).values()) == {UNKNOWN}

    def test_beside_those_that_tell_the_others_are_left_out(self) -> None:
        """Whose they are is not known: they may be any of the others', and would spend its limits twice."""
        assert assign_users(NAMES, {"bbbbbbbb": Viewer(7, "o")}, {}) == {"bbbbbbbb": "user:7"}
        assert assign_users(NAMES, {}, {"bbbbbbbb": "o"}) == {"bbbbbbbb": "declared:o"}

    def test_refused_ones_spend_nothing_and_are_kept_to_say_so(self) -> None:
        users = assign_users(NAMES, {"aaaaaaaa": Viewer(7, "o")}, {}, ["bbbbbbbb", "aaaaaaaa"])
        assert users == {"aaaaaaaa": "user:7", "bbbbbbbb": REFUSED}
        assert Owners(users, {}, frozenset({"bbbbbbbb"})).count() == 1
        assert assign_users(NAMES[:2], {}, {}, ["bbbbbbbb"]) == {"aaaaaaaa": UNKNOWN, "bbbbbbbb": REFUSED}

    @given(st.data())
    def test_no_user_has_two_budgets(self, data: st.DataObject) -> None:
        """Whatever GitHub and the operator tell of tokens that really are two users'."""
        real = {name: data.draw(st.integers(1, 2), name) for name in NAMES}
        viewers = {n: Viewer(u, f"user-{u}") for n, u in real.items() if data.draw(st.booleans())}
        declared = {n: f"user-{u}" for n, u in real.items() if data.draw(st.booleans())}
        budgets: dict[int, set[str]] = {}
        for name, user in assign_users(NAMES, viewers, declared).items():
            budgets.setdefault(real[name], set()).add(user)
        assert all(len(users) == 1 for users in budgets.values()), budgets

    def test_places_and_names(self) -> None:
        declared = {"1": "x", "4": "y", "12345678": "z"}
        assert match_declared(declared, NAMES) == {"aaaaaaaa": "x", "dddddddd": "y", "12345678": "z"}

    @pytest.mark.parametrize("key", ["5", "0", "99999999", "cccccccc"])
    def test_a_token_that_is_not_there(self, key: str) -> None:
        with pytest.raises(ConfigError, match=r"ASTRID_GITHUB_TOKEN_USERS.*1 to 4"):
            match_declared({key: "x"}, NAMES)


@pytest.mark.parametrize("text", ["1", "1=", "=x", "0=x", "1=x,1=y", "zz=x", "1=a b", "1=x;2=y"])
def test_settings_that_make_no_sense(text: str) -> None:
    with pytest.raises(ConfigError, match="ASTRID_GITHUB_TOKEN_USERS"):
        load_settings({"ASTRID_GITHUB_TOKEN_USERS": text})


def test_settings() -> None:
    settings = load_settings({"ASTRID_GITHUB_TOKEN_USERS": " 1=octo-cat, 2=octo-cat\n3f2a91bc=app[bot]"})
    assert settings.read_github_token_users() == {"1": "octo-cat", "2": "octo-cat", "3f2a91bc": "app[bot]"}


class Upstream:
    """Answers each token's queries in turn, the last one for ever; an exception is raised."""

    def __init__(self, answers: Mapping[str, list[Response | Exception]]) -> None:
        self.answers = {token: list(given) for token, given in answers.items()}
        self.asked: list[str] = []

    async def send(self, request: Request, headers: Mapping[str, str]) -> Response:
        token = headers["Authorization"].removeprefix("Bearer ")
        self.asked.append(token)
        answers = self.answers[token]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def users_of(
    upstream: Upstream, declared: Mapping[str, str] | None = None, known: Mapping[str, Viewer] | None = None
) -> tuple[list[str | None], float]:
    """Return the users in the order of the tokens, and how many seconds it took to learn them."""

    async def read() -> tuple[list[str | None], float]:
        loop = asyncio.get_running_loop()
        tokens = [SecretStr(t) for t in upstream.answers]
        owners = await read_users(upstream.send, tokens, declared or {}, loop.time, lambda s: s, known)
        return [owners.users.get(token_name(t)) for t in upstream.answers], loop.time() - START

    return run_virtual(read(), START)


class TestReading:
    def test_tokens_of_one_user_apart_from_those_that_cannot_tell(self, caplog: pytest.LogCaptureFixture) -> None:
        upstream = Upstream(
            {"one": [says(7)], "two": [says(7)], "app": [FORBIDDEN], "dead": [REFUSAL], "three": [says(8, "x")]}
        )
        assert users_of(upstream) == (["user:7", "user:7", None, REFUSED, "user:8"], 0.0)
        assert upstream.asked == list(upstream.answers), "each once"
        assert token_name("app") in caplog.text
        assert "not used beside" in caplog.text
        assert token_name("dead") not in caplog.text, "that one is told of where it is refused"
        assert "ASTRID_GITHUB_TOKEN_USERS" in caplog.text

    def test_apps_among_themselves_are_one_user(self, caplog: pytest.LogCaptureFixture) -> None:
        assert users_of(Upstream({"one": [FORBIDDEN], "two": [FORBIDDEN]}))[0] == [UNKNOWN, UNKNOWN]
        assert "one user's" in caplog.text

    def test_what_was_told_before_stands_where_nobody_answers(self) -> None:
        upstream = Upstream({"one": [says(7)], "two": [Unavailable("away")], "gone": [REFUSAL]})
        known = {
            token_name("two"): Viewer(7, "octocat"),
            token_name("gone"): Viewer(9, "nine"),
            "other": Viewer(1, "x"),
        }
        assert users_of(upstream, known=known)[0] == ["user:7", "user:7", "user:9"]

    def test_declared_ones(self) -> None:
        upstream = Upstream({"one": [says(7)], "app": [FORBIDDEN], "other": [FORBIDDEN]})
        assert users_of(upstream, {"2": "octocat", "3": "ci"})[0] == ["user:7", "user:7", "declared:ci"]

    @pytest.mark.parametrize(
        ("trouble", "least_s"),
        [
            (Unavailable("away"), 2.0),
            (ConnectionResetError("gone"), 2.0),
            (Response(502, {}, b"<html>"), 2.0),
            (Response(200, {}, b'{"data":{"vie'), 2.0),
            (Response(403, {"retry-after": "30"}, b'{"message":"secondary rate limit"}'), 31.0),
            (Response(403, {}, b'{"message":"secondary rate limit"}'), 61.0),
        ],
    )
    def test_trouble_is_waited_out(self, trouble: Response | Exception, least_s: float) -> None:
        users, took_s = users_of(Upstream({"one": [trouble, says(7)]}))
        assert users == ["user:7"]
        assert took_s == pytest.approx(least_s)

    def test_but_not_for_ever(self) -> None:
        upstream = Upstream({"one": [Unavailable("away")]})
        users, took_s = users_of(upstream)
        assert users == [UNKNOWN]
        assert took_s < 60
        assert len(upstream.asked) == 4

    def test_the_simulated_github_tells(self) -> None:
        users = {"t1": User(5, "five"), "t2": User(5, "five"), "t3": User(6, "six"), "t4": User(9, "nine", dead=True)}
        simulation = Simulation(load_world(), users)
        now = datetime.fromtimestamp(START, UTC)

        async def send(request: Request, headers: Mapping[str, str]) -> Response:
            token = headers["Authorization"].removeprefix("Bearer ")
            return simulation.respond(request, token=token, now=now, night=date(2026, 3, 31))

        async def read() -> Owners:
            return await read_users(send, [SecretStr(t) for t in users], {}, lambda: START, lambda s: s)

        found = run_virtual(read(), START)
        assert [found.users[token_name(t)] for t in users] == ["user:5", "user:5", "user:6", REFUSED]
        assert found.count() == 2
        assert found.told[token_name("t3")] == Viewer(6, "six")
        assert simulation.convictions() == 0
