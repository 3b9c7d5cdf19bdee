"""Both doubles in a separate process that can be killed and restarted; a file keeps the cloud.

    python -m tests.cloud.serve --state cloud.json --folder PROJECT [--ports 7070 7071] [--fault F]

It prints the two ports for PULUMI_DEBUG_PROVIDERS; a fault is written as in `faults.parse`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from tests.cloud.cloud import Cloud
from tests.cloud.command import Command
from tests.cloud.digitalocean import DigitalOcean
from tests.cloud.faults import parse
from tests.cloud.wire import listen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    parser.add_argument("--ports", type=int, nargs=2, default=(0, 0))
    parser.add_argument("--fault", action="append", default=[], type=parse)
    options = parser.parse_args()
    cloud = Cloud(options.state)
    cloud.faults = options.fault
    services = DigitalOcean(cloud), Command(cloud, folder=options.folder, environment={})
    servers = [listen(s, p) for s, p in zip(services, options.ports, strict=True)]
    for number in (signal.SIGINT, signal.SIGTERM):
        # A hanging call must not keep the process alive.
        signal.signal(number, lambda *_: os._exit(0))
    sys.stdout.write(" ".join(str(port) for _, port in servers) + "\n")
    sys.stdout.flush()
    for server, _ in servers:
        server.wait_for_termination()


if __name__ == "__main__":
    main()
