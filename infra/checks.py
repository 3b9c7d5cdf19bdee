"""Rules that a stack's configuration must keep, one function each: config in, mistakes out."""

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
    """Configuration of a stack, checked.

    Args:
        values: as `parsed` takes them.
        stack: name of the stack.
        read: text of a file by its path; raises OSError.
        volume_gib_now: size of the volume (name, region) that exists, None where unknown.
        render: makes the user_data, to see whether it fits.

    Raises:
        ConfigError: with all mistakes, each with its remedy.
    """
    config, mistakes = parsed(values, stack, read)
    mistakes += mistakes_of(config, volume_gib_now)
    if render is not None:
        mistakes += _unrenderable(config, render)
    if mistakes:
        raise ConfigError(mistakes)
    return config


def mistakes_of(config: StackConfig, volume_gib_now: VolumeSize) -> list[str]:
    """Every mistake that the configuration holds, none hidden by another."""
    rules = (_region, _bucket, _image, _gpu, _size, _keys, _addresses, _source, _names, _lose_data)
    found = [mistake for rule in rules for mistake in rule(config)]
    return [*found, *_volume(config, volume_gib_now)]


def warnings_of(config: StackConfig) -> list[str]:
    """What will work and may not be meant."""
    found = []
    if catalog.IMAGES.get(config.image) is False:
        found.append(
            f"image {config.image} is accepted; its boot is not part of this project's tests"
        )
    if config.size not in catalog.SIZES:
        found.append(
            f"size {config.size} is not in the table of {catalog.DATED}: memory, disk and price "
            "are not checked; `unetops infra doctor` asks the account"
        )
    examples = [a for a in config.ssh_from if _is_example(a)]
    if examples:
        found.append(
            f"sshFrom {examples[0]} is an address of the documentation: set your own before "
            "`pulumi up`, or no release reaches the host: "
            "pulumi config set --path 'sshFrom[0]' ADDRESS/32"
        )
    return found


def user_data_mistakes(text: str) -> list[str]:
    """Whether DigitalOcean takes the text as user_data."""
    size = len(text.encode())
    if size <= catalog.USER_DATA_MAX_BYTES:
        return []
    return [
        f"user_data: {size} bytes, at most {catalog.USER_DATA_MAX_BYTES} are taken; "
        "fewer or shorter sshPublicKeys make it shorter"
    ]


def _unrenderable(config: StackConfig, render: Callable[[StackConfig], str]) -> list[str]:
    try:
        return user_data_mistakes(render(config))
    except ValueError as e:
        return [f"{e}; fewer or shorter sshPublicKeys make user_data shorter"]


def _region(config: StackConfig) -> Iterator[str]:
    region = catalog.REGIONS.get(config.region)
    if region is None:
        yield f"region: {config.region} is unknown; take one of {', '.join(catalog.REGIONS)}"
    elif not region.volumes:
        have = ", ".join(r.slug for r in catalog.REGIONS.values() if r.volumes)
        yield f"region: {config.region} has no volumes; take one of {have}"


def _bucket(config: StackConfig) -> Iterator[str]:
    region = catalog.REGIONS.get(config.spaces_region)
    have = ", ".join(r.slug for r in catalog.REGIONS.values() if r.spaces)
    if config.bucket_region and region is None:
        yield f"bucketRegion: {config.bucket_region} is unknown; take one of {have}"
    elif config.bucket and region is not None and not region.spaces:
        yield (
            f"bucket: region {region.slug} has no Spaces; set bucketRegion to one of {have}, "
            "or bucket to false"
        )


def _image(config: StackConfig) -> Iterator[str]:
    if config.image in catalog.RETIRED_IMAGES:
        new = catalog.RETIRED_IMAGES[config.image]
        yield f"image: {config.image} is retired; take {new}, or {catalog.DEFAULT_IMAGE}"
    elif not re.fullmatch(r"[a-z0-9][a-z0-9.-]+", config.image):
        yield f"image: {config.image!r} is no slug; known are {', '.join(catalog.IMAGES)}"


def _gpu(config: StackConfig) -> Iterator[str]:
    size_has, image_has = catalog.is_gpu_size(config.size), catalog.is_gpu_image(config.image)
    if size_has and not image_has:
        yield (
            f"image: {config.image} has no GPU driver for size {config.size}; "
            f"take {catalog.GPU_IMAGE}, or a size without gpu-"
        )
    if image_has and not size_has:
        yield (
            f"size: {config.size} has no GPU for image {config.image}; take a gpu- size, "
            f"or image {catalog.DEFAULT_IMAGE}"
        )
    region = catalog.REGIONS.get(config.region)
    if size_has and region is not None and not region.gpu:
        have = ", ".join(r.slug for r in catalog.REGIONS.values() if r.gpu)
        yield f"region: {config.region} has no GPU droplets; take one of {have}"
    if config.gpu_idle_minutes is not None and not size_has:
        yield f"gpuIdleMinutes: size {config.size} has no GPU; take a gpu- size or remove the key"


def _size(config: StackConfig) -> Iterator[str]:
    size = catalog.SIZES.get(config.size)
    if size is None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9_.]+)+", config.size):
            yield f"size: {config.size!r} is no slug; known are {', '.join(catalog.SIZES)}"
        return
    least_gb = catalog.GPU_DISK_MIN_GB if size.gpu else catalog.DISK_MIN_GB
    if size.memory_mib < catalog.MEMORY_MIN_MIB:
        yield (
            f"size: {size.slug} has {size.memory_mib} MiB of memory, torch needs at least "
            f"{catalog.MEMORY_MIN_MIB}; take s-2vcpu-4gb or more"
        )
    if size.disk_gb < least_gb:
        yield f"size: {size.slug} has {size.disk_gb} GB of disk, torch needs at least {least_gb}"


def _keys(config: StackConfig) -> Iterator[str]:
    if not config.ssh_public_keys:
        yield (
            "sshPublicKeys: empty, nobody could reach the host; "
            "pulumi config set --path 'sshPublicKeys[0]' ~/.ssh/id_ed25519.pub"
        )
    for number, key in enumerate(config.public_keys, 1):
        if not _is_public_key(key):
            yield (
                f"sshPublicKeys: number {number} is no public key (expected `ssh-ed25519 AAAA`); "
                "name the .pub file"
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
        yield "sshFrom: empty, no release could reach the host; give your address as ADDRESS/32"
    for address in config.ssh_from:
        try:
            network = ipaddress.ip_network(address)
        except ValueError as e:
            yield f"sshFrom: {address} is no CIDR ({e}); write ADDRESS/32, or NETWORK/24"
            continue
        if network.prefixlen == 0:
            yield f"sshFrom: {address} opens port 22 to everybody; give your address as ADDRESS/32"


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
            "take small letters, digits and - (pulumi stack init NAME)"
        )
    if config.domain and not re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", config.domain):
        yield f"domain: {config.domain} is no host name; write it like masks.example.org"
    if config.acme_directory and not config.domain:
        yield "acmeDirectory: without domain no certificate is asked for; set domain or remove it"
    for email in config.alert_emails:
        if not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
            yield f"alertEmails: {email} is no mail address"
    if config.dataset_url and not config.dataset_url.startswith("https://"):
        yield f"datasetUrl: {config.dataset_url} must begin with https://"


def _lose_data(config: StackConfig) -> Iterator[str]:
    if config.lose_data is not None and not config.loses_data:
        yield (
            f"loseData: {config.lose_data!r} is not this stack's name; write {config.stack} to "
            "lose its data at the next destroy, or remove it: pulumi config rm loseData"
        )


def _volume(config: StackConfig, volume_gib_now: VolumeSize) -> Iterator[str]:
    least, most = catalog.VOLUME_MIN_GIB, catalog.VOLUME_MAX_GIB
    if not least <= config.volume_gib <= most:
        yield f"volumeGib: {config.volume_gib} is outside {least} to {most}"
    now = volume_gib_now(config.name, config.region)
    if now is not None and config.volume_gib < now:
        yield (
            f"volumeGib: {config.volume_gib} is less than the {now} that the volume has, and "
            f"volumes do not shrink; pulumi config set volumeGib {now}, or more"
        )
