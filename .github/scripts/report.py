#!/usr/bin/env python3
"""Convert a plan to a comment, stdin to stdout: `report.py STATUS` (exit status of the preview)."""

import sys

# Identifies the comment of an earlier push.
MARK = "<!-- unetops preview -->"
# GitHub's limit is 65 536 characters; the end of a plan has its summary and errors.
MAX_CHARS = 60_000
NO_PRICE = "unknown, the program failed before"


def report(plan: str, status: int) -> str:
    """The report in Markdown, with all lines of the plan indented so that they are plain code."""
    lines = [line.replace("\r", "") for line in plan.splitlines()]
    said = (line.split("price: ", 1)[1] for line in lines if "price: about " in line)
    title = f"### Preview: rejected or failed ({status})" if status else "### Preview"
    intro = "The plan, made without an account on an empty stack:"
    head = [MARK, title, "", "Price:", "", f"    {next(said, NO_PRICE)}", "", intro, ""]
    return "\n".join([*head, *_end(lines), ""])


def _end(lines: list[str]) -> list[str]:
    kept: list[str] = []
    room = MAX_CHARS
    for line in reversed(lines):
        room -= len(line) + 5
        if room < 0:
            return ["    ... (the beginning is in the log of the run)", *kept]
        kept.insert(0, f"    {line}")
    return kept


if __name__ == "__main__":
    sys.stdout.write(report(sys.stdin.read(), int(sys.argv[1])))
