"""Service commands: demo, serve and its processes, migrations and access tokens."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.console import AsJson, new_folder, note, out, print_json, seconds, table

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from app.ground.settings import Settings

token_app = typer.Typer(no_args_is_help=True, help="Create, list and revoke access tokens.")

Host = Annotated[str, typer.Option(help="Address to listen on")]
Port = Annotated[int, typer.Option(min=0, max=65_535, help="0 picks a free port")]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Data directory; default: UNETOPS_HOME or ~/.local/share/unetops"
    ),
]


def demo(
    to: Annotated[Path, typer.Option("--out", metavar="DIR", help="Output folder")] = Path("demo"),
    time_limit: Annotated[str, typer.Option(metavar="150s", help="Training time")] = "150s",
    host: Host = "127.0.0.1",
    port: Port = 8000,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Exit after the report")] = False,
) -> None:
    """Run the full workflow on a synthetic IHC dataset: doctor to measurements, then serve."""
    from app.demo import run_demo

    result = run_demo(new_folder(to), train_time_limit_s=seconds(time_limit) or 150.0)
    if no_serve:
        return
    from app.store.intake import import_artifacts

    home = to / "service"
    import_artifacts(home, [result.dataset, result.run, result.prediction, result.measurements])
    _serve(host, port, home, first_page="/reports")


def serve(host: Host = "127.0.0.1", port: Port = 8000, data: Data = None) -> None:
    """Run web process, worker and predictor on this machine; Ctrl-C stops all."""
    _serve(host, port, data)


def web(host: Host = "127.0.0.1", port: Port = 8000, data: Data = None) -> None:
    """Run only the web process, e.g. behind a proxy on this machine; Ctrl-C stops it."""
    from app.supervisor import web as run_web

    run_web(host, port, data, lambda address: note(f"web on {address}"))


class Share(StrEnum):
    """Which jobs a worker takes."""

    ALL = "all"
    JOBS = "jobs"
    FETCHING = "fetching"


def worker(
    only: Annotated[
        Share,
        typer.Option(help="fetching: only downloads, which need the network; jobs: all others"),
    ] = Share.ALL,
    data: Data = None,
) -> None:
    """Run only worker and predictor. On Ctrl-C or SIGTERM jobs save, and resume on restart."""
    from app.supervisor import worker as run_worker

    run_worker(data, only)


def migrate(
    backup: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Back up the database to this folder first")
    ] = None,
    data: Data = None,
) -> None:
    """Migrate the database to this release's version; print the path of the backup."""
    from app.store.db import migrate as run_migrations

    settings = _settings(data)
    copy = run_migrations(settings, backup)
    if copy is not None:
        out.print(str(copy), markup=False, soft_wrap=True)
    elif backup is not None:
        note("no database yet: nothing to back up")


@token_app.command()
def create(
    role: Annotated[str, typer.Option(help="viewer, annotator or admin")] = "viewer",
    label: Annotated[str, typer.Option(help="Owner or purpose, shown by `token list`")] = "",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Create a token and print it once; only its hash is stored."""
    from app.access.tokens import Role, create_token

    if role not in list(Role):
        raise typer.BadParameter("expected viewer, annotator or admin", param_hint="--role")
    made = create_token(_engine(data), Role(role), label)
    if as_json:
        print_json({"id": made.id, "role": str(made.role), "token": made.secret})
    else:
        out.print(made.secret, markup=False, soft_wrap=True)


@token_app.command("list")
def list_(data: Data = None, as_json: AsJson = False) -> None:
    """List tokens by id; secrets are not stored."""
    from app.access.tokens import list_tokens

    rows = list_tokens(_engine(data))
    states = ["revoked" if row.revoked_at else "valid" for row in rows]
    if as_json:
        print_json([{"id": row.id, "role": row.role, "label": row.label, "state": state}
                    for row, state in zip(rows, states, strict=True)])  # fmt: skip
    else:
        table("Tokens", ["id", "role", "label", "state"],
              [[row.id, row.role, row.label, state]
               for row, state in zip(rows, states, strict=True)])  # fmt: skip


@token_app.command()
def revoke(token_id: str, data: Data = None) -> None:
    """Revoke a token and end its sessions."""
    from app.access.tokens import revoke_token

    revoke_token(_engine(data), token_id)
    out.print(f"revoked: {token_id}", markup=False)


def _serve(host: str, port: int, data: Path | None, *, first_page: str = "") -> None:
    from app.supervisor import serve as run_service

    run_service(
        host, port, data,
        on_ready=lambda address: out.print(
            f"ready on {address}{first_page} (Ctrl-C to stop)", soft_wrap=True
        ),
    )  # fmt: skip


def _engine(data: Path | None) -> "Engine":
    from app.store.db import migrate as run_migrations
    from app.store.db import open_engine

    settings = _settings(data)
    run_migrations(settings)
    return open_engine(settings)


def _settings(data: Path | None) -> "Settings":
    from dataclasses import replace

    from app.ground.settings import Settings

    settings = Settings.from_environment()
    return replace(settings, home=data.expanduser().resolve()) if data else settings
