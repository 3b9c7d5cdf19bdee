"""A double of the command provider: runs local commands, and remote ones over real SSH.

Semantics follow the source of pulumi-command 1.x (provider/pkg/provider/{local,remote}): any
changed input runs `update`, or `create` where there is none; changed `triggers` replace; `delete`
runs with the inputs of the last run; its output is in PULUMI_COMMAND_STDOUT and _STDERR.
"""

# Method names are given by the protocol.
# ruff: noqa: N802
from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import provider_pb2 as pb

from tests.cloud import sdk, ssh
from tests.cloud.cloud import Cloud
from tests.cloud.faults import CloudError
from tests.cloud.kinds import Props
from tests.cloud.shapes import problems
from tests.cloud.wire import UNKNOWN, Service, answers_errors, changed, diff, pack, unpack

KINDS = ("local.Command", "remote.Command", "remote.CopyToRemote")
COMPUTED = ("stdout", "stderr")


def kind_of(urn: str) -> str:
    kind = ".".join(urn.split("::")[2].split("$")[-1].split(":")[1:])
    if kind not in KINDS:
        raise CloudError(501, f"the double of command has no {kind}")
    return kind


class Command(Service):
    """`folder` is the working directory of local commands; the cloud injects faults here, too."""

    version = "1.2.1"

    def __init__(self, cloud: Cloud, *, folder: Path, environment: Mapping[str, str]) -> None:
        self.cloud, self.folder, self.environment = cloud, folder, environment

    @answers_errors
    def Check(self, request: pb.CheckRequest, context: Any) -> pb.CheckResponse:
        module, kind = kind_of(request.urn).split(".")
        news = unpack(request.news)
        wrong = problems(getattr(sdk, module), kind, news)
        failures = [pb.CheckFailure(property=k, reason=v) for k, v in sorted(wrong.items())]
        return pb.CheckResponse(inputs=pack(news), failures=failures)

    @answers_errors
    def Diff(self, request: pb.DiffRequest, context: Any) -> pb.DiffResponse:
        old, new = unpack(request.old_inputs), unpack(request.news)
        names = changed(old, new, request.ignoreChanges)
        return diff(old, new, names, [k for k in names if k == "triggers"])

    @answers_errors
    def Create(self, request: pb.CreateRequest, context: Any) -> pb.CreateResponse:
        kind, props = kind_of(request.urn), unpack(request.properties)
        if request.preview:
            return pb.CreateResponse(properties=pack({**_unknown(kind), **props}))
        with self.cloud.request("create", kind):
            done = self._act(kind, props, {}, props.get("create"))
        name = request.urn.split("::")[-1]
        id_ = f"{name}{uuid.uuid4().hex[:8]}"
        return pb.CreateResponse(id=id_, properties=pack({**props, **done}))

    @answers_errors
    def Read(self, request: pb.ReadRequest, context: Any) -> pb.ReadResponse:
        """Like the real provider, does not look at anything outside."""
        return pb.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    @answers_errors
    def Update(self, request: pb.UpdateRequest, context: Any) -> pb.UpdateResponse:
        kind, olds, news = kind_of(request.urn), unpack(request.olds), unpack(request.news)
        if request.preview:
            return pb.UpdateResponse(properties=pack({**_unknown(kind), **news}))
        with self.cloud.request("update", kind):
            done = self._act(kind, news, olds, news.get("update", news.get("create")))
        return pb.UpdateResponse(properties=pack({**news, **done}))

    @answers_errors
    def Delete(self, request: pb.DeleteRequest, context: Any) -> Empty:
        kind, props = kind_of(request.urn), unpack(request.properties)
        with self.cloud.request("delete", kind):
            if "delete" in props:
                self._run(kind, props, props, props["delete"])
        return Empty()

    def _act(self, kind: str, props: Props, olds: Props, command: str | None) -> Props:
        if kind == "remote.CopyToRemote":
            # The real provider copies again only if source or target changed, not for a new key.
            if any(props[k] != olds.get(k) for k in ("source", "remotePath")):
                ssh.copy(props["connection"], self._source(props["source"]), props["remotePath"])
            return {}
        if command is None:
            return {k: olds.get(k, "") for k in COMPUTED}
        out, err = self._run(kind, props, olds, command)
        return {"stdout": out, "stderr": err}

    def _source(self, asset: Props) -> Path | str:
        """A file or folder in the project, or text, depending on the mark on the wire."""
        return self.folder / asset["path"] if "path" in asset else str(asset["text"])

    def _run(self, kind: str, props: Props, olds: Props, command: str) -> tuple[str, str]:
        variables = dict(props.get("environment", {}))
        if props.get("addPreviousOutputInEnv", True):
            for name in COMPUTED:
                if olds.get(name):
                    variables[f"PULUMI_COMMAND_{name.upper()}"] = olds[name]
        stdin = props.get("stdin", "")
        if kind == "remote.Command":
            return ssh.run(props["connection"], command, stdin=stdin, variables=variables)
        return self._run_here(props, command, stdin=stdin, variables=variables)

    def _run_here(
        self, props: Props, command: str, *, stdin: str, variables: Props
    ) -> tuple[str, str]:
        for name in ("archivePaths", "assetPaths"):
            if name in props:
                raise CloudError(501, f"the double of command does not know {name}")
        done = subprocess.run(
            [*props.get("interpreter", ["/bin/sh", "-c"]), command],
            cwd=self.folder / props.get("dir", "."),
            env={**os.environ, **self.environment, **variables},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = (
                f'exit status {done.returncode}: running "{command}":\n{done.stdout}{done.stderr}'
            )
            raise CloudError(0, said)
        return done.stdout.removesuffix("\n"), done.stderr.removesuffix("\n")


def _unknown(kind: str) -> Props:
    return {} if kind == "remote.CopyToRemote" else dict.fromkeys(COMPUTED, UNKNOWN)
