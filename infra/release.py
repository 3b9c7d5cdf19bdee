"""Release component: installs the code over SSH on a host whose key is recorded."""

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_command as command

from infra.source import Source

HOST_PROGRAM = "/opt/unetops/bin/unetops-host"
# ECDSA first: the provider's SSH client prefers it if the host has both.
KEY_SCAN = """\
for attempt in $(seq 60); do
  keys=$(ssh-keyscan -T 5 -t ecdsa,ed25519 "$HOST" 2>/dev/null | sort -k2 | cut -d' ' -f2,3)
  if [ -n "$keys" ]; then printf '%s\\n' "$keys" | head -n 1; exit 0; fi
  sleep 5
done
echo "no SSH answer of $HOST in ten minutes: is port 22 open to this machine (sshFrom)?" >&2
exit 1
"""
# An interrupted first boot is resumed; a failed one shows its last lines in `pulumi up`.
BOOTED = """\
cloud-init status --wait >/dev/null 2>&1 || true
done_already() { grep -qs '"status": "done"' /var/lib/unetops/boot.json; }
done_already || /opt/unetops/bin/unetops-host boot >&2 || true
done_already || {
  tail -n 20 /var/log/cloud-init-output.log >&2
  cat /var/lib/unetops/boot.json >&2
  echo "first boot failed; a new droplet: pulumi config set bootstrap NEW" >&2
  exit 1
}
"""


@dataclass(frozen=True, kw_only=True)
class ReleaseArgs:
    """Target host and what to install."""

    address: pulumi.Input[str]
    droplet_id: pulumi.Input[str]
    source: Source
    lock: Path
    """requirements.lock: determines the base environment of the release."""
    private_key: pulumi.Input[str] | None = None
    """None: the keys of the SSH agent."""
    torch_index: str | None = None
    wait_for: Sequence[pulumi.Resource] = ()


class Release(pulumi.ComponentResource):
    """Record the host key, wait for the first boot, upload, install with a health check.

    The host key is recorded once per droplet: a different key on the same droplet is rejected.
    """

    status: pulumi.Output[str]
    """JSON of `unetops-host status`."""
    known_hosts: pulumi.Output[str]
    """A line for ~/.ssh/known_hosts: the address and the recorded key."""

    def __init__(
        self, name: str, args: ReleaseArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("unetops:infra:Release", name, None, opts)
        self.name = name
        after = [*args.wait_for]
        scan = command.local.Command(
            f"{name}-host-key",
            create=KEY_SCAN,
            environment={"HOST": args.address},
            triggers=[args.droplet_id],
            opts=pulumi.ResourceOptions(parent=self, depends_on=after),
        )
        host_key = scan.stdout.apply(str.strip)
        self.known_hosts = pulumi.Output.concat(args.address, " ", host_key)
        self.connection = _connection(args, host_key)
        booted = self._run("boot", BOOTED, args=args, after=[scan])
        uploads = self._uploads(args, booted)
        text = release_command(args)
        installed = self._run("install", text, args=args, after=uploads)
        status_text = f"# {args.source.release_id}\n{HOST_PROGRAM} health --wait 120 >&2"
        status_text += f"\n{HOST_PROGRAM} status"
        self.status = self._run("status", status_text, args=args, after=[installed]).stdout
        self.register_outputs({"status": self.status, "known_hosts": self.known_hosts})

    def _run(
        self, what: str, text: str, *, args: ReleaseArgs, after: Sequence[pulumi.Resource]
    ) -> command.remote.Command:
        return command.remote.Command(
            f"{self.name}-{what}",
            connection=self.connection,
            # Changed text runs again; a new droplet starts over.
            create=_to(args, text),
            triggers=[args.droplet_id],
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(after)),
        )

    def _uploads(self, args: ReleaseArgs, booted: pulumi.Resource) -> list[pulumi.Resource]:
        files = {"lock": args.lock, **({"wheel": args.source.wheel} if args.source.wheel else {})}
        digest = _digest(args.lock)
        return [
            command.remote.CopyToRemote(
                f"{self.name}-{what}",
                connection=self.connection,
                source=pulumi.FileAsset(str(path)),
                remote_path=f"/root/{path.name}",
                triggers=[args.source.release_id, args.droplet_id, digest],
                opts=pulumi.ResourceOptions(parent=self, depends_on=[booted]),
            )
            for what, path in files.items()
        ]


def release_command(args: ReleaseArgs) -> str:
    """The command that root runs on the host to install and switch; the shell sets ADDRESS."""
    words = [HOST_PROGRAM, "release", "--id", args.source.release_id]
    if args.source.wheel:
        words += ["--wheel", f"/root/{args.source.wheel.name}"]
    else:
        words += ["--source", str(args.source.address)]
    words += ["--lock", f"/root/{args.lock.name}"]
    # If empty, the host uses the index given at first boot.
    words += ["--torch-index", args.torch_index or ""]
    # The lock is not part of the commit's id, so its digest makes the command run again.
    return f'{shlex.join(words)} --address "$ADDRESS"  # lock {_digest(args.lock)}'


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _to(args: ReleaseArgs, text: str) -> pulumi.Output[str]:
    return pulumi.Output.concat("ADDRESS=", args.address, "\n", text)


def _connection(args: ReleaseArgs, host_key: pulumi.Output[str]) -> command.remote.ConnectionArgs:
    return command.remote.ConnectionArgs(
        host=args.address,
        user="root",
        host_key=host_key,
        private_key=None if args.private_key is None else pulumi.Output.secret(args.private_key),
        dial_error_limit=30,
    )


def certificate_fingerprint(status: str) -> str:
    """SHA-256 of the host's own certificate authority; empty if a public one signs."""
    return str(json.loads(status).get("certificate_authority") or "") if status else ""
