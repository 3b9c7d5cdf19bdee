"""Hyper-parameter search: successive halving over short trainings.

The best third of the trials advances to the next round, in which each trains three times as long
(Jamieson and Talwalkar 2016, with thirds). Each trial is a complete short training whose learning
rate decays to zero, because the final score of a plan counts, not the early ones.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dataset_rules.ground.disk import write_json
from unet.errors import UnetError
from unet.planning.plan import Plan, make_schedule
from unet.planning.search_space import Changes, apply_changes, trial_changes
from unet.runs.trainers import Trainers
from unet.training.assignment import Assignment, LocatedSample
from unet.training.patches import split_samples
from unet.training.trainer import PLAN, RUN

SEARCH = "search.json"
FOLDER = "search"
REDUCTION_FACTOR = 3  # one in three trials advances
SEARCH_SHARE = 0.5  # of the time limit; the rest trains the best plan
MIN_STEPS = 4


@dataclass(frozen=True)
class Trial:
    """One short training and its result."""

    round: int
    trial: int
    changes: Changes
    values: dict[str, Any]  # of the plan's searchable fields
    steps: int
    dice: float | None


def round_sizes(trials: int) -> list[int]:
    """The number of trials in each round.

    >>> rounds(9), rounds(8), rounds(2)
    ([9, 3], [8, 3], [2])
    """
    sizes = [trials]
    while (rest := -(-sizes[-1] // REDUCTION_FACTOR)) > 1:
        sizes.append(rest)
    return sizes


def search(
    trainers: Trainers,
    trials: int,
    *,
    plan: Plan | None,
    seed: int,
    samples: tuple[Sequence[LocatedSample], Sequence[LocatedSample]] | None = None,
) -> Changes:
    """Try hyper-parameters and return the best changes; all trials go to `search.json`.

    Args:
        trainers: of the run.
        trials: number of plans to try; the first is the unchanged plan.
        plan: the plan to change; made from the fingerprint by default.
        seed: of the trainings and of the changes.
        samples: to train on and held out; from the datasets' splits by default.

    Raises:
        UnetError: if no samples are held out, or the time limit is too short.
        Stopped: if a stop was requested.
    """
    samples = samples or split_samples(trainers.datasets)
    refuse_search(trainers, trials, samples)
    sizes, done = round_sizes(trials), _read(trainers.out / SEARCH)
    remaining = list(range(trials))
    for number, size in enumerate(sizes):
        for place, trial in enumerate(remaining):
            if any((row.round, row.trial) == (number, trial) for row in done):
                continue
            assignment = Assignment(
                samples=samples, start=trainers.start, selects_best=False,
                changes=trial_changes(trial, seed=seed, keeps_network=bool(trainers.start)),
                event_fields={
                    "round": number, "rounds": len(sizes), "trial": trial, "trials": trials,
                },
            )  # fmt: skip
            left = size - place
            done.append(_run_trial(trainers, assignment, plan=plan, seed=seed, left=left))
            _write(trainers, done)
        results = [row for row in done if row.round == number]
        remaining = [row.trial for row in rank_trials(results)][: (sizes[number + 1 :] or [1])[0]]
    best = rank_trials([row for row in done if row.round == len(sizes) - 1])[0]
    shutil.rmtree(trainers.out / FOLDER, ignore_errors=True)
    trainers.report({"event": "search", "trials": trials, "best": best.trial, "dice": best.dice,
                   "changes": dict(best.changes)})  # fmt: skip
    return best.changes


def rank_trials(rows: Sequence[Trial]) -> list[Trial]:
    """Trials by descending Dice; ties in order of trial."""
    return sorted(rows, key=lambda row: (-(row.dice or 0.0), row.trial))


def refuse_search(
    trainers: Trainers,
    trials: int,
    samples: tuple[Sequence[LocatedSample], Sequence[LocatedSample]],
) -> None:
    """Refuse a search that cannot work, before anything is trained."""
    if trials < 2:
        raise UnetError("a search compares trials", expected="at least 2", found=str(trials),
                        where="--search")  # fmt: skip
    if not samples[1]:
        raise UnetError(
            "no samples are held out for comparing trials",
            where=", ".join(map(str, trainers.datasets)), expected="a split 'val', or a second "
            "group in 'train'", remedy="raise split.val in the rules and format again",
        )  # fmt: skip
    sizes = round_sizes(trials)
    trainers.refuse_short(
        max(sizes) * len(sizes), share=SEARCH_SHARE, what=f"a search of {trials} trials",
        remedy="allow more time, or try fewer plans: --search 3",
    )  # fmt: skip


def _run_trial(
    trainers: Trainers, assignment: Assignment, *, plan: Plan | None, seed: int, left: int
) -> Trial:
    """Train one trial to its end, unless it is already trained."""
    number, trial = assignment.event_fields["round"], assignment.event_fields["trial"]
    folder = trainers.out / FOLDER / f"{number}-{trial}"
    count = assignment.event_fields["rounds"]
    if not (folder / RUN).exists():
        until = trainers.limit_s and SEARCH_SHARE * trainers.limit_s * (number + 1) / count
        limit = trainers.share_s(folder, parts=left, until_s=until)
        if plan or limit is None:
            plan = _short_plan(
                trainers, assignment, plan=plan, seed=seed, rounds_left=count - number
            )
        trainers.make_trainer(folder, assignment, plan=plan, seed=seed, limit_s=limit).run()
    run, trained = (json.loads((folder / name).read_bytes()) for name in (RUN, PLAN))
    fields = ("learning_rate", "widths", "zoom_min", "zoom_max", "colour_jitter", "class_weights",
              "distance_weight")  # fmt: skip
    return Trial(
        number, trial, dict(assignment.changes), {name: trained[name] for name in fields},
        run["steps"], run["scores"]["val_dice"],
    )  # fmt: skip


def _short_plan(
    trainers: Trainers, assignment: Assignment, *, plan: Plan | None, seed: int, rounds_left: int
) -> Plan:
    """The plan of a trial without a time limit: a third of the steps per remaining round."""
    facts = trainers.facts()
    base = (
        apply_changes(plan, assignment.changes)
        if plan
        else assignment.make_plan(facts, trainers.budget, seed=seed)
    )
    steps = max(MIN_STEPS, base.steps // REDUCTION_FACTOR**rounds_left)
    return base.model_copy(update={"patience": 0, **asdict(make_schedule(steps))})


def _read(path: Path) -> list[Trial]:
    if not path.exists():
        return []
    return [Trial(**row) for row in json.loads(path.read_bytes())["trials"]]


def _write(trainers: Trainers, rows: Sequence[Trial]) -> None:
    """Save all trials, then remove the last one's folder."""
    write_json(trainers.out / SEARCH, {"trials": [asdict(row) for row in rows]})
    shutil.rmtree(trainers.out / FOLDER / f"{rows[-1].round}-{rows[-1].trial}", ignore_errors=True)
