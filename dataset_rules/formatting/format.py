"""Write the formatted dataset in parallel; can be stopped and resumed at any point."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dataset_rules.artifacts.dataset import DATASET, Dataset, DatasetClass, Split, assign_split
from dataset_rules.artifacts.hashes import file_hash
from dataset_rules.artifacts.manifest import Step, begin, finish, make_source
from dataset_rules.checks.inspection import Depth, inspect_outcomes
from dataset_rules.checks.pixel_scan import Outcome
from dataset_rules.doctor.examine import Report, examine_folder
from dataset_rules.formatting.sample import Task, sample_paths
from dataset_rules.formatting.workers import PROGRESS, Failure, Worker, preload, run_tasks
from dataset_rules.ground.disk import flush_in_background, write_json
from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.findings import (
    Finding,
    Question,
    Severity,
    counted,
    errors_in,
    join_limited,
    merge_findings,
    sort_findings,
)
from dataset_rules.ground.parallel import available_cpus, parallel_map
from dataset_rules.rules.rules import Rules, rules_document
from dataset_rules.sources.files import Files, open_files

# Raised by hand when the same source and rules give a different dataset. 2: problems.json has the
# findings of all pixels and none on how the rules were inferred; class shares are counted in
# 255ths when a mask shrinks, and thin structures also get pixels that they cover less than half.
# 3: photographs decoded at half size are interpolated, not averaged. 4: text files that are not
# masks no longer count as left-out images in problems.json.
VERSION = 4
PROBLEMS = "problems.json"
RULES = "rules.json"
MAX_LINES = 50  # problems in an error message

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
    """Format a source as a dataset in `out`.

    Args:
        source: a folder or an archive with images and masks.
        out: a new folder, or one in which this same step was started or finished.
        rules: null fields are inferred if the files are unambiguous.
        jobs: number of processes; the number of processors if None. The result is the same.
        location: where the source came from, if elsewhere; recorded in the provenance.
        on_progress: called with the number of finished pairs and the total.

    Raises:
        RulesError: if a question is open or a file is damaged; lists all problems at once.
        ArtifactError: if `out` contains anything else.
    """
    started = datetime.now(UTC)
    with open_files(source) as folder:
        report = examine_folder(folder, rules, depth=Depth.HEADERS)  # pixels are decoded later
        _refuse(report, source)
        jobs = jobs or available_cpus()
        preload(len(report.pairing.pairs), jobs)
        step = _step(folder, location or str(source.resolve()), report, started)
        if begin(out, step):
            return out
        try:
            outcomes = _run(folder, out, report, jobs, on_progress)
        except RulesError:
            shutil.rmtree(out)  # contains only this step's files: `begin` rejects other folders
            raise
    findings = _findings(report, outcomes)
    finish_dataset(out, step, report.rules, outcomes, findings=findings, started=started)
    shutil.rmtree(out / PROGRESS, ignore_errors=True)
    return out


def _findings(report: Report, outcomes: Sequence[Outcome]) -> Iterator[Finding]:
    """Findings on the source and on all pixels, computed lazily."""
    yield from report.source_findings
    yield from inspect_outcomes(outcomes, report.pairing, report.rules, report.inspection)


def _step(folder: Files, location: str, report: Report, started: datetime) -> Step:
    used = sorted({path for pair in report.pairing.pairs for path in (pair.image, *pair.masks)})
    files = dict(zip(used, parallel_map(lambda path: file_hash(folder / path), used), strict=True))
    origin = make_source(files, location=location, started=started)
    return Step("dataset", VERSION, (origin,), {"rules": rules_document(report.rules)})


def _refuse(report: Report, source: Path) -> None:
    """Raise one error with all questions and problems of the source."""
    lines = [_line_to_write(question) for question in report.questions]
    lines += [finding.line() for finding in errors_in(report.findings)]
    if not lines and report.rules.classes is None:
        lines.append('the classes are unknown; add "classes" to the rules')
    elif not lines and len(report.rules.classes or ()) < 2:
        lines.append(
            "the masks contain no class but background; check the masks, or list the source "
            'values of each class in "classes"'
        )
    if lines:
        problems = join_limited(lines, MAX_LINES, "; ")
        raise RulesError(f"the source cannot be formatted: {problems}", where=str(source))


def _line_to_write(question: Question) -> str:
    return f"{question.why}; add to the rules " + " or ".join(question.answers())


def _run(
    folder: Files, out: Path, report: Report, jobs: int, on_progress: Progress | None
) -> list[Outcome]:
    """Make all samples; failed pairs are reported together at the end."""
    tasks = _tasks(report)
    worker = Worker(folder, out, report.rules)
    outcomes: list[Outcome] = []
    failures: list[Failure] = []
    for done, result in enumerate(run_tasks(worker, tasks, jobs), start=1):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            outcomes.append(result)
        if on_progress is not None:
            on_progress(done, len(tasks))
    if failures:
        _refuse_failures(failures)
    return outcomes


def _tasks(report: Report) -> list[Task]:
    rules = report.rules
    tasks = [
        Task(name, assign_split(group, rules.split), group, pair.image, pair.masks, pair.class_ids)
        for pair, (name, group) in zip(report.pairing.pairs, report.sample_groups(), strict=True)
    ]
    places = [sample_paths(task.name, task.split, rules) for task in tasks]
    counts = Counter(path.casefold() for place in places for path in (place.image, place.mask))
    clashing = sorted(path for path, count in counts.items() if count > 1)
    if clashing:
        raise RulesError(
            "two files of the dataset would have the same name", found=", ".join(clashing[:10]),
            remedy="choose another mask_keyword or layout 'separate'",
        )  # fmt: skip
    return sorted(tasks, key=lambda task: task.name)


def _refuse_failures(failures: Sequence[Failure]) -> None:
    reasons = join_limited([failure.message for failure in failures], MAX_LINES, "; ")
    raise RulesError(
        f"{counted(len(failures), 'pair')} cannot be formatted, nothing was written: {reasons}",
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
    """Write the dataset's documents and seal it."""
    samples = sorted((s for o in outcomes for s in o.samples), key=lambda sample: sample.name)
    classes = tuple(DatasetClass(id=c.id, name=c.name) for c in rules.classes or ())
    dataset = Dataset(samples=tuple(samples), classes=classes)
    content: dict[str, str | None] = {DATASET: None, RULES: None, PROBLEMS: None}
    written: dict[str, str] = {}
    for outcome in outcomes:
        content.update(outcome.content)
        written.update(outcome.written)
    with flush_in_background([out / path for path in written]):
        found = merge_findings(finding for outcome in outcomes for finding in outcome.findings)
        problems = sort_findings([*findings, *found, *_empty_splits(dataset)])
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
