"""`unetops demo`: the full workflow on a synthetic IHC dataset."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from dataset_rules.doctor.examine import examine
from dataset_rules.formatting.format import format_dataset
from dataset_rules.ground.disk import write_json
from dataset_rules.rules.rules import Rules, rules_document, rules_from_mapping
from unet.measurement.ihc import Comparison, pool_comparisons
from unet.measurement.measure_files import DOCUMENT, REPORT, measure_files
from unet.measurement.report import percent, signed
from unet.measurement.synthetic import read_truth, write_messy_folder, write_unseen_fields

FIELDS, UNSEEN = 40, 8  # 256 x 256 px each, about 40 nuclei
SEED, UNSEEN_SEED = 1, 2
PIXEL_SIZE_UM = 0.35  # of the synthetic fields, as in a 20x scan
THREADS = "2"  # as for the times in the README
STEPS = 7


@dataclass(frozen=True)
class DemoResult:
    """Paths of all results, and the measured against the true counts."""

    source: Path
    dataset: Path
    run: Path
    prediction: Path
    measurements: Path
    page: Path  # the HTML report
    scores: dict[str, Any]  # on the test split, as in `unetops evaluate --json`
    comparisons: dict[str, Comparison]  # per unseen field

    @property
    def total(self) -> Comparison:
        """All unseen fields pooled."""
        return pool_comparisons(tuple(self.comparisons.values()))

    @property
    def is_passed(self) -> bool:
        """True if pooled count and share are within the tolerances."""
        return self.total.is_within


def run_demo(
    out: Path, *, train_time_limit_s: float = 150.0, console: Console | None = None
) -> DemoResult:
    """Draw, doctor, format, train, evaluate, predict, measure; finished steps are reused.

    Args:
        out: folder of the demo; an interrupted demo resumes.
        train_time_limit_s: wall-clock limit for the training.
        console: receives the progress messages.
    """
    say = _Narrator(console or Console())
    source = _draw(out, say)
    rules = _doctor(source, out, say)
    dataset = _format(source, out, rules, say)
    run = _train(dataset, out, train_time_limit_s, say)
    scores = _evaluate(run, dataset, say)
    prediction = _predict(run, out, say)
    measurements = _measure(prediction, out, say)
    comparisons = _compare(measurements, read_truth(out / "unseen"))
    result = DemoResult(
        source, dataset, run, prediction, measurements, measurements / REPORT, scores, comparisons
    )
    say.table(result)
    return result


class _Narrator:
    """Prints each step, its result and how long it took."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started_at = self.step_started_at = time.monotonic()
        self.steps = 0

    def step(self, what: str) -> None:
        self.steps += 1
        self.step_started_at = time.monotonic()
        self.console.print(f"[bold cyan]{self.steps}/{STEPS}[/] {what}", highlight=False)

    def done(self, result: str) -> None:
        took_s = time.monotonic() - self.step_started_at
        self.console.print(
            f"    {result} [dim]({took_s:.1f} s)[/]", highlight=False, soft_wrap=True
        )

    def note(self, text: str) -> None:
        self.console.print(f"    [dim]{text}[/]", highlight=False, soft_wrap=True)

    @contextmanager
    def progress(self, total_s: float) -> Iterator[Callable[[float, str], None]]:
        """Progress bar updated with seconds and a text; hidden if the output is not a terminal."""
        columns = (TextColumn("   "), BarColumn(), TextColumn("{task.description}"))
        shown = self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=not shown) as bar:
            task = bar.add_task("planning", total=total_s)
            yield lambda done_s, text: bar.update(task, completed=done_s, description=text)

    def table(self, result: DemoResult) -> None:
        table = Table(title="Predicted against true counts on unseen fields")
        table.add_column("field", no_wrap=True)
        for name in ("drawn", "found", "error", "share drawn", "share found", "error"):
            table.add_column(name, justify="right")
        table.add_column("")
        for name, comparison in result.comparisons.items():
            table.add_row(*_cells(name, comparison))
        table.add_section()
        table.add_row(*_cells("all", result.total), style="bold")
        self.console.print(table)
        self._verdict(result)

    def _verdict(self, result: DemoResult) -> None:
        verdict = "[green]reached[/]" if result.is_passed else "[red]missed[/]"
        within = sum(c.is_within for c in result.comparisons.values())
        took_s = time.monotonic() - self.started_at
        self.console.print(
            f"Count within 10 %, share of positive nuclei within 5 points: [bold]{verdict}[/] "
            f"({within} of {len(result.comparisons)} single fields)\n"
            f"Report: {result.page}\nThe whole demo took {took_s:.0f} s.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


def _cells(name: str, c: Comparison) -> tuple[str, ...]:
    drawn, found = (
        percent(positive / count if count else None)
        for positive, count in ((c.known_positive, c.known), (c.found_positive, c.found))
    )
    return (
        name, str(c.known), str(c.found), signed(c.count_error, "%"),
        drawn, found, signed(c.share_error, "pt"),
        "[green]within[/]" if c.is_within else "[red]outside[/]",
    )  # fmt: skip


def _draw(out: Path, say: _Narrator) -> Path:
    say.step(f"Draw {FIELDS} fields of stained nuclei as a messy folder, and {UNSEEN} unseen ones")
    source = out / "messy"
    write_messy_folder(source, SEED, FIELDS)
    write_unseen_fields(out / "unseen", UNSEEN_SEED, UNSEEN)
    say.done(f"{source}")
    return source


def _doctor(source: Path, out: Path, say: _Narrator) -> Rules:
    say.step("Doctor: find pairs, mask kind and junk files; propose rules")
    document = examine(source).document()
    rules = rules_from_mapping(document["rules"], where="the proposed rules")
    write_json(out / "rules.json", rules_document(rules))
    say.done(
        f"{len(document['pairs'])} pairs, {len(document['unpaired_images'])} image without mask, "
        f"{len(document['ignored'])} other files; masks: {document['mask_kind']}; "
        f"rules in {out / 'rules.json'}"
    )
    return rules


def _format(source: Path, out: Path, rules: Rules, say: _Narrator) -> Path:
    say.step("Format: write the dataset according to the rules")
    dataset = format_dataset(source, out / "dataset", rules)
    samples = json.loads((dataset / "dataset.json").read_bytes())["samples"]
    splits = [sample["split"] for sample in samples]
    counts = ", ".join(f"{splits.count(s)} {s}" for s in ("train", "val", "test"))
    say.done(f"{len(samples)} samples ({counts}) in {dataset}")
    return dataset


def _train(dataset: Path, out: Path, time_limit_s: float, say: _Narrator) -> Path:
    os.environ.setdefault("OMP_NUM_THREADS", THREADS)
    from unet.runs.train import train  # loads torch, which the earlier steps do not need

    say.step(f"Plan and train a U-Net, at most {time_limit_s:.0f} s")
    state: dict[str, Any] = {}
    with say.progress(time_limit_s) as show:

        def on_event(event: dict[str, Any]) -> None:
            state.update(event)
            show(state.get("seconds", 0.0), _training(state))
            if event["event"] == "plan":
                say.note(f"planned {event['steps']} steps in {event['precision']}")
            elif event["event"] == "validation":
                say.note(_training(state))

        run = train(
            [dataset], out / "run", time_limit_s=time_limit_s, seed=0, resume=True,
            on_event=on_event,
        )  # fmt: skip
    say.done(f"{_training(state) if state else 'already trained'}; run in {run}")
    return run


def _training(state: dict[str, Any]) -> str:
    parts = [f"step {state.get('step', 0)}"]
    if "loss" in state:
        parts.append(f"loss {state['loss']:.3f}")
    if state.get("dice") is not None:
        parts.append(f"validation Dice {state['dice']:.3f}")
    return ", ".join(parts)


def _evaluate(run: Path, dataset: Path, say: _Narrator) -> dict[str, Any]:
    from dataset_rules.artifacts.dataset import Split
    from unet.scoring.evaluate import evaluate  # loads torch

    say.step("Evaluate on the held-out test split")
    scores = evaluate(run, dataset, Split.TEST).document()
    dice, f1 = scores["dice_mean"], scores["object_f1_50"]
    say.done(f"{scores['n']} images: Dice {dice or 0:.3f}, object F1 at IoU 0.5 {f1 or 0:.3f}")
    return scores


def _predict(run: Path, out: Path, say: _Narrator) -> Path:
    from unet.prediction.predict_files import predict_files  # loads torch

    say.step("Predict the unseen fields")
    prediction = predict_files(run, _unseen(out), out / "prediction")
    say.done(f"masks and instance maps in {prediction}")
    return prediction


def _measure(prediction: Path, out: Path, say: _Narrator) -> Path:
    say.step("Measure: separate the stains, count brown and blue nuclei, write the report")
    measurements = measure_files(
        _unseen(out), prediction, out / "measurements", pixel_size_um=PIXEL_SIZE_UM,
        known=read_truth(out / "unseen"),
    )  # fmt: skip
    say.done(f"table, JSON and page in {measurements}")
    return measurements


def _unseen(out: Path) -> list[Path]:
    return sorted((out / "unseen").glob("*.png"))


def _compare(measurements: Path, truth: dict[str, tuple[int, int]]) -> dict[str, Comparison]:
    images = json.loads((measurements / DOCUMENT).read_bytes())["images"]
    return {
        image["name"]: Comparison(image["count"], image["positive_count"], *truth[image["name"]])
        for image in images
    }
