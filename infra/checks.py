"""Checks of a stack's configuration, one function each: configuration in, errors out."""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from infra import catalog
from infra.catalog import WORKING_COPY
from infra.config import ConfigError, StackConfig, parsed

VolumeSize = Callable[[str, str], int | None]


def read_config(
    values: Mapping[str, Any],
    stack: str,
    read: Callable[[str], str],
    *,
    volume_gib_now: VolumeSize = lambda name, region: None,
    render: Callable[[StackConfig], str] | None = None,
) -> StackConfig:
    """Parse and check the configuration of a stack.

    Args:
        values: see `parsed`.
        stack: name of the stack.
        read: reads a file by path; raises OSError.
        volume_gib_now: size of the existing volume (name, region), None if unknown.
        render: creates the user_data, to check its size.

    Raises:
        ConfigError: with all errors, each with its remedy.
    """
    config, mistakes = parsed(values, stack, read)
    mistakes += mistakes_of(config, volume_gib_now)
    if render is not None:
        mistakes += _unrenderable(config, render)
    if mistakes:
        raise ConfigError(mistakes)
    return config


def mistakes_of(config: StackConfig, volume_gib_now: VolumeSize) -> list[str]:
    """All errors of the configuration, none hidden by another."""
    rules = (_region, _bucket, _image, _gpu, _size, _keys, _addresses, _source, _names, _lose_data)
    found = [mistake for rule in rules for mistake in rule(config)]
    return [*found, *_volume(config, volume_gib_now)]


def warnings_of(config: StackConfig) -> list[str]:
    """Settings that work but may not be intended."""
    found = []
    if catalog.IMAGES.get(config.image) is False:
        found.append(
            f"image {config.image} is accepted, but its boot is not covered by this project's tests"
        )
    if config.size not in catalog.SIZES:
        found.append(
            f"size {config.size} is not in the table of {catalog.DATED}: memory, disk and price "
            "are not checked; `unetops infra doctor` queries the account"
        )
    examples = [a for a in config.ssh_from if _is_example(a)]
    if examples:
        found.append(
            f"sshFrom {examples[0]} is a documentation example: set your own address before "
            "`pulumi up`, or no release can reach the host: "
            "pulumi config set --path 'sshFrom[0]' ADDRESS/32"
        )
    return found


def user_data_mistakes(text: str) -> list[str]:
    """Errors of a user_data that DigitalOcean would reject."""
    size = len(text.encode())
    if size <= catalog.USER_DATA_MAX_BYTES:
        return []
    return [
        f"user_data: {size} bytes, the limit is {catalog.USER_DATA_MAX_BYTES}; "
        "use fewer or shorter sshPublicKeys"
    ]


def _unrenderable(config: StackConfig, render: Callable[[StackConfig], str]) -> list[str]:
    try:
        return user_data_mistakes(render(config))
    except ValueError as e:
        return [f"{e}; use fewer or shorter sshPublicKeys"]


def _region(config: StackConfig) -> Iterator[str]:
    region = catalog.REGIONS.get(config.region)
    if region is None:
        yield f"region: {config.region} is unknown; use one of {', '.join(catalog.REGIONS)}"
    elif not region.volumes:
        have = ", ".join(r.slug for r in catalog.REGIONS.values() if r.volumes)
        yield f"region: {config.region} has no volumes; use one of {have}"


def _bucket(config: StackConfig) -> Iterator[str]:
    region = catalog.REGIONS.get(config.spaces_region)
    have = ", ".join(r.slug for r in catalog.REGIONS.values() if r.spaces)
    if config.bucket_region and region is None:
        yield f"bucketRegion: {config.bucket_region} is unknown; use one of {have}"
    elif config.bucket and region is not None and not region.spaces:
        yield (
            f"bucket: region {region.slug} has no Spaces; set bucketRegion to one of {have}, "
            "or bucket to false"
        )


def _image(config: StackConfig) -> Iterator[str]:
    if config.image in catalog.RETIRED_IMAGES:
        new = catalog.RETIRED_IMAGES[config.image]
        yield f"image: {config.image} is retired; use {new}, or {catalog.DEFAULT_IMAGE}"
    elif not re.fullmatch(r"[a-z0-9][a-z0-9.-]+", config.image):
        yield f"image: {config.image!r} is not a slug; known are {', '.join(catalog.IMAGES)}"


def _gpu(config: StackConfig) -> Iterator[str]:
    size_has, image_has = catalog.is_gpu_size(config.size), catalog.is_gpu_image(config.image)
    if size_has and not image_has:
        yield (
            f"image: {config.image} has no GPU driver for size {config.size}; "
            f"use {catalog.GPU_IMAGE}, or a size without gpu-"
        )
    if image_has and not size_has:
        yield (
            f"size: {config.size} has no GPU for image {config.image}; use a gpu- size, "
            f"or image {catalog.DEFAULT_IMAGE}"
        )
    region = catalog.REGIONS.get(config.region)
    if size_has and region is not None and not region.gpu:
        have = ", ".join(r.slug for r in catalog.REGIONS.values() if r.gpu)
        yield f"region: {config.region} has no GPU droplets; use one of {have}"
    if config.gpu_idle_minutes is not None and not size_has:
        yield f"gpuIdleMinutes: size {config.size} has no GPU; use a gpu- size or remove the key"


def _size(config: StackConfig) -> Iterator[str]:
    size = catalog.SIZES.get(config.size)
    if size is None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9_.]+)+", config.size):
            yield f"size: {config.size!r} is not a slug; known are {', '.join(catalog.SIZES)}"
        return
    min_gb = catalog.GPU_DISK_MIN_GB if size.gpu else catalog.DISK_MIN_GB
    if size.memory_mib < catalog.MEMORY_MIN_MIB:
        yield (
            f"size: {size.slug} has {size.memory_mib} MiB of memory, torch needs at least "
            f"{catalog.MEMORY_MIN_MIB}; use s-2vcpu-4gb or more"
        )
    if size.disk_gb < min_gb:
        yield f"size: {size.slug} has {size.disk_gb} GB of disk, torch needs at least {min_gb}"


def _keys(config: StackConfig) -> Iterator[str]:
    if not config.ssh_public_keys:
        yield (
            "sshPublicKeys: empty, nobody could log in to the host; "
            "pulumi config set --path 'sshPublicKeys[0]' ~/.ssh/id_ed25519.pub"
        )
    for number, key in enumerate(config.public_keys, 1):
        if not _is_public_key(key):
            yield (
                f"sshPublicKeys: number {number} is not a public key (expected `ssh-ed25519 "
                "AAAA`); give the .pub file"
            )


def _is_public_key(text: str) -> bool:
    words = text.split()
    if "PRIVATE" in text or len(words) < 2:
        return False
    try:
        return words[0].encode() in base64.b64decode(words[1], validate=True)
    except binascii.Error:
        return False


def _addresses(config: StackConfig) -> Iterator[str]:
    if not config.ssh_from:
        yield "sshFrom: empty, no release could reach the host; set it to your ADDRESS/32"
    for address in config.ssh_from:
        try:
            network = ipaddress.ip_network(address)
        except ValueError as e:
            yield f"sshFrom: {address} is not a CIDR ({e}); write ADDRESS/32, or NETWORK/24"
            continue
        if network.prefixlen == 0:
            yield f"sshFrom: {address} opens port 22 to everybody; set it to your ADDRESS/32"


def _is_example(address: str) -> bool:
    return address.startswith(("192.0.2.", "198.51.100.", "203.0.113.", "2001:db8:"))


def _source(config: StackConfig) -> Iterator[str]:
    git = re.fullmatch(r"git\+https://\S+@[0-9a-f]{40}", config.source)
    wheel = re.fullmatch(r"https://\S+\.whl(#sha256=[0-9a-f]{64})?", config.source)
    if config.source != WORKING_COPY and not git and not wheel:
        yield (
            f"source: {config.source} is none of {WORKING_COPY}, git+https://HOST/REPO@COMMIT "
            "(40 hex digits), https://HOST/NAME.whl"
        )


def _names(config: StackConfig) -> Iterator[str]:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,40}", config.stack):
        yield (
            f"stack: {config.stack} cannot be part of a volume's name; "
            "use lowercase letters, digits and - (pulumi stack init NAME)"
        )
    if config.domain and not re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", config.domain):
        yield f"domain: {config.domain} is not a host name; write it like masks.example.org"
    if config.acme_directory and not config.domain:
        yield "acmeDirectory: without domain no certificate is requested; set domain or remove it"
    for email in config.alert_emails:
        if not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
            yield f"alertEmails: {email} is not an email address"
    if config.dataset_url and not config.dataset_url.startswith("https://"):
        yield f"datasetUrl: {config.dataset_url} must start with https://"


def _lose_data(config: StackConfig) -> Iterator[str]:
    if config.lose_data is not None and not config.loses_data:
        yield (
            f"loseData: {config.lose_data!r} is not this stack's name; write {config.stack} to "
            "delete its data at the next destroy, or remove it: pulumi config rm loseData"
        )


def _volume(config: StackConfig, volume_gib_now: VolumeSize) -> Iterator[str]:
    minimum, maximum = catalog.VOLUME_MIN_GIB, catalog.VOLUME_MAX_GIB
    if not minimum <= config.volume_gib <= maximum:
        yield f"volumeGib: {config.volume_gib} is outside {minimum} to {maximum}"
    now = volume_gib_now(config.name, config.region)
    if now is not None and config.volume_gib < now:
        yield (
            f"volumeGib: {config.volume_gib} is less than the {now} that the volume has, and "
            f"volumes cannot shrink; pulumi config set volumeGib {now}, or more"
        )
