"""A simulated DigitalOcean without Pulumi: objects, rejected requests, notified machines."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from tests.cloud.faults import PENDING, CloudError, Fault, Weather
from tests.cloud.kinds import ADDED, INTEGER_IDS, KEPT, KINDS, NAME_IS_ID, TIMED, Props, now
from tests.cloud.rules import RULES, check_common, plain_id


class Machines(Protocol):
    """Runs droplets for real; without it they are only records."""

    def start(self, id_: str, droplet: Props, volumes: list[Props]) -> str:
        """Return the address while the machine is still booting, as `active` does."""

    def attach(self, id_: str, volume: Props) -> None: ...

    def detach(self, id_: str, volume: Props) -> None: ...

    def stop(self, id_: str) -> None: ...

    def reserve(self) -> str:
        """Return an unassigned address."""

    def assign(self, id_: str, address: str) -> None: ...

    def unassign(self, address: str) -> None: ...

    def erase(self, volume: Props) -> None: ...


class Cloud:
    """All objects by kind and id. `log` lists what took effect, `calls` every request."""

    def __init__(
        self,
        file: Path | None = None,
        machines: Machines | None = None,
        *,
        action_seconds: float = 0.2,
    ) -> None:
        self.file, self.machines = file, machines
        self.action_seconds = action_seconds  # how long a droplet is busy with an action
        self.objects: dict[str, dict[str, Props]] = {k: {} for k in KINDS}
        self.log: list[str] = []
        self.calls: list[str] = []
        self.faults: list[Fault | Weather] = []
        self.busy: dict[str, float] = {}
        self.lock = threading.RLock()
        self.numbers = itertools.count(1001)
        if file and file.exists():
            saved = json.loads(file.read_text())
            self.objects.update(saved["objects"])
            self.log, self.numbers = saved["log"], itertools.count(saved["next"])

    # -- requests, one each
    def create(self, kind: str, props: Props) -> str:
        with self.request("create", kind), self.lock:
            check_common(self, kind, props)
            RULES.get(("create", kind), _no_rule)(self, "", props)
            id_ = self._new_id(kind, props)
            full = {**props, **ADDED.get(kind, _nothing)(id_, props)}
            full |= {"createdAt": now()} if kind in TIMED else {}
            if id_ not in self.objects[kind]:
                self._machine_follows("create", kind, id_, full)
            self.objects[kind][id_] = full
            self._done("create", kind, id_)
        return id_

    def read(self, kind: str, id_: str) -> Props:
        with self.request("read", kind), self.lock:
            return self._seen(kind, id_)

    def update(self, kind: str, id_: str, props: Props) -> None:
        with self.request("update", kind), self.lock:
            old = self.get(kind, id_)
            check_common(self, kind, props)
            RULES.get(("update", kind), _no_rule)(self, id_, props)
            kept = {k: old[k] for k in KEPT if k in old}
            self.objects[kind][id_] = {**props, **ADDED.get(kind, _nothing)(id_, props), **kept}
            self._done("update", kind, id_)

    def delete(self, kind: str, id_: str) -> None:
        with self.request("delete", kind), self.lock:
            props = self.get(kind, id_)
            RULES.get(("delete", kind), _no_rule)(self, id_, props)
            self._machine_follows("delete", kind, id_, props)
            del self.objects[kind][id_]
            if kind == "Droplet":
                self._forget_droplet(id_)
            self._done("delete", kind, id_)

    @contextlib.contextmanager
    def request(self, op: str, kind: str) -> Iterator[None]:
        """Inject faults around a request, outside the lock: a hanging request blocks no other."""
        with self.lock:
            self.calls.append(f"{op} {kind}")
            due = [f for f in self.faults if f.hit(op, kind)]
        for fault in due:
            if not fault.after:
                fault.action()
        yield
        for fault in due:
            if fault.after:
                fault.action()

    # -- for tests and rules
    def get(self, kind: str, id_: str) -> Props:
        if id_ not in self.objects[kind]:
            raise CloudError(404, "The resource you were accessing could not be found.")
        return self.objects[kind][id_]

    def only(self, kind: str) -> tuple[str, Props]:
        """The only object of its kind; fails if there are none or several."""
        items = list(self.objects[kind].items())
        assert len(items) == 1, f"expected one {kind}, found {[i for i, _ in items]}"
        return items[0]

    def since(self, mark: int) -> list[str]:
        """What took effect since a mark, in order, such as `create Droplet`, without ids."""
        return [" ".join(line.split()[:2]) for line in self.log[mark:]]

    def holder(self, volume_id: str) -> str | None:
        for p in self.objects["VolumeAttachment"].values():
            if p["volumeId"] == volume_id:
                return plain_id(p["dropletId"])
        droplets = self.objects["Droplet"].items()
        return next((i for i, p in droplets if volume_id in p.get("volumeIds", [])), None)

    def occupy(self, droplet: str) -> None:
        """One action at a time per droplet: the API answers 422 to a second one."""
        clock = time.monotonic()
        if self.busy.get(droplet, 0) > clock:
            raise CloudError(422, PENDING)
        self.busy[droplet] = clock + self.action_seconds

    # -- internal
    def _seen(self, kind: str, id_: str) -> Props:
        props = dict(self.get(kind, id_))
        if kind == "Volume":
            holder = self.holder(id_)
            props["dropletIds"] = [int(holder)] if holder else []
        return props

    def _new_id(self, kind: str, props: Props) -> str:
        if kind in NAME_IS_ID:
            return str(props["name"])
        if kind in INTEGER_IDS:
            return str(next(self.numbers))
        # The provider looks up the owner of a volume or address: same pair, same attachment.
        if kind == "VolumeAttachment":
            return f"{plain_id(props['dropletId'])}-{props['volumeId']}"
        if kind == "ReservedIpAssignment":
            return f"{plain_id(props['dropletId'])}-{props['ipAddress']}"
        if kind == "ReservedIp" and self.machines:
            return self.machines.reserve()
        return f"198.51.100.{next(self.numbers) % 250}" if kind == "ReservedIp" else _uuid()

    def _forget_droplet(self, id_: str) -> None:
        """Detach everything from a destroyed droplet, as the cloud does."""
        for kind in ("VolumeAttachment", "ReservedIpAssignment"):
            held = self.objects[kind]
            for key in [k for k, p in held.items() if plain_id(p["dropletId"]) == id_]:
                del held[key]

    def _machine_follows(self, op: str, kind: str, id_: str, p: Props) -> None:
        if self.machines is None:
            return
        if kind == "Droplet" and op == "create":
            volumes = [self.objects["Volume"][v] for v in p.get("volumeIds", [])]
            p["ipv4Address"] = self.machines.start(id_, p, volumes)
        elif kind == "Droplet":
            self.machines.stop(id_)
        elif kind == "Volume" and op == "delete":
            self.machines.erase(p)
        elif kind == "VolumeAttachment":
            act = self.machines.attach if op == "create" else self.machines.detach
            act(plain_id(p["dropletId"]), self.objects["Volume"][p["volumeId"]])
        elif kind == "ReservedIpAssignment" and op == "create":
            self.machines.assign(plain_id(p["dropletId"]), p["ipAddress"])
        elif kind == "ReservedIpAssignment":
            self.machines.unassign(p["ipAddress"])

    def _done(self, op: str, kind: str, id_: str) -> None:
        self.log.append(f"{op} {kind} {id_}")
        if self.file:
            number = next(self.numbers)
            self.numbers = itertools.count(number)
            content = {"objects": self.objects, "log": self.log, "next": number}
            fresh = self.file.with_suffix(".new")  # a reader, or a kill, never meets half a file
            fresh.write_text(json.dumps(content))
            fresh.replace(self.file)


def _uuid() -> str:
    return str(uuid.uuid4())


def _nothing(id_: str, p: Props) -> Props:
    return {}


def _no_rule(cloud: Cloud, id_: str, p: Props) -> None:
    return None
