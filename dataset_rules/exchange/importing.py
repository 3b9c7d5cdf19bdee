"""The import step: another tool's folder -> a dataset, with its splits, classes and objects."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from dataset_rules.artifacts.dataset import assign_split
from dataset_rules.artifacts.hashes import file_hash
from dataset_rules.artifacts.manifest import (
    Ancestor,
    Step,
    begin,
    is_artifact,
    make_source,
    read_intact,
    remove_on_error,
)
from dataset_rules.checks.pixel_scan import Outcome
from dataset_rules.exchange.cellpose import read_cellpose
from dataset_rules.exchange.coco import read_coco
from dataset_rules.exchange.layout import EXPORT, ForeignDataset, Layout
from dataset_rules.exchange.nnunet import read_nnunet
from dataset_rules.exchange.sidecars import split_in
from dataset_rules.exchange.yolo import read_yolo
from dataset_rules.formatting.format import finish_dataset
from dataset_rules.formatting.sample import Task, write_sample
from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.findings import counted, join_limited
from dataset_rules.pairing.groups import group_of, group_template, sample_names
from dataset_rules.pixels.images import read_header, read_image
from dataset_rules.rules.fields import ClassRule, SourceRule
from dataset_rules.rules.rules import Rules, rules_document
from dataset_rules.sources.archive import unpack, with_archive_path
from dataset_rules.sources.inventory import Kind, discover

VERSION = 1  # raised by hand when the same folder and rules give different pixels
MAX_LINES = 50  # problems in an error message
GREY = ("1", "L", "LA", "I")  # prefixes of Pillow's single-channel modes

READERS: dict[Layout, Callable[[Path, Sequence[str]], ForeignDataset]] = {
    Layout.COCO: read_coco,
    Layout.NNUNET: read_nnunet,
    Layout.CELLPOSE: read_cellpose,
    Layout.YOLO: read_yolo,
}

Progress = Callable[[int, int], None]


def import_dataset(
    source: Path,
    out: Path,
    layout: Layout,
    *,
    rules: Rules | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Import another tool's folder or archive as a dataset in `out`.

    If killed and run again, it starts over and gives the same id.

    Args:
        source: a folder or an archive in that layout.
        out: a new folder, or one in which this same step was started or finished.
        layout: of the folder.
        rules: sizes, image format, class names, excluded files. Their split applies if the layout
            has none, and to the groups that they list. Without rules images are unchanged.
        on_progress: called with the number of finished samples and the total.

    Raises:
        RulesError: if files are damaged or inconsistent; lists all samples at once.
        ArtifactError: if `out` contains anything else.
    """
    started = datetime.now(UTC)
    with _opened(source) as folder:
        foreign = _read(folder, layout, rules)
        full = _full_rules(folder, foreign, rules)
        origin = _origin(folder, source, foreign, started)
        parameters = {"from": layout.value, "rules": rules_document(full)}
        step = Step("dataset", VERSION, (origin,), parameters)
        if begin(out, step):
            return out
        with remove_on_error(out):
            outcomes = _made(folder, out, foreign, full, on_progress)
        finish_dataset(out, step, full, outcomes, findings=foreign.findings, started=started)
    return out


@contextmanager
def _opened(source: Path) -> Iterator[Path]:
    """The folder of a source; an archive is unpacked temporarily, errors refer to the archive."""
    if not source.is_file():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="unetops-import-") as place:
        folder = unpack(source, Path(place) / "source")
        try:
            yield _root_of(folder)
        except RulesError as error:
            raise with_archive_path(error, str(folder), source) from error


def _root_of(folder: Path) -> Path:
    """Descend into single top-level folders, as in many archives, unless they are splits."""
    while not is_artifact(folder):
        inside = [path for path in folder.iterdir() if path.name != "__MACOSX"]
        if len(inside) != 1 or not inside[0].is_dir() or split_in(inside[0].name):
            break
        folder = inside[0]
    return folder


def _read(folder: Path, layout: Layout, rules: Rules | None) -> ForeignDataset:
    entries = discover(folder, rules.source.exclude if rules else ())
    usable = [e.path for e in entries if e.kind in {Kind.IMAGE, Kind.OTHER}]
    foreign = READERS[layout](folder, usable)
    if not foreign.samples:
        raise RulesError(
            f"no sample was found in {layout} layout", where=str(folder),
            found="; ".join(f.message for f in foreign.findings) or None,
        )  # fmt: skip
    ordered = tuple(sorted(foreign.samples, key=lambda found: found.image))
    return replace(foreign, samples=ordered)


def _full_rules(folder: Path, foreign: ForeignDataset, given: Rules | None) -> Rules:
    classes = tuple(ClassRule(id=c.id, name=c.name) for c in foreign.classes)
    if given is None:
        is_grey = all(
            read_header(folder / found.image).mode.startswith(GREY) for found in foreign.samples
        )
        return Rules(color_model="grayscale" if is_grey else "rgb", classes=classes)
    if given.classes is not None:
        if [c.id for c in given.classes] != [c.id for c in classes]:
            raise RulesError(
                "the classes in the rules are not those of the folder",
                expected=", ".join(f"{c.id} {c.name}" for c in classes),
                found=", ".join(f"{c.id} {c.name}" for c in given.classes),
                remedy="only rename classes, or set them to null",
            )  # fmt: skip
        classes = tuple(ClassRule(id=c.id, name=c.name) for c in given.classes)
    source = SourceRule(exclude=given.source.exclude)
    return given.model_copy(update={"classes": classes, "source": source})


def _origin(folder: Path, source: Path, foreign: ForeignDataset, started: datetime) -> Ancestor:
    """The input of the dataset: an export of ours with its lineage, or a user's folder."""
    if is_artifact(folder):
        return read_intact(folder, "export")
    used = {path for found in foreign.samples for path in (found.image, *found.masks)}
    used |= set(foreign.metadata_files) | ({EXPORT} if (folder / EXPORT).is_file() else set())
    files = {path: file_hash(folder / path) for path in sorted(used)}
    return make_source(files, location=str(source.resolve()), started=started)


def _made(
    folder: Path, out: Path, foreign: ForeignDataset, rules: Rules, on_progress: Progress | None
) -> list[Outcome]:
    outcomes, failures = [], []
    tasks = _tasks(foreign, rules)
    for done, (task, found) in enumerate(zip(tasks, foreign.samples, strict=True), start=1):
        try:
            image = read_image(folder / found.image)
            decoded = found.decode(*image.shape[:2])
            outcomes.append(write_sample(
                folder, out, task, rules, image=image, decoded=decoded,
                pixel_size_um=found.pixel_size_um,
            ))  # fmt: skip
        except RulesError as error:
            failures.append(str(error).replace(f"{folder}/", ""))
        if on_progress is not None:
            on_progress(done, len(tasks))
    if failures:
        raise RulesError(
            f"{counted(len(failures), 'sample')} cannot be imported, nothing was written: "
            + join_limited(failures, MAX_LINES, "; "),
            remedy="correct these files or exclude them by source.exclude in the rules",
        )
    return outcomes


def _tasks(foreign: ForeignDataset, rules: Rules) -> list[Task]:
    """Each sample with its name, group and split."""
    names = sample_names([found.title for found in foreign.samples])
    template = group_template(rules)
    tasks = []
    for found in foreign.samples:
        name = names[found.title]
        group = group_of(found.image, found.group or name, template)
        is_listed = any(group in groups for groups in rules.split.groups.values())
        by_rule = found.split is None or is_listed
        split = assign_split(group, rules.split) if by_rule or found.split is None else found.split
        tasks.append(Task(name, split, group, found.image, found.masks, ()))
    return tasks
