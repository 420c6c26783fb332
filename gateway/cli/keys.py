"""`stillmotion keys`: who may use this server. Works on the server's own database, beside it or without it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from contracts.jobs import DEFAULT_PRIORITY, HIGHEST_PRIORITY, LOWEST_PRIORITY
from gateway.cli.client.words import typed
from web.command import say

if TYPE_CHECKING:  # they bring the database's libraries, half of the time in which any other command starts
    from gateway.auth.keys import KeyRecord, KeyStore
    from gateway.settings import GatewaySettings

app = typer.Typer(no_args_is_help=True, help="Who may use this server: make, list and revoke API keys.")

_COLUMNS = ("name", "id", "begins with", "created", "last used", "rate", "jobs", "priority", "state")
_MOST = 2**31 - 1  # of an integer in Postgres
_WIDE = 240  # a line a key where the output goes to a program

NameOrId = Annotated[str, typer.Argument(help="Name or id, as `list` shows them.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who or what will use the key.")],
    rate: Annotated[str | None, typer.Option(help="Requests for work, such as 30/minute.")] = None,
    max_jobs: Annotated[int | None, typer.Option(min=1, max=_MOST, help="Its jobs that wait or run at once.")] = None,
    best_priority: Annotated[
        int, typer.Option(min=HIGHEST_PRIORITY, max=LOWEST_PRIORITY, help="The smallest, so earliest, of its jobs.")
    ] = DEFAULT_PRIORITY,
    new: Annotated[bool, typer.Option("--new", help="Also where no server has kept anything yet.")] = False,
) -> None:
    """Make a key and show it, once."""
    from gateway.auth.keys import KeyLimits

    limits = KeyLimits(rate=rate, max_jobs=max_jobs, best_priority=best_priority)
    with _keys(new=new) as keys:
        key, secret = keys.create(typed(name), limits)
        try:
            _show(key, secret)
        except OSError as error:  # such as a full disk, where the output goes
            keys.revoke(key.id)
            _fail(f"The key could not be shown ({error.strerror or error}), and was revoked.")


def _show(key: "KeyRecord", secret: str) -> None:
    """Raises `OSError`: it could not be shown."""
    from gateway.settings import GatewaySettings

    notes = Console(stderr=True)
    notes.print(Text(f"Key {key.id} for {key.name}, of the server that keeps its data in {_place(GatewaySettings())}."),
                soft_wrap=True)
    notes.print(Text("It is shown this once; what is kept is its hash."))
    say(secret)  # alone on standard output, so that a script can take it from there
    notes.print(Text("Callers send it as `Authorization: Bearer <key>`."))


@app.command("list")
def list_keys() -> None:
    """Show every key: when it was made and last used, and what it may do."""
    with _keys() as keys:
        table = Table(*_COLUMNS, box=None)
        for key in keys.all():
            table.add_row(*map(Text, _row(key)))
    Console(width=None if Console().is_terminal else _WIDE).print(table)


@app.command()
def revoke(key: NameOrId) -> None:
    """Let a key open nothing from now on; its jobs stay, and run to their ends."""
    with _keys() as keys:
        revoked = keys.revoke(typed(key))
    typer.echo(f"Revoked {revoked.id} ({revoked.name}).")


@app.command("webhook-secret")
def webhook_secret(
    key: Annotated[str | None, typer.Argument(help="Name or id; left out, that of callers without a key.")] = None,
) -> None:
    """Show what the webhooks of a key's jobs are signed with (Standard Webhooks)."""
    from gateway.auth.keys import LOCAL_OWNER
    from gateway.auth.signing import open_signer
    from gateway.settings import GatewaySettings

    with _keys() as keys:
        owner = LOCAL_OWNER if key is None else keys.one(typed(key)).id
        settings = GatewaySettings()
        given = settings.secret.get_secret_value() if settings.secret else None
        typer.echo(open_signer(given, settings.state_dir).webhook_secret(owner))


def _row(key: "KeyRecord") -> tuple[str, ...]:
    return (
        key.name, key.id, f"{key.starts_with}…", _day(key.created_at), _day(key.last_used_at),
        key.limits.rate or "any", str(key.limits.max_jobs or "any"), str(key.limits.best_priority or DEFAULT_PRIORITY),
        "usable" if key.revoked_at is None else f"revoked {_day(key.revoked_at)}",
    )


def _day(seconds: float | None) -> str:
    return "never" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _place(settings: "GatewaySettings") -> str:
    if settings.database_url is not None:
        from gateway.database.database import normal_url

        return normal_url(settings.jobs_database_url).render_as_string(hide_password=True)
    return str(settings.data_dir.absolute())


@contextmanager
def _keys(*, new: bool = False) -> "Iterator[KeyStore]":
    """The keys of the server that this environment describes; ends the command with a sentence where one is due."""
    from sqlalchemy.exc import SQLAlchemyError

    from gateway.auth.keys import KeyNameRefused, KeyNotFound, KeyStore, RateNotReadable
    from gateway.settings import GatewaySettings
    from gateway.storage.deployment import open_database

    try:
        settings = GatewaySettings()
        if settings.database_url is None and not new and not settings.jobs_database_file.exists():
            _fail(
                f"No server keeps its data in {_place(settings)}: set STILLMOTION_DATA to the folder of the one that "
                "you mean, or start it there once. `keys create --new` makes a key before the first start."
            )
        database = open_database(settings)
        try:
            yield KeyStore(database)
        finally:
            database.close()
    except ValidationError as error:
        first = error.errors()[0]
        _fail(f"{first['loc'][0]}: {first['msg']}.")
    except UnicodeEncodeError:
        _fail("What was given is no UTF-8.")
    except (KeyNameRefused, KeyNotFound, RateNotReadable) as error:
        _fail(str(error))
    except (SQLAlchemyError, OSError) as error:
        _fail(f"The server's database cannot be used: {getattr(error, 'orig', None) or error}")


def _fail(sentence: str) -> NoReturn:
    Console(stderr=True).print(Text(sentence, style="red"), soft_wrap=True)
    raise typer.Exit(1)
