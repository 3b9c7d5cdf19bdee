"""Values and services of Pulumi's provider protocol, shared by both doubles."""

# Method names are given by the protocol.
# ruff: noqa: N802
from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.empty_pb2 import Empty
from google.protobuf.struct_pb2 import Struct
from pulumi.runtime.proto import plugin_pb2, provider_pb2_grpc
from pulumi.runtime.proto import provider_pb2 as pb
from pulumi.runtime.rpc import UNKNOWN  # the engine's marker for values unknown in a preview

from tests.cloud.faults import CloudError
from tests.cloud.kinds import Props

DEFAULTED = "__defaults"  # as the Terraform bridge does: inputs that the provider filled in itself


def plain(value: Any) -> Any:
    """JSON numbers are floats, whole ones become int; absent and null inputs are the same."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def unpack(message: Struct) -> Props:
    return plain(json_format.MessageToDict(message))


def pack(props: Props) -> Struct:
    return json_format.ParseDict(props, Struct())


def changed(old: Props, new: Props, ignored: Any = ()) -> list[str]:
    names = (old.keys() | new.keys()) - {DEFAULTED}
    return sorted(k for k in names if old.get(k) != new.get(k) and k not in ignored)


def detail(name: str, old: Props, new: Props, *, replace: bool) -> pb.PropertyDiff:
    verb = "ADD" if name not in old else "DELETE" if name not in new else "UPDATE"
    kind = pb.PropertyDiff.Kind.Value(f"{verb}_REPLACE" if replace else verb)
    return pb.PropertyDiff(kind=kind, inputDiff=True)


def diff(old: Props, new: Props, names: list[str], replaces: list[str]) -> pb.DiffResponse:
    return pb.DiffResponse(
        changes=pb.DiffResponse.DIFF_SOME if names else pb.DiffResponse.DIFF_NONE,
        diffs=names,
        replaces=replaces,
        hasDetailedDiff=True,
        detailedDiff={k: detail(k, old, new, replace=k in replaces) for k in names},
    )


def answers_errors(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapped(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except CloudError as e:
            return context.abort(grpc.StatusCode.UNKNOWN, str(e))
        except Exception as e:
            # A bug of the double: reported as such, not as an answer of the cloud.
            return context.abort(grpc.StatusCode.INTERNAL, f"double: {type(e).__name__}: {e}")

    return wrapped


class Service(provider_pb2_grpc.ResourceProviderServicer):
    """The part of a provider that describes itself.

    It takes no secrets: the engine then hands over plain values and marks by itself every output
    that has the name of a secret input. A double that took them could only do that worse.
    """

    version = "0.0.0"

    def Handshake(self, request: Any, context: Any) -> pb.ProviderHandshakeResponse:
        return pb.ProviderHandshakeResponse()

    def Attach(self, request: Any, context: Any) -> Empty:
        return Empty()

    def Cancel(self, request: Any, context: Any) -> Empty:
        return Empty()

    def GetPluginInfo(self, request: Any, context: Any) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=self.version)

    def CheckConfig(self, request: pb.CheckRequest, context: Any) -> pb.CheckResponse:
        return pb.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> pb.DiffResponse:
        return pb.DiffResponse(changes=pb.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: Any) -> pb.ConfigureResponse:
        return pb.ConfigureResponse(supportsPreview=True)  # like the real ones it makes no call


def listen(service: Service, port: int = 0) -> tuple[grpc.Server, int]:
    server = grpc.server(ThreadPoolExecutor(max_workers=16))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(service, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, bound


@contextlib.contextmanager
def serving(*services: Service) -> Iterator[list[int]]:
    servers = [listen(s) for s in services]
    try:
        yield [port for _, port in servers]
    finally:
        for server, _ in servers:
            server.stop(0).wait()


__all__ = ["DEFAULTED", "UNKNOWN", "Service", "answers_errors", "changed", "diff", "listen"]
__all__ += ["pack", "plain", "serving", "unpack"]
