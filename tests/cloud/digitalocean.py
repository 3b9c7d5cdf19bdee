"""A double of the DigitalOcean provider: Pulumi's protocol on top of cloud.py."""

# Method names are given by the protocol.
# ruff: noqa: N802
from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import provider_pb2 as pb

from tests.cloud.cloud import Cloud
from tests.cloud.faults import PENDING, CloudError
from tests.cloud.kinds import KINDS, Props
from tests.cloud.lookups import look_up
from tests.cloud.sdk import digitalocean as sdk
from tests.cloud.shapes import problems, shape
from tests.cloud.wire import (
    DEFAULTED,
    UNKNOWN,
    Service,
    answers_errors,
    changed,
    diff,
    pack,
    unpack,
)

RETRIES = 4  # http_retry_max of the provider; it retries 429 and 5xx, a create as well
ACTIONS = ("VolumeAttachment", "ReservedIpAssignment")  # the provider waits for these to be done
IMPORT_IDS = {  # `pulumi import` takes two ids with a comma: first and second property
    "VolumeAttachment": ("dropletId", "volumeId"),
    "ReservedIpAssignment": ("ipAddress", "dropletId"),
}


def kind_of(urn: str) -> str:
    kind = urn.split("::")[2].split("$")[-1].split(":")[-1]
    if kind not in KINDS:
        raise CloudError(501, f"the double of digitalocean has no {kind}")
    return kind


def stored(props: Props) -> Props:
    """What the provider stores in the state: user data only as a hash."""
    if "userData" not in props:
        return props
    return {**props, "userData": hashlib.sha1(props["userData"].encode()).hexdigest()}


class DigitalOcean(Service):
    version = "4.76.0"

    def __init__(self, cloud: Cloud, environment: Mapping[str, str] | None = None) -> None:
        self.cloud = cloud
        self.environment = os.environ if environment is None else environment
        self.config: Props = {}

    def Configure(self, request: pb.ConfigureRequest, context: Any) -> pb.ConfigureResponse:
        self.config = {**unpack(request.args), **dict(request.variables)}
        return super().Configure(request, context)

    @answers_errors
    def Invoke(self, request: pb.InvokeRequest, context: Any) -> pb.InvokeResponse:
        what = request.tok.split(":")[-1].removeprefix("get")
        args = unpack(request.args)
        return pb.InvokeResponse(
            **{"return": pack(self._patiently("", look_up, self.cloud, what, args))}
        )

    @answers_errors
    def Check(self, request: pb.CheckRequest, context: Any) -> pb.CheckResponse:
        kind, olds, news = kind_of(request.urn), unpack(request.olds), unpack(request.news)
        news.pop(DEFAULTED, None)
        wrong = problems(sdk, kind, news)
        failures = [pb.CheckFailure(property=k, reason=v) for k, v in sorted(wrong.items())]
        if shape(sdk, kind).autonamed and "name" not in news:
            news |= {"name": _invented(request, olds), DEFAULTED: ["name"]}
        return pb.CheckResponse(inputs=pack(news), failures=failures)

    @answers_errors
    def Diff(self, request: pb.DiffRequest, context: Any) -> pb.DiffResponse:
        kind, old, new = kind_of(request.urn), unpack(request.old_inputs), unpack(request.news)
        names = changed(old, new, request.ignoreChanges)
        replaces = [k for k in names if k in KINDS[kind].replaces]
        if kind == "Volume" and "size" in names and UNKNOWN != new["size"] < old["size"]:
            raise CloudError(422, "volumes `size` can only be expanded and not shrunk")
        answer = diff(old, new, names, replaces)
        # Explicit names are unique, so the bridge requests that the old object is deleted first.
        explicit = "name" in new and "name" not in new.get(DEFAULTED, [])
        answer.deleteBeforeReplace = bool(replaces) and explicit and old.get("name") == new["name"]
        return answer

    @answers_errors
    def Create(self, request: pb.CreateRequest, context: Any) -> pb.CreateResponse:
        kind, props = kind_of(request.urn), _given(unpack(request.properties))
        if request.preview:
            unknown = dict.fromkeys(shape(sdk, kind).computed, UNKNOWN)
            return pb.CreateResponse(properties=pack({**unknown, **props}))
        self._check_credentials(kind)
        id_ = self._patiently(kind, self.cloud.create, kind, props)
        return pb.CreateResponse(id=id_, properties=pack(stored(self.cloud._seen(kind, id_))))

    @answers_errors
    def Read(self, request: pb.ReadRequest, context: Any) -> pb.ReadResponse:
        kind, old = kind_of(request.urn), unpack(request.inputs)
        id_ = _own_id(kind, request.id)
        try:
            found = self._patiently(kind, self.cloud.read, kind, id_)
        except CloudError as e:
            if e.status == 404:
                return pb.ReadResponse()  # an empty id means that the object is gone
            raise
        unread = KINDS[kind].unread - (set() if old else {"image"})  # required by its importer
        readable = shape(sdk, kind).types.keys() - unread
        seen = {k: v for k, v in found.items() if k in readable}
        inputs = {**old, **{k: v for k, v in seen.items() if k in old}} if old else seen
        return pb.ReadResponse(id=id_, properties=pack(stored(found)), inputs=pack(inputs))

    @answers_errors
    def Update(self, request: pb.UpdateRequest, context: Any) -> pb.UpdateResponse:
        kind, news = kind_of(request.urn), _given(unpack(request.news))
        if request.preview:
            return pb.UpdateResponse(properties=pack({**unpack(request.olds), **stored(news)}))
        self._patiently(kind, self.cloud.update, kind, request.id, news)
        return pb.UpdateResponse(properties=pack(stored(self.cloud._seen(kind, request.id))))

    @answers_errors
    def Delete(self, request: pb.DeleteRequest, context: Any) -> Empty:
        kind = kind_of(request.urn)
        try:
            self._patiently(kind, self.cloud.delete, kind, request.id)
        except CloudError as e:
            if e.status != 404:  # already gone counts as deleted
                raise
        return Empty()

    def _patiently(self, kind: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Retry as the provider does: in its HTTP client and in the loop of the attachment."""
        tries = 0
        while True:
            try:
                result = call(*arguments)
            except CloudError as e:
                tries += 1
                if not _worth_another(kind, e, tries):
                    raise
                time.sleep(0.05)
            else:
                if kind in ACTIONS and call != self.cloud.read:
                    time.sleep(self.cloud.action_seconds)
                return result

    def _check_credentials(self, kind: str) -> None:
        """Spaces have separate keys; missing ones are reported at the first bucket (config.go)."""
        if kind.startswith("SpacesBucket") and not (
            self.config.get("spacesAccessId") or self.environment.get("SPACES_ACCESS_KEY_ID")
        ):
            raise CloudError(401, "Spaces credentials not configured")


def _worth_another(kind: str, error: CloudError, tries: int) -> bool:
    if error.status == 429 or 500 <= error.status != 501:
        return tries <= RETRIES
    # Only the attachment waits until the droplet is free (five minutes); the assignment does not.
    return kind == "VolumeAttachment" and error.message == PENDING and tries < 100


def _given(inputs: Props) -> Props:
    return {k: v for k, v in inputs.items() if k != DEFAULTED}


def _own_id(kind: str, id_: str) -> str:
    if kind not in IMPORT_IDS or "," not in id_:
        return id_
    named = dict(zip(IMPORT_IDS[kind], id_.split(","), strict=True))
    return f"{named['dropletId']}-{named.get('volumeId') or named.get('ipAddress')}"


def _invented(request: pb.CheckRequest, olds: Props) -> str:
    """Keep a generated name; new ones use the engine's seed, so that preview and update agree."""
    if "name" in olds.get(DEFAULTED, []):
        return str(olds["name"])
    seed = random.Random(request.randomSeed)
    return f"{request.urn.split('::')[-1]}-{seed.getrandbits(28):07x}"
