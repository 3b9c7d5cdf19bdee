"""What all commands share: the edge where errors, durations and results become text."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from app.ground.home import home_folder
from dataset_rules.ground.errors import UserError
from dataset_rules.sources.locations import is_remote, local_source

OK, FINDINGS, BAD_INPUT, STOPPED = 0, 1, 2, 130

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")]
SPINS = "1000"  # the count that GNU's OpenMP takes itself where it knows of too many threads
DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")
EXTRAS = {
    **dict.fromkeys(("torch", "scipy", "skimage", "safetensors"), "unet"),
    **dict.fromkeys(("httpx", "obstore"), "remote"),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "export"),
    **dict.fromkeys(("pulumi", "pulumi_digitalocean", "pydo", "yaml"), "infra"),
}


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def print_json_line(value: Any) -> None:
    """One line of JSON on standard output, at once."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def number(value: float | None) -> str:
    """A score as people read it."""
    if value is None:
        return "undefined"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def note(text: str) -> None:
    """A line for the person; on standard error, so that output stays clean for pipes."""
    err.print(escape(text), soft_wrap=True)


def table(
    title: str, columns: list[str], rows: list[list[str]], *, styles: list[str] | None = None
) -> None:
    """A table on standard output; `styles` are those of the first cell of each row."""
    view = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for name in columns:
        view.add_column(name, overflow="fold")
    for row, style in zip(rows, styles or [""] * len(rows), strict=True):
        view.add_row(Text(row[0], style), *(escape(cell) for cell in row[1:]))
    out.print(view)


class _Rate(ProgressColumn):
    """Files a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} files/s" if task.speed else "", style="progress.data.speed")


@contextmanager
def progress(
    label: str, *, quiet: bool, is_bytes: bool = False, has_rate: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """A bar with count and remaining time on standard error; nothing where it is no terminal."""
    counts = (DownloadColumn(), TransferSpeedColumn()) if is_bytes else (MofNCompleteColumn(),)
    rate = (_Rate(),) if has_rate else ()
    columns = (TextColumn("{task.description}"), BarColumn(), *counts, *rate, TimeRemainingColumn())
    with Progress(*columns, console=err, disable=quiet or not err.is_terminal) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def seconds(text: str | None) -> float | None:
    """Seconds of a duration such as 90, 90s, 10m or 1h30m.

    Raises:
        UserError: if the text is no duration.
    """
    if text is None:
        return None
    match = DURATION.fullmatch(text.strip())
    parts = [float(part or 0) for part in match.groups()] if match else [0.0]
    total = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if total <= 0:
        raise UserError(
            "this is no duration", where="--time-limit",
            expected="90s, 10m or 1h30m (a bare number is seconds)", found=repr(text),
        )  # fmt: skip
    return total


def duration(seconds: float) -> str:
    """Seconds as people read them: 40 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def new_folder(path: Path) -> Path:
    """The path, refused where a file is in the way."""
    if path.exists() and not path.is_dir():
        raise UserError("a file is in the way", where=str(path), expected="a folder's name")
    return path


def source_of(text: str, *, quiet: bool) -> Path:
    """The folder or archive of a source; one that lies elsewhere is fetched and kept."""
    if not is_remote(text):
        return Path(text)
    downloads = home_folder(os.environ) / "downloads"
    with progress("fetching", quiet=quiet, is_bytes=True) as show:
        place = local_source(text, downloads, environment=os.environ, on_progress=show)
    note(f"fetched, and kept for the next time: {place}")
    return place


def _wait_asleep(environment: MutableMapping[str, str]) -> None:
    """Let torch's threads sleep soon while they wait for each other, before torch is loaded.

    They spin otherwise, which on a busy machine takes the processor from the very thread that
    they wait for: a training step took 11 s instead of 2.8 s beside four other programs.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)


def run(app: Callable[[], Any]) -> int:
    """Run a command line and translate what can go wrong into one line and an exit status."""
    _wait_asleep(os.environ)
    try:
        app()
    except UserError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        return BAD_INPUT
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0], "app")
        err.print(
            f"[bold red]error:[/] this command needs {error.name}; "
            f"install it with: pip install 'unetops\\[{extra}]'", soft_wrap=True,
        )  # fmt: skip
        return BAD_INPUT
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        err.print(
            f"[bold red]error:[/] {escape(place)}{escape(error.strerror or str(error))}; "
            "look at the path, its rights and the free space", soft_wrap=True,
        )  # fmt: skip
        return BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        err.print(
            "[bold red]error:[/] out of memory; end other programs or take a machine with "
            "more, then give the same command again (train: with --resume)", soft_wrap=True,
        )  # fmt: skip
        return BAD_INPUT
    except KeyboardInterrupt:
        return _stopped()
    except SystemExit as stop:
        return _stopped() if stop.code == STOPPED else int(stop.code or 0)
    return OK


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from unet.training.out_of_memory import (
        is_out_of_memory,  # reaches torch, which most commands never load
    )

    return is_out_of_memory(error)


def _stopped() -> int:
    err.print("stopped; the same command goes on where it was (train: with --resume)")
    return STOPPED
