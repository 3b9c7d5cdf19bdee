"""What a run with folds or a search consists of, in its order."""

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
    """What is asked for beside one training.

    Attributes:
        folds: train a network for each fold.
        trials: so many plans are tried first; 0 for none.
    """

    folds: FoldRule | None = None
    trials: int = 0

    @property
    def is_single(self) -> bool:
        """One training and nothing else."""
        return self.folds is None and not self.trials

    def parameters(self) -> dict[str, object]:
        """The part of a run's parameters that says so; nothing for a plain training."""
        folds = {"folds": self.folds.model_dump(mode="json")} if self.folds else {}
        return folds | ({"search": self.trials} if self.trials else {})

    def refuse_process_group(self, group: ProcessGroup) -> None:
        """Refuse to share folds or a search among the processes of `torchrun`."""
        if group.size > 1 and not self.is_single:
            raise UnetError(
                "folds and search are trained by one process", found=f"{group.size} processes",
                remedy="leave out torchrun, or train without --folds and --search",
            )  # fmt: skip


def run_protocol(
    protocol: TrainingProtocol, trainers: Trainers, *, plan: Plan | None, seed: int
) -> list[str]:  # fmt: skip
    """Search, then train the folds or the one network; returns the files that decide the id.

    Raises:
        UnetError: if the datasets, the folds or the time do not allow it.
        Stopped: if the training was asked to end.
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
        kept = train_folds(trainers, folds, protocol.folds, plan=plan, seed=seed, changes=changes)
    else:
        kept = _train_best(trainers, plan=plan, seed=seed, changes=changes)
    return [FINGERPRINT, *kept, *([SEARCH] if protocol.trials else [])]


@contextmanager
def remove_unless_started(out: Path) -> Iterator[None]:
    """Remove the folder of what was refused before anything was trained: it is free again."""
    try:
        yield
    except UserError:
        if not is_started(out):
            shutil.rmtree(out, ignore_errors=True)
        raise


def is_started(out: Path) -> bool:
    """True if a training in the folder, or in one of its parts, has been saved or shrinks."""
    is_noted = any((out / name).exists() for name in (SEARCH, OUT_OF_MEMORY_MARKER))
    return is_noted or any(out.rglob(LAST)) or any(out.rglob(RUN))


def _folds(protocol: TrainingProtocol, trainers: Trainers) -> Folds:
    assert protocol.folds is not None
    _refuse_known(trainers)
    folds = make_folds(trainers.datasets, protocol.folds)
    trainers.refuse_short(
        protocol.folds.count, share=1 - SEARCH_SHARE * bool(protocol.trials),
        what=f"{protocol.folds.count} folds", remedy="give more time, or take fewer folds",
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


def _refuse_known(trainers: Trainers) -> None:
    """Refuse folds of a dataset that the start was trained on: its scores would be no test."""
    start = trainers.start and trainers.start.artifact.folder
    for folder in trainers.datasets if start else ():
        if (Path(start or "") / LINEAGE / read_artifact(folder, "dataset").id).is_dir():
            raise UnetError(
                "the model to start from was trained on samples that the folds would hold out",
                where=str(folder), found=f"the dataset is an ancestor of {start}",
                remedy="train the folds without --from, or start from a model of other data",
            )  # fmt: skip


def _train_best(
    trainers: Trainers, *, plan: Plan | None, seed: int, changes: Changes
) -> list[str]:  # fmt: skip
    """The one training after a search, in what is left of the time."""
    is_resumed = (trainers.out / LAST).exists()
    spent = trainers.spent_before_s if is_resumed else trainers.elapsed()
    left = trainers.limit_s and max(1.0, trainers.limit_s - spent)
    Trainer(
        trainers.datasets, trainers.out, plan=plan, seed=seed, limit_s=left,
        clock=trainers.clock if is_resumed else time.monotonic(), on_event=trainers.on_event,
        is_to_stop=trainers.is_to_stop, assignment=Assignment(start=trainers.start, changes=changes),
        budget=trainers.budget,
    ).run()  # fmt: skip
    return [PLAN, RUN, BEST]
