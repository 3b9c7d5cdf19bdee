"""The steps of a run with folds or a hyper-parameter search."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dataset_rules.artifacts.manifest import LINEAGE, read_artifact
from dataset_rules.ground.errors import UserError
from unet.errors import UnetError
from unet.planning.plan import Plan
from unet.planning.search_space import Changes, apply_changes
from unet.runs.cross_validation import train_folds
from unet.runs.folds import FoldRule, Folds, make_folds, refuse_unseen_classes_in_folds
from unet.runs.search import SEARCH, SEARCH_SHARE, search
from unet.runs.trainers import Trainers
from unet.training.assignment import Assignment
from unet.training.out_of_memory import OUT_OF_MEMORY_MARKER
from unet.training.process_group import ProcessGroup
from unet.training.state import BEST, LAST
from unet.training.trainer import FINGERPRINT, PLAN, RUN, Trainer


@dataclass(frozen=True)
class TrainingProtocol:
    """What a run does in addition to a single training.

    Attributes:
        folds: train one network per fold.
        trials: number of plans to try first; 0 for no search.
    """

    folds: FoldRule | None = None
    trials: int = 0

    @property
    def is_single(self) -> bool:
        """True for a single training."""
        return self.folds is None and not self.trials

    def parameters(self) -> dict[str, object]:
        """The protocol's part of the run's parameters; empty for a single training."""
        folds = {"folds": self.folds.model_dump(mode="json")} if self.folds else {}
        return folds | ({"search": self.trials} if self.trials else {})

    def refuse_process_group(self, group: ProcessGroup) -> None:
        """Refuse to run folds or a search in several processes of `torchrun`."""
        if group.size > 1 and not self.is_single:
            raise UnetError(
                "folds and search run in a single process", found=f"{group.size} processes",
                remedy="run without torchrun, or without --folds and --search",
            )  # fmt: skip


def run_protocol(
    protocol: TrainingProtocol, trainers: Trainers, *, plan: Plan | None, seed: int
) -> list[str]:  # fmt: skip
    """Search, then train the folds or a single network; returns the files that determine the id.

    Raises:
        UnetError: if the datasets, the folds or the time limit do not allow it.
        Stopped: if a stop was requested.
    """
    folds = _folds(protocol, trainers) if protocol.folds else None
    changes: Changes = {}
    if protocol.trials:
        first = folds.folds[0] if folds else None
        changes = search(
            trainers, protocol.trials, plan=plan, seed=seed,
            samples=(first.training, first.held_out) if first else None,
        )  # fmt: skip
    plan = plan and apply_changes(plan, changes)
    if folds and protocol.folds:
        files = train_folds(trainers, folds, protocol.folds, plan=plan, seed=seed, changes=changes)
    else:
        files = _train_best(trainers, plan=plan, seed=seed, changes=changes)
    return [FINGERPRINT, *files, *([SEARCH] if protocol.trials else [])]


@contextmanager
def remove_unless_started(out: Path) -> Iterator[None]:
    """Remove the folder on a user error before anything was trained, so it can be reused."""
    try:
        yield
    except UserError:
        if not is_started(out):
            shutil.rmtree(out, ignore_errors=True)
        raise


def is_started(out: Path) -> bool:
    """True if the folder or a part of it contains a checkpoint, a result or a memory marker."""
    has_marker = any((out / name).exists() for name in (SEARCH, OUT_OF_MEMORY_MARKER))
    return has_marker or any(out.rglob(LAST)) or any(out.rglob(RUN))


def _folds(protocol: TrainingProtocol, trainers: Trainers) -> Folds:
    assert protocol.folds is not None
    _refuse_known_datasets(trainers)
    folds = make_folds(trainers.datasets, protocol.folds)
    trainers.refuse_short(
        protocol.folds.count, share=1 - SEARCH_SHARE * bool(protocol.trials),
        what=f"{protocol.folds.count} folds", remedy="allow more time, or use fewer folds",
    )  # fmt: skip
    refuse_unseen_classes_in_folds(folds, trainers.facts().classes)
    rows = [
        {"fold": f.number, "tissues": list(f.tissues), "training": len(f.training),
         "held_out": len(f.held_out)}
        for f in folds.folds
    ]  # fmt: skip
    trainers.report(
        {"event": "folds", "folds": rows, "left_out": [s.name for _, s in folds.left_out]}
    )
    return folds


def _refuse_known_datasets(trainers: Trainers) -> None:
    """Refuse folds of a dataset the initial model was trained on: scores would be biased."""
    start = trainers.start and trainers.start.artifact.folder
    for folder in trainers.datasets if start else ():
        if (Path(start or "") / LINEAGE / read_artifact(folder, "dataset").id).is_dir():
            raise UnetError(
                "the initial model was trained on samples that the folds would hold out",
                where=str(folder), found=f"the dataset is an ancestor of {start}",
                remedy="train the folds without --from, or start from a model of different data",
            )  # fmt: skip


def _train_best(
    trainers: Trainers, *, plan: Plan | None, seed: int, changes: Changes
) -> list[str]:  # fmt: skip
    """The training after a search, in the time left."""
    is_resumed = (trainers.out / LAST).exists()
    spent = trainers.spent_before_s if is_resumed else trainers.elapsed()
    left = trainers.limit_s and max(1.0, trainers.limit_s - spent)
    Trainer(
        trainers.datasets, trainers.out, plan=plan, seed=seed, limit_s=left,
        clock=trainers.clock if is_resumed else time.monotonic(), on_event=trainers.on_event,
        is_to_stop=trainers.is_to_stop, budget=trainers.budget,
        assignment=Assignment(start=trainers.start, changes=changes),
    ).run()  # fmt: skip
    return [PLAN, RUN, BEST]
