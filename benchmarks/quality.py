"""Train on a dataset for some reference minutes with several seeds and print the test scores.

    python benchmarks/quality.py DATASET --out DIR [--minutes 10] [--seeds 0 1 2]

DATASET is a formatted dataset. Before each training the machine's factor is measured
(benchmarks/reference.py), and the time limit is scaled by it, so that all trainings do the same
amount of work. Finished runs in DIR are reused.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

SCORES = ("dice_mean", "dice_pooled", "iou_mean", "object_f1_50", "ap_50_95")


# Waiting threads sleep in both the reference and `unetops`; spinning is slow on a busy machine.
ENVIRONMENT = {**os.environ, "GOMP_SPINCOUNT": "1000"}


def output_of(command: list[str]) -> str:
    """Standard output of a command."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    return done.stdout


def unetops(*words: object) -> str:
    """Standard output of one `unetops` command."""
    return output_of([sys.executable, "-m", "app.cli", *map(str, words)])


def factor() -> float:
    """Current wall minutes per reference minute."""
    command = [sys.executable, str(Path(__file__).with_name("reference.py")), "--json"]
    return float(json.loads(output_of(command))["factor"])


def scores_of_seed(dataset: Path, out: Path, *, minutes: float, seed: int) -> dict[str, Any]:
    """Train one seed, unless it is already trained, and score it."""
    run, notes = out / f"seed{seed}", out / f"seed{seed}.json"
    if not notes.exists():
        wall_s = 60 * minutes * (now := factor())
        start = time.monotonic()
        unetops("train", dataset, "--out", run, "--time-limit", f"{wall_s:.0f}s", "--seed", seed,
                "--resume", "--json")  # fmt: skip
        took_s = time.monotonic() - start
        notes.write_text(json.dumps({"factor": now, "limit_s": wall_s, "took_s": took_s}))
    scores = json.loads(unetops("evaluate", run, dataset, "--json"))
    steps = json.loads((run / "run.json").read_text())["steps"]
    return {**json.loads(notes.read_text()), "steps": steps, **scores}


def main() -> None:
    """Print one row per seed, and their mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="reference minutes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    print("| seed | factor | wall s | steps |", " | ".join(SCORES), "|")
    for seed in options.seeds:
        row = scores_of_seed(options.dataset, options.out, minutes=options.minutes, seed=seed)
        rows.append(row)
        cells = [f"{row['factor']:.2f}", f"{row['took_s']:.0f} of {row['limit_s']:.0f}",
                 str(row["steps"]), *(f"{row[name]:.4f}" for name in SCORES)]  # fmt: skip
        print(f"| {seed} |", " | ".join(cells), "|", flush=True)
    print("| mean | | | |", " | ".join(f"{mean(r[s] for r in rows):.4f}" for s in SCORES), "|")
    print("images:", rows[0]["n"], " undefined:", rows[0]["undefined"])


if __name__ == "__main__":
    main()
