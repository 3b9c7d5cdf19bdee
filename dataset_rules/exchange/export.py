"""The step `export`: a dataset -> a folder in another tool's layout."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from dataset_rules.artifacts.dataset import Dataset, Split, read_dataset
from dataset_rules.artifacts.manifest import (
    Step,
    begin,
    finish,
    read_artifact,
    read_intact,
    remove_on_error,
)
from dataset_rules.exchange.cellpose import CellposeExporter
from dataset_rules.exchange.coco import CocoExporter
from dataset_rules.exchange.layout import EXPORT, ExportedSample, Exporter, ExportFile, Layout
from dataset_rules.exchange.nnunet import NnunetExporter
from dataset_rules.exchange.yolo import YoloExporter
from dataset_rules.ground.disk import write_file
from dataset_rules.ground.documents import json_bytes
from dataset_rules.pixels.images import read_mask

VERSION = 1  # raised by hand when the same dataset gives different files
EXPORTERS: dict[Layout, Callable[[Dataset], Exporter]] = {
    Layout.COCO: CocoExporter,
    Layout.NNUNET: NnunetExporter,
    Layout.CELLPOSE: CellposeExporter,
    Layout.YOLO: YoloExporter,
}

Progress = Callable[[int, int], None]


def export_dataset(
    dataset: Path, out: Path, layout: Layout, *, on_progress: Progress | None = None
) -> Path:
    """Write a dataset in another tool's layout as an artifact of kind `export` in `out`.

    If killed and run again, it starts over and gives the same id.

    Raises:
        ArtifactError: if there is no intact dataset, or `out` contains anything else.
        RulesError: if the layout cannot hold the dataset.
    """
    started = datetime.now(UTC)
    step = Step("export", VERSION, (read_intact(dataset, "dataset"),), {"to": layout.value})
    if begin(out, step):
        return out
    content: dict[str, str | None] = {}
    with remove_on_error(out):
        for file in export_files(dataset, layout, on_progress=on_progress):
            path = out / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            data = file.content
            write_file(path, data if isinstance(data, bytes) else data.read_bytes())
            content[file.path] = None
    finish(out, step, content=content, started=started)
    return out


def export_files(
    folder: Path, layout: Layout, *, on_progress: Progress | None = None
) -> Iterator[ExportFile]:
    """Yield the files of an export one by one; errors are raised before the first is made."""
    dataset = read_dataset(folder)
    return _made(folder, dataset, EXPORTERS[layout](dataset), layout, on_progress)


def _made(
    folder: Path,
    dataset: Dataset,
    exporter: Exporter,
    layout: Layout,
    on_progress: Progress | None,
) -> Iterator[ExportFile]:
    for done, sample in enumerate(dataset.samples, start=1):
        yield from exporter.sample(ExportedSample(
            sample=sample, image=folder / sample.image.path,
            label=read_mask(folder / sample.mask.path),
            instances=read_mask(folder / sample.instances) if sample.instances else None,
        ))  # fmt: skip
        if on_progress is not None:
            on_progress(done, len(dataset.samples))
    yield from exporter.final_files()
    document = {
        "layout": layout.value,
        "dataset": read_artifact(folder, "dataset").id,
        "samples": {str(split): len(dataset.of(split)) for split in Split},
        "classes": [c.model_dump() for c in dataset.classes],
        "facts": {name: fact for name, fact in exporter.summary.facts.items() if fact},
        "said": exporter.summary.notes,
    }
    yield ExportFile(EXPORT, json_bytes(document))
