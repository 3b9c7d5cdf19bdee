"""The address for visitors whose client sends no server name."""

from infra.machine.unetops_host.commands import systemctl
from infra.machine.unetops_host.files import write
from infra.machine.unetops_host.machine import Machine


def set_address(machine: Machine, address: str) -> None:
    """Make Caddy present the certificate for this address to clients that send no server name.

    Caddy is reloaded or restarted: a domain's certificate, unavailable until the address resolved
    to this machine, is then requested at once instead of after the next retry pause.
    """
    file, text = machine.at("/etc/caddy/address.d/address.conf"), f"default_sni {address}\n"
    if not file.exists() or file.read_text() != text:
        write(file, text)
        systemctl("reload-or-restart", "caddy.service")
