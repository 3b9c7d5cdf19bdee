"""Runs a program under Pulumi's mocks in a separate process, as programs in one process interfere.

Run as a script it reads a program from standard input and prints what was registered, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

COMPUTED = {
    "digitalocean:index/reservedIp:ReservedIp": {"ipAddress": "198.18.0.9"},
    "digitalocean:index/sshKey:SshKey": {"fingerprint": "aa:bb"},
    "command:remote:Command": {"stdout": "{}"},
    "command:local:Command": {"stdout": "ssh-ed25519 AAAA"},
}
PLAIN = (str, int, float, bool, list, dict, type(None))


def made_by(program: str, account_keys: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Inputs of everything that the program registers, by `Kind name`."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.infra.cloud_mocks"]
    text = json.dumps({"program": program, "keys": account_keys or []})
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    import pulumi

    asked, made = json.load(sys.stdin), {}

    class Recorder(pulumi.runtime.Mocks):
        def new_resource(self, args):
            made[f"{args.typ.rsplit(':', 1)[-1]} {args.name}"] = {
                k: v if isinstance(v, PLAIN) else str(v) for k, v in args.inputs.items()
            }
            return str(len(made)), {**args.inputs, **COMPUTED.get(args.typ, {})}

        def call(self, args):
            return {"sshKeys": asked["keys"], "id": "keys"}

    pulumi.runtime.set_mocks(Recorder(), project="unetops", stack="dev", preview=False)

    @pulumi.runtime.test
    def program() -> None:
        exec(compile(asked["program"], "program", "exec"), {"__name__": "__main__"})

    program()
    sys.stdout.write(json.dumps(made, default=str) + "\n")


if __name__ == "__main__":
    main()
