"""Droplets of the cloud's double that really boot."""

import random
from pathlib import Path
from typing import Any

from tests.guest.guest import Guest, sweep
from tests.guest.volume import Volume

Props = dict[str, Any]


class Machines:
    """What the double calls when it makes, joins or ends droplets; ids and properties are its own.

    Volumes are files in `folder` and outlive every droplet, like a cloud's; `close` ends all
    that still runs and gives the devices back.
    """

    def __init__(self, folder: Path, above: tuple[Path, ...] = ()) -> None:
        """Start with no droplet; guests of killed test runs are taken away first."""
        sweep()
        self.folder, self.above = folder, above
        self.guests: dict[str, Guest] = {}
        self.disks: dict[str, Volume] = {}

    def start(self, id_: str, droplet: Props, volumes: list[Props]) -> str:
        """Boot a droplet's own user_data; the answer is its address, given while it boots."""
        disks = tuple(self.disk(volume) for volume in volumes)
        guest = Guest(f"d{id_}", droplet["userData"], disks)
        guest.above = self.above
        self.guests[id_] = guest
        guest.up()
        return guest.address

    def attach(self, id_: str, volume: Props) -> None:
        """Plug a volume into a droplet that runs."""
        self.guests[id_].plug(self.disk(volume))

    def detach(self, id_: str, volume: Props) -> None:
        """Take a volume out of a droplet, which is shut down for it."""
        self.guests[id_].unplug(self.disk(volume))

    def stop(self, id_: str) -> None:
        """Destroy a droplet; its volumes stay."""
        self.guests.pop(id_).destroy()

    def reserve(self) -> str:
        """Draw an address of the range for tests of networks: two test runs must not share one."""
        return f"198.19.{random.randrange(256)}.{random.randrange(1, 255)}"

    def assign(self, id_: str, address: str) -> None:
        """Lead a reserved address to a droplet, and away from the one that had it."""
        self.unassign(address)
        wires = self.guests[id_].wires
        if wires:
            wires.also(address)

    def unassign(self, address: str) -> None:
        """Lead a reserved address nowhere."""
        for guest in self.guests.values():
            if guest.wires:
                guest.wires.no_longer(address)

    def disk(self, volume: Props) -> Volume:
        """The file behind a volume of the double, found by its name."""
        name = volume["name"]
        return self.disks.setdefault(name, Volume(name, self.folder))

    def erase(self, volume: Props) -> None:
        """Lose a volume's data, as deleting it does."""
        disk = self.disks.pop(volume["name"], None)
        if disk:
            disk.detach()
            disk.path.unlink(missing_ok=True)

    def close(self) -> None:
        """End every droplet and give the devices back; the volumes' files stay."""
        for id_ in list(self.guests):
            self.stop(id_)
        for disk in self.disks.values():
            disk.detach()
