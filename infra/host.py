"""Host component: the droplet, its volume attachment and a reserved address that outlives it."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_digitalocean as do


@dataclass(frozen=True, kw_only=True)
class HostArgs:
    """What to create; only a new `bootstrap` value replaces the droplet."""

    region: pulumi.Input[str]
    size: pulumi.Input[str]
    image: pulumi.Input[str]
    user_data: pulumi.Input[str]
    ssh_keys: Sequence[pulumi.Input[str]]
    volume_id: pulumi.Input[str]
    vpc_id: pulumi.Input[str] | None = None
    tags: Sequence[pulumi.Input[str]] = ()
    bootstrap: str = "1"


class Host(pulumi.ComponentResource):
    """Droplet with the volume attached, behind a reserved address.

    New user data, keys or images take effect with the next `bootstrap`, as each would replace the
    droplet.
    """

    address: pulumi.Output[str]
    droplet_id: pulumi.Output[str]
    droplet_urn: pulumi.Output[str]
    ready: list[pulumi.Resource]
    """Resources that must exist before the host can be reached with its volume."""

    def __init__(
        self, name: str, args: HostArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("unetops:infra:Host", name, None, opts)
        self.droplet = _droplet(self, name, args)
        self.droplet_id = self.droplet.id
        self.droplet_urn = self.droplet.droplet_urn
        attachment = do.VolumeAttachment(
            name,
            droplet_id=self.droplet.id.apply(int),
            volume_id=args.volume_id,
            # A volume has one attachment: detach it from the old droplet before attaching it.
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )
        child = pulumi.ResourceOptions(parent=self)
        # Two resources, so that the address survives a replacement of the droplet.
        reserved = do.ReservedIp(name, region=args.region, opts=child)
        assigned = do.ReservedIpAssignment(
            name,
            ip_address=reserved.ip_address,
            droplet_id=self.droplet.id.apply(int),
            # One action at a time: the droplet rejects others while the volume is being attached.
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[attachment], delete_before_replace=True
            ),
        )
        self.address = reserved.ip_address
        self.ready = [attachment, assigned]
        self.register_outputs({"address": self.address, "droplet_id": self.droplet_id})


def _droplet(parent: Host, name: str, args: HostArgs) -> do.Droplet:
    return do.Droplet(
        name,
        # Explicit, so that the provider deletes the old droplet before it creates the new one.
        name=name,
        region=args.region,
        size=args.size,
        image=args.image,
        user_data=args.user_data,
        ssh_keys=list(args.ssh_keys),
        vpc_uuid=args.vpc_id,
        tags=list(args.tags),
        monitoring=True,
        # A resize can be undone only if the disk keeps its size; the data is on the volume.
        resize_disk=False,
        graceful_shutdown=True,
        opts=pulumi.ResourceOptions(
            parent=parent,
            # The trigger bypasses the provider's own rule: without this, two droplets are billed.
            delete_before_replace=True,
            replacement_trigger=args.bootstrap,
            ignore_changes=["userData", "sshKeys", "image"],
        ),
    )
