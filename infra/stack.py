"""The stack of this project: configuration in, components and outputs out."""

import os
from dataclasses import dataclass
from pathlib import Path

import pulumi

from infra import prices, volume
from infra.bucket import Bucket, BucketArgs
from infra.catalog import is_gpu_size
from infra.cloud_init import MachineSpec, user_data
from infra.config import StackConfig
from infra.dns import Dns, DnsArgs
from infra.host import Host, HostArgs
from infra.monitoring import Monitoring, MonitoringArgs
from infra.network import Network, NetworkArgs
from infra.project import Project, ProjectArgs
from infra.release import Release, ReleaseArgs, certificate_fingerprint
from infra.source import Source
from infra.ssh import SshKeys, SshKeysArgs
from infra.take import adoption_line

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unetops/wheels"
# Machines below 8 GiB get swap: pip unpacks torch while the predictor loads it.
SWAP_GIB = 4


def read_file(path: str) -> str:
    """Contents of a file given in the configuration, relative to the project's root."""
    return (ROOT / Path(path).expanduser()).read_text()


def machine_spec(config: StackConfig, source: Source | None = None) -> MachineSpec:
    """Specification of the droplet; a wheel of the working copy follows later, over SSH."""
    small = config.size.endswith(("-1gb", "-2gb", "-4gb")) or config.size == "c-2"
    return MachineSpec(
        hostname=config.name,
        volume_name=config.name,
        deploy_keys=config.public_keys,
        domain=config.domain,
        acme_directory=config.acme_directory,
        swap_gib=SWAP_GIB if small else 0,
        dataset_url=config.dataset_url,
        gpu=is_gpu_size(config.size),
        gpu_idle_minutes=config.gpu_idle_minutes,
        torch_index=config.torch_index,
        source=source.address if source else None,
        release_id=source.release_id if source and source.address else None,
        lock=LOCK.read_text(),
        stack=config.stack,
    )


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The components that other programs may build on."""

    network: Network
    data: volume.DataVolume
    host: Host
    release: Release
    bucket: Bucket | None


def build(config: StackConfig, source: Source, found: volume.FoundVolume | None = None) -> Parts:
    """Create all components of the stack; `found` is the account's existing volume."""
    name, tags = config.name, config.all_tags
    network = Network(
        name, NetworkArgs(region=config.region, ssh_from=config.ssh_from, tag=config.name)
    )
    keys = SshKeys(name, SshKeysArgs(public_keys=config.public_keys))
    data = volume.DataVolume(
        name,
        volume.DataVolumeArgs(
            region=config.region,
            size_gib=config.volume_gib,
            tags=tags,
            lose_data=config.loses_data,
            snapshot=config.snapshot,
            refusal=adoption_line(config.stack, found.volume_id, found.size_gib) if found else None,
        ),
    )
    host = Host(
        name,
        HostArgs(
            region=config.region,
            size=config.size,
            image=config.image,
            user_data=user_data(machine_spec(config, source)),
            ssh_keys=keys.fingerprints,
            volume_id=data.volume_id,
            vpc_id=network.vpc_id,
            tags=tags,
            bootstrap=config.bootstrap,
        ),
        # Create the firewall before the droplet.
        pulumi.ResourceOptions(depends_on=[network]),
    )
    bucket = _supporting_components(config, data, host)
    return Parts(
        network=network,
        data=data,
        host=host,
        bucket=bucket,
        release=_release(config, source, host=host),
    )


def _supporting_components(
    config: StackConfig, data: volume.DataVolume, host: Host
) -> Bucket | None:
    name = config.name
    if config.domain:
        Dns(name, DnsArgs(domain=config.domain, address=host.address))
    watched = config.domain or host.address
    Monitoring(name, MonitoringArgs(host=watched, tag=name, emails=config.alert_emails))
    shown: list[pulumi.Input[str]] = [host.droplet_urn, data.volume_urn]
    bucket = None
    if config.bucket:
        args = BucketArgs(region=config.spaces_region, lose_data=config.loses_data)
        bucket = Bucket(name, args)
        shown.append(bucket.bucket_urn)
    Project(name, ProjectArgs(resources=shown))
    return bucket


def _release(config: StackConfig, source: Source, *, host: Host) -> Release:
    return Release(
        config.name,
        ReleaseArgs(
            address=host.address,
            droplet_id=host.droplet_id,
            source=source,
            lock=LOCK,
            private_key=config.deploy_key,
            torch_index=config.torch_index,
            wait_for=host.ready,
        ),
    )


def export(config: StackConfig, source: Source, *, parts: Parts, price: prices.Estimate) -> None:
    """Export the stack's outputs."""
    address = parts.host.address
    ssh = pulumi.Output.concat("ssh root@", address)
    visible = pulumi.Output.from_input(config.domain) if config.domain else address
    outputs = {
        "url": pulumi.Output.concat("https://", visible),
        "address": address,
        "ssh": ssh,
        "knownHosts": parts.release.known_hosts,
        "adminTokenCommand": pulumi.Output.concat(ssh, " /opt/unetops/bin/unetops-host token"),
        "monthlyPrice": price.usd_month,
        "priceLines": [str(line) for line in price.lines],
        "release": source.release_id,
        "certificateFingerprint": parts.release.status.apply(certificate_fingerprint),
        "volume": parts.data.volume_id,
    }
    if parts.bucket:
        outputs |= {"bucket": parts.bucket.bucket_name, "bucketKey": parts.bucket.access_key}
        outputs |= {"bucketSecret": parts.bucket.secret_key}
    for name, value in outputs.items():
        pulumi.export(name, value)
