#!/usr/bin/env python3
"""Plan on standard input, comment on standard output: `report.py STATUS`, that of the preview."""

import sys

# By it the comment of an earlier push is found again.
MARK = "<!-- unetops preview -->"
# GitHub takes 65 536 characters; the end of a plan holds its sum and what is wrong.
MOST = 60_000
NO_PRICE = "unknown, the program did not get so far"


def report(plan: str, status: int) -> str:
    """Markdown in which nothing of the plan is anything but text: an indented line is code."""
    lines = [line.replace("\r", "") for line in plan.splitlines()]
    said = (line.split("price: ", 1)[1] for line in lines if "price: about " in line)
    title = f"### Preview: refused or failed ({status})" if status else "### Preview"
    intro = "The plan, made without an account on an empty stack:"
    head = [MARK, title, "", "Price:", "", f"    {next(said, NO_PRICE)}", "", intro, ""]
    return "\n".join([*head, *_end(lines), ""])


def _end(lines: list[str]) -> list[str]:
    kept: list[str] = []
    room = MOST
    for line in reversed(lines):
        room -= len(line) + 5
        if room < 0:
            return ["    ... (the beginning stands in the log of the run)", *kept]
        kept.insert(0, f"    {line}")
    return kept


if __name__ == "__main__":
    sys.stdout.write(report(sys.stdin.read(), int(sys.argv[1])))
