"""Terminal output of folds and of the hyper-parameter search."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.commands.console import duration, note, number, table

if TYPE_CHECKING:
    from unet.runs.folds import Folds

Show = Callable[[int, int], None]
MAX_NAMES = 8  # tissues per table cell


def part_event(event: dict[str, Any], show: Show) -> bool:
    """Print an event of the folds or the search; False if it is of another kind."""
    match event["event"]:
        case "folds":
            note("folds: " + "; ".join(
                f"{row['fold']} trains on {row['training']} images and is scored on "
                f"{row['held_out']}" for row in event["folds"]
            ))  # fmt: skip
            note_left_out(event["left_out"])
        case "search":
            note(f"the best of {event['trials']} trials is trial {event['best']}, Dice "
                 f"{number(event['dice'])}: {changes_text(event['changes'])}")  # fmt: skip
        case "cross-validation":
            note(f"cross-validation: Dice {number(event['dice_mean'])}, object F1 "
                 f"{number(event['object_f1_50'])} over {event['n']} images")  # fmt: skip
        case "image":
            show(event["done"], event["of"])
        case _:
            name = _name(event)
            return bool(name) and _inside(event, name, show)
    return True


def _inside(event: dict[str, Any], name: str, show: Show) -> bool:
    match event["event"]:
        case "plan":
            left = event.get("run_seconds_left")
            remaining = f"; {duration(left)} left for the whole run" if left is not None else ""
            note(f"{name}: training on {event['patches']} images, about {event['steps']} steps, "
                 f"expected duration {duration(event['expected_s'])}{remaining}")  # fmt: skip
        case "validation":
            note(f"{name}: step {event['step']}, Dice {number(event['dice'])} on held-out images")
        case "part done":
            note(f"{name}: done after {event['step']} steps, Dice {number(event['val_dice'])}")
        case _:
            return False
    return True


def _name(event: dict[str, Any]) -> str:
    if "fold" in event:
        return f"fold {event['fold']} of {event['folds']}"
    if "trial" in event:
        return f"round {event['round'] + 1} of {event['rounds']}, trial {event['trial']}"
    return ""


def show_results(run: Path, datasets: Sequence[Path]) -> None:
    """Print the tables of a finished run with a search or folds."""
    if (run / "search.json").exists():
        rows = json.loads((run / "search.json").read_bytes())["trials"]
        table("Search", ["round", "trial", "changed", "steps", "Dice"],
              [[str(row["round"] + 1), str(row["trial"]), changes_text(row["changes"]),
                str(row["steps"]), number(row["dice"])] for row in rows])  # fmt: skip
    if (run / "folds.json").exists():
        _show_scores(json.loads((run / "folds.json").read_bytes()), datasets)


def _show_scores(document: dict[str, Any], datasets: Sequence[Path]) -> None:
    several = [folder.name for folder in datasets] if len(datasets) > 1 else []
    rows = [
        [str(f["fold"]), str(f["n"]), number(f["dice_mean"]), number(f["object_f1_50"]),
         *(_dice(d) for d in f["datasets"][: len(several)]), _short(f["tissues"])]
        for f in document["folds"]
    ]  # fmt: skip
    rows.append(
        ["all", str(document["n"]), number(document["dice_mean"]),
         number(document["object_f1_50"]),
         *(_dice(d) for d in document["datasets"][: len(several)]), ""]
    )  # fmt: skip
    names = [f"Dice of {name}" for name in several]
    table("Scores on the held-out images of each fold",
          ["fold", "images", "Dice", "object F1", *names, "groups"], rows)  # fmt: skip


def show_folds(folds: "Folds", datasets: Sequence[Path]) -> None:
    """Print which groups each fold holds out, and how many images of each dataset."""
    rows = []
    for fold in folds.folds:
        counts = [sum(place == folder for place, _ in fold.held_out) for folder in datasets]
        rows.append([str(fold.number), str(len(fold.training)), *map(str, counts),
                     ", ".join(fold.tissues)])  # fmt: skip
    names = [f"held out from {folder.name}" for folder in datasets]
    table("Folds", ["fold", "trained on", *names, "held-out groups"], rows)
    note_left_out([sample.name for _, sample in folds.left_out])


def note_left_out(names: Sequence[str]) -> None:
    """Print which samples are in no fold."""
    if names:
        note(f"left out, since their group is in a test split: {_short(names)}")


def changes_text(changes: dict[str, float]) -> str:
    """The changes of a trial as text."""
    return ", ".join(f"{name} x {factor:g}" for name, factor in changes.items()) or "nothing"


def _dice(document: dict[str, Any]) -> str:
    return f"{number(document['dice_mean'])} ({document['n']})" if document["n"] else "none"


def _short(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
