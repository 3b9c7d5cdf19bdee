"""K-fold training: one network per fold, scored on its held-out samples; all form one model."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataset_rules.artifacts.dataset import Split, read_sample
from dataset_rules.ground.disk import write_json
from dataset_rules.rules.rules import rules_document
from unet.errors import Stopped
from unet.objects.splitting import SplitSettings
from unet.objects.targets import objects_of
from unet.planning.fingerprint import Fingerprint, common_rules
from unet.planning.plan import Plan
from unet.planning.search_space import Changes
from unet.prediction.model_files import ModelCard, load_net
from unet.prediction.predictor import Networks
from unet.runs.folds import Fold, FoldRule, Folds
from unet.runs.threshold_choice import Evidence, choose_settings, collect_evidence
from unet.runs.trainers import Trainers
from unet.scoring.evaluate import image_scores
from unet.scoring.scores import ImageScores, Scores
from unet.training.assignment import Assignment, LocatedSample
from unet.training.state import BEST
from unet.training.trainer import PLAN, RUN
from unet.training.validation import Validation, validate

FOLDS = "folds.json"
EVIDENCE = "evidence.json"  # of a fold, in its folder
ENDING_SHARE = 0.05  # of the time limit, for thresholds and scores, until one fold is measured
CLOSING_S = 2.0


@dataclass(frozen=True)
class Member:
    """The trained network of one fold."""

    fold: Fold
    folder: Path
    evidence: Evidence

    @property
    def plan(self) -> Plan:
        """The plan of its training."""
        return Plan.model_validate_json((self.folder / PLAN).read_bytes())


def train_folds(
    trainers: Trainers,
    folds: Folds,
    rule: FoldRule,
    *,
    plan: Plan | None,
    seed: int,
    changes: Changes,
) -> list[str]:
    """Train and score each fold and write the run's files; returns those that determine the id.

    A fold keeps its last weights and uses the thresholds chosen on the other folds, so that
    nothing is chosen on the samples it is scored on.

    Raises:
        Stopped: if a stop was requested.
    """
    members: list[Member] = []
    for fold in folds.folds:
        until = trainers.limit_s and trainers.limit_s - _reserved_s(trainers, folds, members)
        assignment = Assignment(
            samples=(fold.training, fold.held_out), start=trainers.start, selects_best=False,
            changes=changes, event_fields={"fold": fold.number, "folds": rule.count},
        )  # fmt: skip
        members.append(
            _train_member(trainers, assignment, fold, plan=plan, seed=seed, until_s=until)
        )
    facts = trainers.facts()
    all_evidence = [member.evidence for member in members]
    images: list[tuple[Fold, Path, ImageScores]] = []
    for member in members:
        others = [each.evidence for each in members if each is not member]
        images += _score_member(trainers, member, rule, settings=choose_settings(others, facts))
    scores = _scores_document(trainers, folds, rule, members=members, images=images)
    write_json(trainers.out / FOLDS, scores)
    _write_run(
        trainers, members, facts, settings=choose_settings(all_evidence, facts), scores=scores
    )
    trainers.report({"event": "cross-validation", "folds": scores["folds"],
                   "datasets": _summaries(scores["datasets"]),
                     **_summaries([scores])[0]})  # fmt: skip
    return [
        PLAN, RUN, FOLDS,
        *(f"{m.folder.name}/{name}" for m in members for name in (PLAN, RUN, BEST)),
    ]  # fmt: skip


def fold_folder(out: Path, number: int) -> Path:
    """The folder of a fold."""
    return out / f"fold-{number}"


def _train_member(
    trainers: Trainers,
    assignment: Assignment,
    fold: Fold,
    *,
    plan: Plan | None,
    seed: int,
    until_s: float | None,
) -> Member:
    """Train a fold and collect its evidence, unless already done."""
    folder = fold_folder(trainers.out, fold.number)
    count = assignment.event_fields["folds"]
    seed = seed * count + fold.number  # unique even for runs with consecutive seeds
    if not (folder / RUN).exists():
        own = plan and plan.model_copy(update={"seed": seed})
        limit = trainers.share_s(folder, parts=count - fold.number, until_s=until_s)
        trainers.make_trainer(folder, assignment, plan=own, seed=seed, limit_s=limit).run()
    if not (folder / EVIDENCE).exists():
        started, trained = time.monotonic(), Plan.model_validate_json((folder / PLAN).read_bytes())
        trained = trained.at(trained.steps)
        validation = Validation(fold.held_out, trained)
        validate(load_net(folder / BEST, trained), validation, trained)
        found = collect_evidence(validation, trainers.facts(), plan=trained)
        found = found.model_copy(update={"seconds": round(time.monotonic() - started, 2)})
        write_json(folder / EVIDENCE, found.model_dump(mode="json"))
    return Member(
        fold, folder, Evidence.model_validate_json((folder / EVIDENCE).read_bytes())
    )  # fmt: skip


def _reserved_s(trainers: Trainers, folds: Folds, members: Sequence[Member]) -> float:
    """Seconds to reserve for thresholds and scores, estimated from the folds so far."""
    assert trainers.limit_s is not None
    if not members:
        return ENDING_SHARE * trainers.limit_s + CLOSING_S
    chosen_s = max(member.evidence.seconds for member in members)
    images = sum(len(fold.held_out) for fold in folds.folds)
    images_per_fold = max(1.0, sum(m.evidence.images for m in members) / len(members))
    remaining = len(folds.folds) - len(members)
    max_s = 0.3 * trainers.limit_s
    return min(max_s, chosen_s * (remaining + images / images_per_fold)) + CLOSING_S


def _score_member(
    trainers: Trainers, member: Member, rule: FoldRule, *, settings: SplitSettings
) -> list[tuple[Fold, Path, ImageScores]]:
    """Scores of a fold's held-out samples, at the datasets' size; groups are tissues."""
    plan, fold = member.plan, member.fold
    rules = common_rules(trainers.datasets)
    card = ModelCard(plan=plan, rules=rules, split=settings, scores={})
    networks = Networks([load_net(member.folder / BEST, plan)], card)
    rows = []
    for done, (folder, sample) in enumerate(fold.held_out, 1):
        if trainers.is_to_stop():
            raise Stopped
        found = _score_image(networks, (folder, sample))
        rows.append((fold, folder, replace(found, group=rule.tissue_of(sample.group))))
        trainers.report({"event": "image", "image": sample.name, "fold": fold.number,
                       "done": done, "of": len(fold.held_out)})  # fmt: skip
    return rows


def _score_image(networks: Networks, located: LocatedSample) -> ImageScores:
    folder, sample = located
    image, mask, instances = read_sample(folder, sample)
    found, prob_KHW = networks.predict_with_probabilities(image)
    foreground, classes = image_scores(
        mask, objects_of(mask, instances), found, prob_KHW=prob_KHW, classes=networks.classes
    )
    return ImageScores(sample.name, sample.group, foreground, classes)


def _scores_document(
    trainers: Trainers,
    folds: Folds,
    rule: FoldRule,
    *,
    members: Sequence[Member],
    images: Sequence[tuple[Fold, Path, ImageScores]],
) -> dict[str, Any]:
    """Scores over all held-out samples, per fold and per dataset."""
    classes = members[0].plan.classes

    def scores(rows: Sequence[tuple[Fold, Path, ImageScores]]) -> dict[str, Any]:
        return Scores(Split.VAL, classes, tuple(row[2] for row in rows)).document()

    def of(fold: Fold | None = None, folder: Path | None = None) -> dict[str, Any]:
        rows = [
            row for row in images
            if (fold is None or row[0] is fold) and (folder is None or row[1] == folder)
        ]  # fmt: skip
        return scores(rows) if rows else {"n": 0}

    return {
        "rule": rule.model_dump(mode="json"),
        "left_out": [sample.name for _, sample in folds.left_out],
        "folds": [
            {"fold": m.fold.number, "tissues": list(m.fold.tissues), "steps": m.plan.steps,
             "trained_on": len(m.fold.training), **_summaries([of(fold=m.fold)])[0],
             "datasets": _summaries([of(fold=m.fold, folder=f) for f in trainers.datasets])}
            for m in members
        ],
        "datasets": [of(folder=folder) for folder in trainers.datasets],
        **of(),
    }  # fmt: skip


def _summaries(documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    names = ("n", "dice_mean", "dice_pooled", "iou_mean", "object_f1_50", "ap_50_95")
    return [{name: document.get(name) for name in names} for document in documents]


def _write_run(
    trainers: Trainers,
    members: Sequence[Member],
    facts: Fingerprint,
    *,
    settings: SplitSettings,
    scores: dict[str, Any],
) -> None:
    """Write the run's plan and facts in the format of a single training."""
    plan = members[0].plan
    write_json(trainers.out / PLAN, plan.model_dump(mode="json"))
    runs = [json.loads((member.folder / RUN).read_bytes()) for member in members]
    write_json(
        trainers.out / RUN,
        {"seed": plan.seed, "steps": sum(run["steps"] for run in runs), "members": len(members),
         "curves": [run["curve"] for run in runs],
         "rules": rules_document(common_rules(trainers.datasets)), "split": settings.model_dump(),
         "scores": {"val_dice": scores["dice_mean"], "val_object_f1": scores["object_f1_50"]},
         "validated_on": f"{scores['n']} samples in {len(members)} folds, each by the network "
         "that was trained without it"},
    )  # fmt: skip
