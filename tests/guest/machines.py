"""Droplets of the simulated cloud that boot for real."""

import random
from pathlib import Path
from typing import Any

from tests.guest.guest import Guest, sweep
from tests.guest.volume import Volume

Props = dict[str, Any]


class Machines:
    """Called by the simulated cloud to create, connect and destroy droplets.

    Volumes are files in `folder` and survive droplets, as in the cloud; `close` stops all
    running droplets and releases the devices.
    """

    def __init__(self, folder: Path, above: tuple[Path, ...] = ()) -> None:
        """Start without droplets; removes guests of killed test runs first."""
        sweep()
        self.folder, self.above = folder, above
        self.guests: dict[str, Guest] = {}
        self.disks: dict[str, Volume] = {}

    def start(self, id_: str, droplet: Props, volumes: list[Props]) -> str:
        """Boot a droplet's user_data; returns its address while it boots."""
        disks = tuple(self.disk(volume) for volume in volumes)
        guest = Guest(f"d{id_}", droplet["userData"], disks)
        guest.above = self.above
        self.guests[id_] = guest
        guest.up()
        return guest.address

    def attach(self, id_: str, volume: Props) -> None:
        """Attach a volume to a running droplet."""
        self.guests[id_].plug(self.disk(volume))

    def detach(self, id_: str, volume: Props) -> None:
        """Detach a volume from a droplet, which is shut down for it."""
        self.guests[id_].unplug(self.disk(volume))

    def stop(self, id_: str) -> None:
        """Destroy a droplet; its volumes stay."""
        self.guests.pop(id_).destroy()

    def reserve(self) -> str:
        """Reserve an address of the test range, unique among test runs."""
        return f"198.19.{random.randrange(256)}.{random.randrange(1, 255)}"

    def assign(self, id_: str, address: str) -> None:
        """Assign a reserved address to a droplet and remove it from its previous one."""
        self.unassign(address)
        wires = self.guests[id_].wires
        if wires:
            wires.also(address)

    def unassign(self, address: str) -> None:
        """Unassign a reserved address."""
        for guest in self.guests.values():
            if guest.wires:
                guest.wires.no_longer(address)

    def disk(self, volume: Props) -> Volume:
        """The file of a volume of the simulated cloud, found by its name."""
        name = volume["name"]
        return self.disks.setdefault(name, Volume(name, self.folder))

    def erase(self, volume: Props) -> None:
        """Delete a volume's data, as deleting the volume does."""
        disk = self.disks.pop(volume["name"], None)
        if disk:
            disk.detach()
            disk.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop all droplets and release the devices; the volumes' files stay."""
        for id_ in list(self.guests):
            self.stop(id_)
        for disk in self.disks.values():
            disk.detach()
