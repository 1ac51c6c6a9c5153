"""The dead letters of RabbitMQ: look at them, put them back to work, or drop them.

A letter is named by the id of its message, or the first characters of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from astrid.errors import ConfigError
from astrid.shell import FAILED, Json, load_command_settings, out, print_json, run

if TYPE_CHECKING:
    from astrid.broker.rabbitmq import DeadLetters, Letter

T = TypeVar("T")

ID_SHOWN: Final = 12
BODY_SHOWN: Final = 2_000

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids, or their first characters.")]

dlq_app: Final = typer.Typer(help="The dead letters: batches that were set aside.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(dlq_app, name="dlq")


@dlq_app.command("list")
def list_letters(json: Json = False) -> None:
    """Print each dead letter: its id, when it was set aside, its source, its batch and the reason."""
    letters, count = _run(lambda queue: queue.read())
    if json:
        print_json({"count": count, "letters": [_body(letter) for letter in letters]})
        return
    for letter in letters:
        at = f"{letter.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if letter.at else "-"
        told = (
            letter.letter_id[:ID_SHOWN],
            f"{at:<19}",
            f"{letter.source or '-':<12}",
            f"{letter.batch_id or '-':<24}",
        )
        _say(f"{'  '.join(told)}  {letter.reason}")
    if count > len(letters):
        _say(f"{count - len(letters)} more are not shown, or just then in another reader's hands.")
    elif not letters:
        _say("There are no dead letters.")


@dlq_app.command()
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="Its id, or the first characters.")],
    json: Json = False,
) -> None:
    """Print one dead letter whole: where it came from, why it is here, and what it says."""
    letters, _ = _run(lambda queue: queue.read())
    (chosen,) = _find(letters, [letter_id])
    letter = next(found for found in letters if found.letter_id == chosen)
    body = _body(letter) | {"message": letter.body.decode("utf-8", "replace")}
    if json:
        print_json(body)
        return
    for name, value in body.items():
        text = "-" if value is None or value == "" else str(value)
        _say(f"{name:<11} {text if len(text) <= BODY_SHOWN else text[:BODY_SHOWN] + ' … (whole with --json)'}")


@dlq_app.command()
def requeue(
    ids: Ids = None,
    all_: Annotated[bool, typer.Option("--all", help="Put back every letter that can be.")] = False,
    json: Json = False,
) -> None:
    """Put dead letters back into their work queues, as if they had never failed; what is no batch stays here."""
    from astrid.sources import SOURCES

    if bool(ids) == all_:
        raise ConfigError("name the letters to put back (astrid dlq list shows their ids), or all of them with --all")

    def choose(letters: Sequence[Letter]) -> set[str]:
        return _find(letters, ids or ())

    done = _run(lambda queue: queue.requeue(None if all_ else choose, SOURCES))
    if json:
        stays = [_body(letter) | {"refusal": refusal} for letter, refusal in done.left]
        print_json({"requeued": [_body(letter) for letter in done.done], "left": stays})
    else:
        for letter in done.done:
            _say(f"{letter.letter_id[:ID_SHOWN]} is queued again: {letter.source} batch {letter.batch_id}")
        for letter, refusal in done.left:
            _say(f"{letter.letter_id[:ID_SHOWN]} stays here: {refusal}")
        if not done.done and not done.left:
            _say("There was nothing to put back.")
    if done.left:
        raise typer.Exit(FAILED)


@dlq_app.command()
def purge(json: Json = False) -> None:
    """Drop all dead letters for good. What they were to fetch stays in the ledger as gaps."""
    dropped = _run(lambda queue: queue.purge())
    if json:
        print_json({"dropped": dropped})
    else:
        _say(f"{dropped} dead letters were dropped.")


def _run(work: Callable[[DeadLetters], Awaitable[T]]) -> T:
    from astrid.broker.rabbitmq import open_dead_letters

    url = load_command_settings().broker_url.get_secret_value()
    if url.startswith("memory://"):
        raise ConfigError(
            "the broker in memory keeps nothing beyond its run: set ASTRID_BROKER_URL to the RabbitMQ whose dead "
            "letters are meant"
        )

    async def connected() -> T:
        async with open_dead_letters(url) as queue:
            return await work(queue)

    return run(connected())


def _find(letters: Sequence[Letter], names: Sequence[str]) -> set[str]:
    """Return the ids that the names stand for.

    Raises
    ------
    ConfigError
        If a name stands for none, or for several.
    """
    known = {letter.letter_id for letter in letters}
    chosen = set()
    for name in names:
        found = {name} & known or {letter_id for letter_id in known if letter_id.startswith(name)}
        if len(found) != 1:
            say = f"stands for {len(found)} dead letters: give more of the id" if found else "is no dead letter's id"
            raise ConfigError(f"{name!r} {say} (astrid dlq list shows them)")
        chosen |= found
    return chosen


def _body(letter: Letter) -> dict[str, Any]:
    return {
        "id": letter.letter_id,
        "at": letter.at,
        "source": letter.source,
        "reason": letter.reason,
        "queue": letter.queue,
        "batch_id": letter.batch_id,
        "run_id": letter.run_id,
        "attempt": letter.attempt,
        "size_bytes": len(letter.body),
        "unreadable": letter.unreadable,
    }


def _say(line: str) -> None:
    # A message may hold anything; what a terminal would obey is not printed.
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    out.print(line, markup=False, highlight=False, soft_wrap=True)
