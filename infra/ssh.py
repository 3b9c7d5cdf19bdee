"""SshKeys component: public keys of the account; existing ones are reused."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_digitalocean as do


@dataclass(frozen=True, kw_only=True)
class SshKeysArgs:
    """Public keys in the form of an authorized_keys line."""

    public_keys: Sequence[str]
    look_up: bool = True
    """Query the account for existing keys; False skips that call."""


class SshKeys(pulumi.ComponentResource):
    """Keys with access to the droplet; only public keys are handled here.

    DigitalOcean rejects a public key that the account already has (422). Such a key is found by
    its fingerprint and reused, and stays in the account when the stack is destroyed.
    """

    fingerprints: list[pulumi.Output[str]]

    def __init__(
        self, name: str, args: SshKeysArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("unetops:infra:SshKeys", name, None, opts)
        known = _account_keys() if args.look_up else {}
        self.fingerprints = []
        for key in args.public_keys:
            finger = fingerprint(key)
            own_name = _resource_name(name, finger)
            if known.get(finger, own_name) == own_name:
                self.fingerprints.append(self._make(own_name, key))
            else:
                self.log_reuse(known[finger], finger)
                self.fingerprints.append(pulumi.Output.from_input(finger))
        self.register_outputs({"fingerprints": self.fingerprints})

    def _make(self, name: str, key: str) -> pulumi.Output[str]:
        made = do.SshKey(
            name,
            name=name,
            public_key=key.strip(),
            # The comment at the end of a key is not part of it.
            opts=pulumi.ResourceOptions(parent=self),
        )
        return made.fingerprint

    def log_reuse(self, key_name: str, finger: str) -> None:
        """Log which key of the account is reused."""
        pulumi.log.info(f"SSH key {finger} is in the account as {key_name!r}: reused", self)


def fingerprint(public_key: str) -> str:
    """MD5 fingerprint of a public key, the form in which DigitalOcean lists it.

    Example:
        >>> fingerprint("ssh-ed25519 AAAA comment")
        '69:3e:9a:f8:4d:3d:fc:c7:1e:64:0e:00:5b:dc:5e:2e'
    """
    blob = base64.b64decode(public_key.split()[1])
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def _resource_name(name: str, finger: str) -> str:
    return f"{name}-{finger.replace(':', '')[:8]}"


def _account_keys() -> dict[str, str]:
    """Key names by fingerprint; empty, with a warning, if the account cannot be queried."""
    try:
        found = do.get_ssh_keys()
        return {key.fingerprint: key.name for key in found.ssh_keys}
    except Exception as e:  # the engine raises plain Exception for any failed call
        pulumi.log.warn(
            f"the account's SSH keys could not be read ({str(e).splitlines()[0][:200]}): "
            "`pulumi up` will fail with 422 for a key that already exists"
        )
        return {}
