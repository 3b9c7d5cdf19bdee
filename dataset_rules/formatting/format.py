"""Write the formatted dataset: in parallel, one file at a time, safe to stop and to resume."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dataset_rules.artifacts.dataset import DATASET, Dataset, DatasetClass, Split, split_of
from dataset_rules.artifacts.hashes import file_hash
from dataset_rules.artifacts.manifest import Step, begin, finish, make_source
from dataset_rules.checks.inspection import Depth, inspect_outcomes
from dataset_rules.checks.pixel_scan import Outcome
from dataset_rules.doctor.examine import Report, examine_folder
from dataset_rules.formatting.sample import Task, place_of
from dataset_rules.formatting.workers import PROGRESS, Failure, Worker, made_by, prepare
from dataset_rules.ground.disk import flushed, write_json
from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.findings import (
    Finding,
    Question,
    Severity,
    counted,
    errors_in,
    in_order,
    merged,
    some_of,
)
from dataset_rules.ground.parallel import each, processors
from dataset_rules.rules.rules import Rules, rules_document
from dataset_rules.sources.files import Files, opened_files

# Raised by hand when the same source and rules give another dataset. 2: problems.json tells what
# all pixels tell, and nothing of how the rules were inferred; shares of a class are counted in
# 255ths when a mask shrinks, and thin structures also take pixels that they cover less than half.
# 3: photographs that were decoded at half their size are interpolated, not averaged. 4: texts that
# are no masks are no images that were left out in problems.json.
VERSION = 4
PROBLEMS = "problems.json"
RULES = "rules.json"
MAX_LINES = 50  # problems that an error spells out

Progress = Callable[[int, int], None]


def format_dataset(
    source: Path,
    out: Path,
    rules: Rules,
    *,
    jobs: int | None = None,
    location: str | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Re-form a source into a dataset, which is `out`.

    Args:
        source: a folder or an archive with images and masks.
        out: a new folder, or one in which this very step was begun or finished.
        rules: what is null in them is inferred where the files leave no doubt.
        jobs: processes; as many as there are processors if None. The result is the same.
        location: where the source came from, if that is elsewhere; the provenance tells it.
        on_progress: called with the number of finished pairs and of all pairs.

    Raises:
        RulesError: if a question is open or a file is damaged; all problems are named at once.
        ArtifactError: if `out` holds anything else.
    """
    started = datetime.now(UTC)
    with opened_files(source) as folder:
        report = examine_folder(folder, rules, depth=Depth.HEADERS)  # the pixels come anyway
        _refuse(report, source)
        jobs = jobs or processors()
        prepare(len(report.pairing.pairs), jobs)
        step = _step(folder, location or str(source.resolve()), report, started)
        if begin(out, step):
            return out
        try:
            outcomes = _run(folder, out, report, jobs, on_progress)
        except RulesError:
            shutil.rmtree(out)  # only what this step wrote: another begin would refuse it
            raise
    findings = _findings(report, outcomes)
    finish_dataset(out, step, report.rules, outcomes, findings=findings, started=started)
    shutil.rmtree(out / PROGRESS, ignore_errors=True)
    return out


def _findings(report: Report, outcomes: Sequence[Outcome]) -> Iterator[Finding]:
    """Of the source, and of all pixels; they are sought when they are asked for."""
    yield from report.of_source
    yield from inspect_outcomes(outcomes, report.pairing, report.rules, report.inspection)


def _step(folder: Files, location: str, report: Report, started: datetime) -> Step:
    used = sorted({path for pair in report.pairing.pairs for path in (pair.image, *pair.masks)})
    files = dict(zip(used, each(lambda path: file_hash(folder / path), used), strict=True))
    origin = make_source(files, location=location, started=started)
    return Step("dataset", VERSION, (origin,), {"rules": rules_document(report.rules)})


def _refuse(report: Report, source: Path) -> None:
    """One error with every question and every problem of the source."""
    lines = [_line_to_write(question) for question in report.questions]
    lines += [finding.line() for finding in errors_in(report.findings)]
    if not lines and report.rules.classes is None:
        lines.append('the classes are not known; write "classes" into the rules')
    elif not lines and len(report.rules.classes or ()) < 2:
        lines.append(
            "the masks hold no class but background; look at the masks, or write the source "
            'values of each class into "classes"'
        )
    if lines:
        said = some_of(lines, MAX_LINES, "; ")
        raise RulesError(f"the source cannot be formatted: {said}", where=str(source))


def _line_to_write(question: Question) -> str:
    return f"{question.why}; write into the rules " + " or ".join(question.answers())


def _run(
    folder: Files, out: Path, report: Report, jobs: int, on_progress: Progress | None
) -> list[Outcome]:
    """Make all samples; the pairs that cannot be made are named together at the end."""
    tasks = _tasks(report)
    worker = Worker(folder, out, report.rules)
    outcomes: list[Outcome] = []
    failures: list[Failure] = []
    for done, made in enumerate(made_by(worker, tasks, jobs), start=1):
        if isinstance(made, Failure):
            failures.append(made)
        else:
            outcomes.append(made)
        if on_progress is not None:
            on_progress(done, len(tasks))
    if failures:
        _refuse_failures(failures)
    return outcomes


def _tasks(report: Report) -> list[Task]:
    rules = report.rules
    tasks = [
        Task(name, split_of(group, rules.split), group, pair.image, pair.masks, pair.class_ids)
        for pair, (name, group) in zip(report.pairing.pairs, report.named(), strict=True)
    ]
    places = [place_of(task.name, task.split, rules) for task in tasks]
    counts = Counter(path.casefold() for place in places for path in (place.image, place.mask))
    clashing = sorted(path for path, count in counts.items() if count > 1)
    if clashing:
        raise RulesError(
            "two files of the dataset would have one name", found=", ".join(clashing[:10]),
            remedy="choose another mask_keyword or layout 'separate'",
        )  # fmt: skip
    return sorted(tasks, key=lambda task: task.name)


def _refuse_failures(failures: Sequence[Failure]) -> None:
    said = some_of([failure.message for failure in failures], MAX_LINES, "; ")
    raise RulesError(
        f"{counted(len(failures), 'pair')} cannot be formatted, nothing was written: {said}",
        remedy="correct these files or list them in source.exclude",
    )


def finish_dataset(
    out: Path,
    step: Step,
    rules: Rules,
    outcomes: Sequence[Outcome],
    *,
    findings: Iterable[Finding],
    started: datetime,
) -> None:
    """Write what a dataset says of its samples, and seal it."""
    samples = sorted((s for o in outcomes for s in o.samples), key=lambda sample: sample.name)
    classes = tuple(DatasetClass(id=c.id, name=c.name) for c in rules.classes or ())
    dataset = Dataset(samples=tuple(samples), classes=classes)
    content: dict[str, str | None] = {DATASET: None, RULES: None, PROBLEMS: None}
    written: dict[str, str] = {}
    for outcome in outcomes:
        content.update(outcome.content)
        written.update(outcome.written)
    with flushed([out / path for path in written]):
        found = merged(finding for outcome in outcomes for finding in outcome.findings)
        problems = in_order([*findings, *found, *_empty_splits(dataset)])
        write_json(out / DATASET, dataset.model_dump(mode="json"))
        write_json(out / RULES, rules_document(rules))
        write_json(out / PROBLEMS, [finding.model_dump(mode="json") for finding in problems])
    finish(out, step, content=content, written=written, started=started)


def _empty_splits(dataset: Dataset) -> list[Finding]:
    return [
        Finding(
            code="empty_split", severity=Severity.WARNING,
            message=f"no sample fell into {split.value}",
            remedy="choose other shares, another split.seed, or list groups in split.groups",
        )
        for split in Split
        if not dataset.of(split)
    ]  # fmt: skip
