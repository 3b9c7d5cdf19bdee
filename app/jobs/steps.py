"""The steps that jobs run, each in its own process.

`python -m app.jobs.steps` reads one request as JSON from standard input, runs the step and writes
its events to standard output, one JSON object per line, ending with `finished` or `refused`.
The service trains nowhere else.
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

LOCK_WAIT_S = 30.0  # a killed writer ends much sooner
FOLDER_BUSY = "another process is writing this job's folder"

FINISHED = "finished"
REFUSED = "refused"
STOPPED = 75  # exit status: stopped by signal, saved, to be resumed (EX_TEMPFAIL of sysexits.h)

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class StepRequest:
    """All input of a step: folders and parameters, no database."""

    kind: str
    work: str  # output folder; after an interruption it contains what was done so far
    inputs: dict[str, str]  # role -> finished file or folder
    parameters: dict[str, Any]

    def line(self) -> bytes:
        """The request as sent to the step's process."""
        return json.dumps(asdict(self)).encode()


def doctor(request: StepRequest, report: Report) -> None:
    """Write the doctor's `report.json` on the source and `pictures.json`."""
    from dataset_rules.doctor.examine import examine_folder  # each step loads only what it needs
    from dataset_rules.doctor.previews import pictures_of
    from dataset_rules.rules.rules import read_rules
    from dataset_rules.sources.files import open_files

    rules = read_rules(Path(request.inputs["rules"])) if "rules" in request.inputs else None
    work = Path(request.work)
    with open_files(Path(request.inputs["source"])) as files:
        result = examine_folder(files, rules)
        pictures = pictures_of(files, result.findings, result.pairing, result.rules)
    work.mkdir(exist_ok=True)
    write_json(work / "pictures.json", pictures.model_dump(mode="json"))
    write_json(work / "report.json", result.document())


def dataset(request: StepRequest, report: Report) -> None:
    """Format the source by the rules."""
    from dataset_rules.formatting.format import format_dataset  # each step loads only what it needs
    from dataset_rules.rules.rules import read_rules

    format_dataset(
        Path(request.inputs["source"]),
        Path(request.work),
        read_rules(Path(request.inputs["rules"])),
        on_progress=lambda done, total: report({"event": "progress", "done": done, "total": total}),
    )


def run(request: StepRequest, report: Report) -> None:
    """Train on the dataset, from the last checkpoint if there is one; SIGTERM saves one."""
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    from unet.errors import Stopped
    from unet.runs.train import train  # loads torch, which the web process never does

    try:
        train(
            [Path(request.inputs["dataset"])], Path(request.work),
            time_limit_s=request.parameters["time_limit_s"], seed=request.parameters["seed"],
            resume=True, on_event=report, is_to_stop=end.is_set,
        )  # fmt: skip
    except Stopped:
        raise SystemExit(STOPPED) from None


def source(request: StepRequest, report: Report) -> None:
    """Download an archive and unpack it; `fetched.json` records its address and checksum."""
    from app.jobs.fetching import fetch_source  # each step loads only what it needs

    fetch_source(
        request.parameters["url"], Path(request.work), Settings.from_environment(),
        lambda done, total: report({"event": "progress", "done": done, "total": total}),
    )  # fmt: skip


STEPS: Mapping[str, Callable[[StepRequest, Report], None]] = {
    "doctor": doctor,
    "dataset": dataset,
    "run": run,
    "source": source,
}


def main() -> int:
    """Run the step requested on standard input."""
    die_with_parent()
    report = _open_report()
    request = StepRequest(**json.loads(sys.stdin.buffer.readline()))
    work = Path(request.work)
    work.parent.mkdir(parents=True, exist_ok=True)
    try:
        with locked(work.with_name(f"{work.name}.lock"), wait_s=LOCK_WAIT_S, busy=FOLDER_BUSY):
            STEPS[request.kind](request, report)
            report({"event": FINISHED})
    except UserError as error:
        parts = {name: getattr(error, name) for name in ("where", "expected", "found", "remedy")}
        report({"event": REFUSED, "what": error.what, **parts, "text": str(error)})
        return 2
    return 0


def _open_report() -> Report:
    """Reserve standard output for events; what libraries print goes to the log."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.set_inheritable(lines.fileno(), False)
    os.dup2(2, 1)

    def report(event: dict[str, Any]) -> None:
        lines.write(json.dumps(event, default=float) + "\n")
        lines.flush()

    return report


if __name__ == "__main__":
    sys.exit(main())
