"""A minimal pulumi-language-python, for machines where that program is not available.

The engine starts it, reads a port from its first line, and asks over gRPC to run a program or a
policy pack. The program itself is run by pulumi-language-python-exec, a script of the SDK's Go
module that the build puts next to `pulumi`.
"""

# Method names are given by the protocol.
# ruff: noqa: N802
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import grpc
from google.protobuf import json_format
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import language_pb2 as pb
from pulumi.runtime.proto import language_pb2_grpc, plugin_pb2

ALREADY_SAID = 32  # the executor's exit status if it has already reported the error


def interpreter(info: pb.ProgramInfo) -> str:
    """The Python of the `virtualenv` option, relative to the project; by default this Python."""
    options = json_format.MessageToDict(info.options)
    if "virtualenv" not in options:
        return sys.executable
    python = Path(info.root_directory, options["virtualenv"], "bin", "python")
    if not python.exists():
        name = options["virtualenv"]
        raise FileNotFoundError(f"virtual environment {name!r} has no Python: make it first")
    return str(python)


def program(info: pb.ProgramInfo) -> str:
    return str(Path(info.program_directory, info.entry_point))


class Host(language_pb2_grpc.LanguageRuntimeServicer):
    def __init__(self, engine: str, executor: str) -> None:
        self.engine, self.executor = engine, executor

    def Handshake(self, request: Any, context: Any) -> pb.LanguageHandshakeResponse:
        return pb.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=metadata.version("pulumi"))

    def About(self, request: Any, context: Any) -> pb.AboutResponse:
        version = ".".join(map(str, sys.version_info[:3]))
        return pb.AboutResponse(executable=sys.executable, version=version)

    def GetRequiredPackages(self, request: Any, context: Any) -> pb.GetRequiredPackagesResponse:
        # None: the engine learns at the first registration which plugins a program needs.
        return pb.GetRequiredPackagesResponse()

    def GetProgramDependencies(self, request: Any, context: Any) -> Any:
        command = [interpreter(request.info), "-m", "pip", "list", "--format=json"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows = json.loads(listed)
        found = [pb.DependencyInfo(name=r["name"], version=r["version"]) for r in rows]
        return pb.GetProgramDependenciesResponse(dependencies=found)

    def InstallDependencies(self, request: Any, context: Any) -> Iterator[Any]:
        text = b"dependencies are installed by the project's own means\n"
        yield pb.InstallDependenciesResponse(stdout=text)

    def RuntimeOptionsPrompts(self, request: Any, context: Any) -> pb.RuntimeOptionsResponse:
        return pb.RuntimeOptionsResponse()

    def Cancel(self, request: Any, context: Any) -> Empty:
        return Empty()

    def Run(self, request: pb.RunRequest, context: Any) -> pb.RunResponse:
        try:
            command = self._command(request)
        except FileNotFoundError as e:
            return pb.RunResponse(error=str(e))
        config = {
            "PULUMI_CONFIG": json.dumps(dict(request.config)),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
        }
        environment = {**os.environ, **config}
        done = subprocess.run(command, stdin=subprocess.DEVNULL, env=environment, check=False)
        if done.returncode == ALREADY_SAID:
            return pb.RunResponse(bail=True)
        error = f"program exited with status {done.returncode}" if done.returncode else ""
        return pb.RunResponse(error=error)

    def _command(self, request: pb.RunRequest) -> list[str]:
        flags = {
            "monitor": request.monitor_address,
            "engine": self.engine,
            "project": request.project,
            "stack": request.stack,
            "pwd": request.pwd,
            "root_directory": request.info.root_directory,
            "dry_run": str(request.dryRun).lower(),
            "parallel": str(request.parallel),
            "organization": request.organization,
        }
        words = [word for name, value in flags.items() for word in (f"--{name}", value)]
        start = [interpreter(request.info), "-u", self.executor]
        return [*start, *words, program(request.info), *request.args]

    def RunPlugin(self, request: pb.RunPluginRequest, context: Any) -> Iterator[Any]:
        """A policy pack: its first line is the port of its analyzer, so output must flow."""
        child = subprocess.Popen(
            [interpreter(request.info), "-u", program(request.info), *request.args],
            cwd=request.pwd or None,
            env={**os.environ, **dict(e.split("=", 1) for e in request.env)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        context.add_callback(child.kill)  # the engine ends the call when it wants the plugin gone
        yield from _pumped(child)
        yield pb.RunPluginResponse(exitcode=child.wait())


def _pumped(child: subprocess.Popen[bytes]) -> Iterator[pb.RunPluginResponse]:
    answers: SimpleQueue[pb.RunPluginResponse | None] = SimpleQueue()

    def pump(stream: IO[bytes], answer: Callable[[bytes], pb.RunPluginResponse]) -> None:
        while chunk := os.read(stream.fileno(), 65536):
            answers.put(answer(chunk))
        answers.put(None)

    pumps = (
        (child.stdout, lambda b: pb.RunPluginResponse(stdout=b)),
        (child.stderr, lambda b: pb.RunPluginResponse(stderr=b)),
    )
    for pair in pumps:
        threading.Thread(target=pump, args=pair, daemon=True).start()
    for _ in pumps:
        yield from iter(answers.get, None)


def main() -> None:
    host = Host(engine=sys.argv[-1], executor=os.environ["PULUMI_PYTHON_EXECUTOR"])
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    for number in (signal.SIGINT, signal.SIGTERM):  # the engine interrupts plugins when done
        signal.signal(number, lambda *_: server.stop(0))
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
