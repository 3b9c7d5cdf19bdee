"""SshKeys component: public keys of the account, those that exist are reused."""

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
    """Ask the account for keys that exist; False skips that call."""


class SshKeys(pulumi.ComponentResource):
    """Keys that open a droplet; only public halves pass through here.

    DigitalOcean refuses a public key that the account holds already (422). Such a key is found by
    its fingerprint and used, and stays in the account when the stack goes.
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
            made_by_us = _resource_name(name, finger)
            if known.get(finger, made_by_us) == made_by_us:
                self.fingerprints.append(self._make(made_by_us, key))
            else:
                self.log_reuse(known[finger], finger)
                self.fingerprints.append(pulumi.Output.from_input(finger))
        self.register_outputs({"fingerprints": self.fingerprints})

    def _make(self, name: str, key: str) -> pulumi.Output[str]:
        made = do.SshKey(
            name,
            name=name,
            public_key=key.strip(),
            # The comment at the end of a key is no part of it.
            opts=pulumi.ResourceOptions(parent=self),
        )
        return made.fingerprint

    def log_reuse(self, key_name: str, finger: str) -> None:
        """Says which key of the account is used as it is."""
        pulumi.log.info(f"SSH key {finger} is in the account as {key_name!r}: reused", self)


def fingerprint(public_key: str) -> str:
    """MD5 fingerprint of a public key, in the form by which DigitalOcean finds it.

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
    """Name by fingerprint; empty with a warning where the account cannot be asked."""
    try:
        found = do.get_ssh_keys()
        return {key.fingerprint: key.name for key in found.ssh_keys}
    except Exception as e:  # the engine raises plain Exception for any failed call
        pulumi.log.warn(
            f"the account's SSH keys could not be read ({str(e).splitlines()[0][:200]}): "
            "a key that exists already will be refused with 422 by `pulumi up`"
        )
        return {}
