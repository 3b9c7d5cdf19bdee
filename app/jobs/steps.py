"""What a job runs: job kind -> step function, in a process of its own.

`python -m app.jobs.steps` reads one request as JSON from standard input, runs the step and writes
one JSON object per line to standard output: its events, and at the end `finished` or `refused`.
The only caller of training.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.ground.locks import locked
from app.ground.settings import Settings
from app.jobs.process import die_with_parent
from dataset_rules.ground.disk import write_json
from dataset_rules.ground.errors import UserError

LOCK_WAIT_S = 30.0  # a killed writer is gone long before
TAKEN = "another process is writing this job's folder"

FINISHED = "finished"
REFUSED = "refused"
STOPPED = 75  # exit status: asked to end, saved, to be gone on with (EX_TEMPFAIL of sysexits.h)

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class StepRequest:
    """All that a step needs: folders and numbers, no database."""

    kind: str
    work: str  # the folder to write; of a job that was cut off it holds what was done
    inputs: dict[str, str]  # role -> finished file or folder
    parameters: dict[str, Any]

    def line(self) -> bytes:
        """As it is sent to the process of the step."""
        return json.dumps(asdict(self)).encode()


def doctor(request: StepRequest, tell: Tell) -> None:
    """Write `report.json`, what the doctor finds in the source, and pictures of it."""
    from dataset_rules.doctor.examine import examine_folder  # each step loads only what it needs
    from dataset_rules.doctor.previews import pictures_of
    from dataset_rules.rules.rules import read_rules
    from dataset_rules.sources.files import open_files

    rules = read_rules(Path(request.inputs["rules"])) if "rules" in request.inputs else None
    work = Path(request.work)
    with open_files(Path(request.inputs["source"])) as files:
        report = examine_folder(files, rules)
        pictures = pictures_of(files, report.findings, report.pairing, report.rules)
    work.mkdir(exist_ok=True)
    write_json(work / "pictures.json", pictures.model_dump(mode="json"))
    write_json(work / "report.json", report.document())


def dataset(request: StepRequest, tell: Tell) -> None:
    """Format the source by the rules."""
    from dataset_rules.formatting.format import format_dataset  # each step loads only what it needs
    from dataset_rules.rules.rules import read_rules

    format_dataset(
        Path(request.inputs["source"]),
        Path(request.work),
        read_rules(Path(request.inputs["rules"])),
        on_progress=lambda done, total: tell({"event": "progress", "done": done, "total": total}),
    )


def run(request: StepRequest, tell: Tell) -> None:
    """Train on the dataset, from the last checkpoint where there is one; SIGTERM saves one."""
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    from unet.errors import Stopped
    from unet.runs.train import train  # loads torch, which the web process never does

    try:
        train(
            [Path(request.inputs["dataset"])], Path(request.work),
            time_limit_s=request.parameters["time_limit_s"], seed=request.parameters["seed"],
            resume=True, on_event=tell, is_to_stop=end.is_set,
        )  # fmt: skip
    except Stopped:
        raise SystemExit(STOPPED) from None


def source(request: StepRequest, tell: Tell) -> None:
    """Fetch an archive and unpack it; `fetched.json` says what it was."""
    from app.jobs.fetching import fetch_source  # each step loads only what it needs

    fetch_source(
        request.parameters["url"], Path(request.work), Settings.from_environment(),
        lambda done, total: tell({"event": "progress", "done": done, "total": total}),
    )  # fmt: skip


STEPS: Mapping[str, Callable[[StepRequest, Tell], None]] = {
    "doctor": doctor,
    "dataset": dataset,
    "run": run,
    "source": source,
}


def main() -> int:
    """Run the step that standard input asks for."""
    die_with_parent()
    tell = _teller()
    request = StepRequest(**json.loads(sys.stdin.buffer.readline()))
    work = Path(request.work)
    work.parent.mkdir(parents=True, exist_ok=True)
    try:
        with locked(work.with_name(f"{work.name}.lock"), wait_s=LOCK_WAIT_S, busy=TAKEN):
            STEPS[request.kind](request, tell)
            tell({"event": FINISHED})
    except UserError as error:
        parts = {name: getattr(error, name) for name in ("where", "expected", "found", "remedy")}
        tell({"event": REFUSED, "what": error.what, **parts, "text": str(error)})
        return 2
    return 0


def _teller() -> Tell:
    """Take standard output for our lines alone: what libraries print goes to the log."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.set_inheritable(lines.fileno(), False)
    os.dup2(2, 1)

    def tell(event: dict[str, Any]) -> None:
        lines.write(json.dumps(event, default=float) + "\n")
        lines.flush()

    return tell


if __name__ == "__main__":
    sys.exit(main())
