"""`python -m infra.recover`: reconcile state and account after the engine was killed.

Releases the lock, clears pending operations, imports the objects that they created, and lists
objects that carry the stack's name and are in no state. It deletes nothing. Without --yes it shows
what it would do and asks. Exit status: 0 state and account agree, 1 something is left to decide, 2
bad input or no answer.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.account import Account, AccountError, account_of
from infra.config import ConfigError, StackConfig
from infra.doctor import stack_config
from infra.engine import Engine, EngineError, State
from infra.inventory import BY_TYPE, BY_WORD, UNSEEN, Thing, candidates, loose_addresses, tagged
from infra.take import TakeError, exchange, take

OK, LEFT, BAD_INPUT = 0, 1, 2
RESERVED_IP = "digitalocean:index/reservedIp:ReservedIp"
TORN = (
    "an empty metadata file is next to the state, as left by a kill: delete the empty ones "
    "(find STATE -name '*.attrs' -empty -delete, STATE being the folder of `pulumi whoami -v`) and "
    "log in to file://STATE?metadata=skip, which writes none"
)
WARNING = "Make sure that nobody is running `pulumi up` for this stack: its lock would be released."


@dataclass(frozen=True, kw_only=True)
class Step:
    """What to do about one pending creation."""

    urn: str
    type: str
    name: str
    action: str
    """import (into the state), exchange (for the resource it replaces) or clear (the mark only)."""
    id: str | None
    why: str


@dataclass(frozen=True, kw_only=True)
class Extra:
    """An object with the stack's name, or perhaps from this stack, that is in no state."""

    what: str
    id: str
    facts: str
    take: str | None
    delete: str


@dataclass(frozen=True)
class Recovery:
    """One stack, its engine and its account."""

    config: StackConfig
    engine: Engine
    account: Account

    def steps(self, state: State) -> list[Step]:
        """What to do about each pending creation."""
        return [self._step(state, mark) for mark in state.pending]

    def _step(self, state: State, mark: dict[str, Any]) -> Step:
        kind = BY_TYPE.get(mark["type"])
        found = candidates(self.account, kind, mark["inputs"], self.config.name) if kind else []
        found = [one for one in found if one.id not in state.ids(mark["type"])]
        action, why = "clear", "the account has none: `pulumi up` creates it"
        if mark["type"] == RESERVED_IP:
            why = "it has no name: addresses without a droplet are listed below"
        elif kind is None:
            why = UNSEEN.get(mark["type"], "`pulumi up` creates it again, which does no harm")
        elif len(found) > 1:
            why = f"the account has {len(found)} of them: see below"
        elif found:
            action, why = _import_action(state, mark["urn"])
        name = mark["urn"].rpartition("::")[2]
        id_ = found[0].id if action != "clear" else None
        return Step(urn=mark["urn"], type=mark["type"], name=name, action=action, id=id_, why=why)

    def apply(self, steps: list[Step]) -> None:
        """Carry out the steps; safe to rerun if killed at any point."""
        marks = {mark["urn"]: mark for mark in self.engine.state().pending}
        self.engine.cancel()
        for step in (step for step in steps if step.action == "exchange"):
            exchange(self.engine, marks[step.urn], step.id or "")
        for step in (step for step in steps if step.action == "import"):
            take(self.engine, Thing(BY_TYPE[step.type], step.id or "", step.name))
        # Last: without its mark, a created object could no longer be attributed.
        self.engine.run("refresh", "--yes", "--skip-preview", "--clear-pending-creates")

    def extras(self, *, with_loose: bool) -> list[Extra]:
        """Objects in no state; `with_loose` includes addresses that may belong to this stack."""
        state = self.engine.state()
        found = tagged(self.account, self.config.name)
        found += loose_addresses(self.account, self.config.region) if with_loose else []
        unknown = [one for one in found if one.id not in state.ids(one.kind.type)]
        return [self._extra(state, one) for one in unknown]

    def _extra(self, state: State, one: Thing) -> Extra:
        named = one.name or self.config.name
        has_place = not any(
            r["type"] == one.kind.type and r["urn"].endswith(f"::{named}") for r in state.resources
        )
        return Extra(
            what=f"{one.kind.word} {one.name}".strip() if one.name else f"perhaps {one.kind.word}",
            id=one.id,
            facts=one.facts,
            # Names are unique in the state: there is no place for a second droplet.
            take=f"{_command(self.config.stack)} --take {one.word}" if has_place else None,
            delete=f"{one.kind.delete} {one.id}",
        )

    def take(self, word: str) -> None:
        """Import one object into the state, as the program's own resource.

        Raises:
            TakeError: if there is no such object, or the engine rejects it.
        """
        kind, _, id_ = word.partition("/")
        if kind not in BY_WORD:
            raise TakeError(f"--take {word}: expected KIND/ID, KIND one of {', '.join(BY_WORD)}")
        near = [one for one in tagged(self.account, self.config.name) if one.word == word]
        near += [Thing(one.kind, one.id, self.config.name)
                 for one in loose_addresses(self.account, self.config.region)
                 if one.word == word]  # fmt: skip
        if not near:
            raise TakeError(
                f"--take {word}: no {kind} {id_} with the name or tag {self.config.name}"
            )
        take(self.engine, near[0])


def _import_action(state: State, urn: str) -> tuple[str, str]:
    held = [one for one in state.resources if one["urn"] == urn and not one.get("delete")]
    if not held:
        return "import", "the account has it"
    if held[0].get("pendingReplacement"):
        return "exchange", "the account has it; the one that it replaces is gone"
    return "clear", "the account has both it and the one it was to replace: see below"


def show_steps(steps: list[Step]) -> None:
    """Print the pending operations and what to do about them."""
    for step in steps:
        found = f" {step.id}" if step.id else ""
        say(f"{step.action} {step.type.rpartition(':')[2]} {step.name}{found}: {step.why}")
    if not steps:
        say("no operation was pending")


def show_extras(extras: list[Extra]) -> None:
    """Print the objects in no state, with the commands to keep or delete them."""
    for extra in extras:
        say(f"not in the state: {extra.what} ({', '.join(filter(None, [extra.id, extra.facts]))})")
        if extra.take:
            say(f"  keep it:   {extra.take}")
        say(f"  delete it: {extra.delete}")


def say(line: str) -> None:
    """Print one line to standard output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _confirm(question: str, *, yes: bool) -> bool:
    if yes or not sys.stdin.isatty():
        return yes
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def recover(recovery: Recovery, *, yes: bool, as_json: bool) -> int:
    """Show the steps, ask, carry them out and list what is left; returns the exit status."""
    steps = recovery.steps(recovery.engine.state())
    with_loose = any(step.type == RESERVED_IP for step in steps)
    extras = recovery.extras(with_loose=with_loose)
    if not as_json:
        show_steps(steps)
        show_extras([] if yes else _without_steps(extras, steps))
    done = _confirm(f"{WARNING} Release it, refresh and carry out the above?", yes=yes)
    if done:
        recovery.apply(steps)
        extras = recovery.extras(with_loose=with_loose)
    left = extras if done else _without_steps(extras, steps)
    if as_json:
        found = {"done": done, "steps": [asdict(s) for s in steps]}
        say(json.dumps({**found, "extras": [asdict(e) for e in left]}, indent=1))
    elif done:
        show_end(left)
    else:
        what = "to do it" if steps or left else "to release a stale lock"
        say(f"nothing was done; {what}: {_command(recovery.config.stack)} --yes")
    return OK if not left and (done or not steps) else LEFT


def _command(stack: str) -> str:
    return f"unetops infra recover --stack {stack}"


def _without_steps(extras: list[Extra], steps: list[Step]) -> list[Extra]:
    taken = {step.id for step in steps}
    return [extra for extra in extras if extra.id not in taken]


def show_end(left: list[Extra]) -> None:
    """Print what to do next."""
    show_extras(left)
    if left:
        say("next: resolve the above, then pulumi up")
    else:
        say("state and account agree; next: pulumi up")


def main(words: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    about = (__doc__ or "").partition("\n\n")[2]
    parser = argparse.ArgumentParser(prog="unetops infra recover", description=about)
    parser.add_argument("--stack", default="dev")
    parser.add_argument("--yes", action="store_true", help="do it without asking")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--take", action="append", default=[], metavar="KIND/ID",
                        help="only import this object into the state")  # fmt: skip
    args = parser.parse_args(words)
    root = Path.cwd()
    try:
        config = stack_config(root, args.stack)
        recovery = Recovery(config, Engine(args.stack, root), account_of())
        for word in args.take:
            recovery.take(word)
            say(f"imported into the state: {word}; next: pulumi preview")
        return OK if args.take else recover(recovery, yes=args.yes, as_json=args.json)
    except (ConfigError, AccountError, EngineError, TakeError) as e:
        remedy = f"\nremedy: {TORN}" if "failed to load checkpoint: EOF" in str(e) else ""
        sys.stderr.write(f"error: {e}{remedy}\n")
        return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
