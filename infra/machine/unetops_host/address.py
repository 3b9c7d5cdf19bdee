"""The address that visitors use who send no server name."""

from infra.machine.unetops_host.commands import systemctl
from infra.machine.unetops_host.files import write
from infra.machine.unetops_host.machine import Machine


def set_address(machine: Machine, address: str) -> None:
    """Have Caddy show the certificate for this address to clients that send no name.

    It starts over: a domain's certificate, which could not be had before the address led here, is
    asked for at once and not after its next pause.
    """
    file, text = machine.at("/etc/caddy/address.d/address.conf"), f"default_sni {address}\n"
    if not file.exists() or file.read_text() != text:
        write(file, text)
        systemctl("reload-or-restart", "caddy.service")
