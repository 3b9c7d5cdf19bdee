"""DataVolume component: the disk that outlives the droplets."""

from dataclasses import dataclass

import pulumi
import pulumi_digitalocean as do


@dataclass(frozen=True, kw_only=True)
class DataVolumeArgs:
    """Region and size; a volume can grow but not shrink."""

    region: pulumi.Input[str]
    size_gib: pulumi.Input[int]
    tags: pulumi.Input[list[str]] | None = None
    lose_data: bool = False
    """True lifts the protection: `pulumi destroy` then deletes the volume and its contents."""
    snapshot: str | None = None
    """A label; each new label takes a new snapshot."""
    refusal: str | None = None
    """Error message if no volume may be created because the account already has one of this name.
    """


class DataVolume(pulumi.ComponentResource):
    """Protected volume without a filesystem: the first boot creates one if there is none.

    The volume's name is set explicitly, so that a droplet finds it below /dev/disk/by-id.
    """

    volume_id: pulumi.Output[str]
    volume_name: pulumi.Output[str]
    volume_urn: pulumi.Output[str]

    def __init__(
        self, name: str, args: DataVolumeArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("unetops:infra:DataVolume", name, None, opts)
        self.volume = do.Volume(
            name,
            name=name,
            region=args.region,
            size=args.size_gib,
            tags=args.tags,
            opts=pulumi.ResourceOptions(
                parent=self,
                protect=not args.lose_data,
                retain_on_delete=not args.lose_data,
                # Changing any of these would replace the volume and delete its data.
                ignore_changes=[
                    "description",
                    "initialFilesystemType",
                    "initialFilesystemLabel",
                    "filesystemType",
                ],
                hooks=_refuse(args.refusal) if args.refusal else None,
            ),
        )
        if args.snapshot:
            self._snapshot(f"{name}-{args.snapshot}")
        self.volume_id = self.volume.id
        self.volume_name = self.volume.name
        self.volume_urn = self.volume.volume_urn
        self.register_outputs({"volume_id": self.volume_id, "volume_name": self.volume_name})

    def _snapshot(self, name: str) -> None:
        do.VolumeSnapshot(
            name,
            name=name,
            volume_id=self.volume.id,
            # An older label leaves the stack; its snapshot stays in the account.
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=True),
        )


def _refuse(why: str) -> pulumi.ResourceHookBinding:
    """Refuse to create the volume; a volume in the state is unaffected.

    A program cannot see its state, but the engine can: it calls this hook, also in previews, only
    if the state has no such volume.
    """

    def refuse(_: pulumi.ResourceHookArgs) -> None:
        raise RuntimeError(why)

    options = pulumi.ResourceHookOptions(on_dry_run=True)
    return pulumi.ResourceHookBinding(
        before_create=[pulumi.ResourceHook("no second volume", refuse, options)]
    )


@dataclass(frozen=True, kw_only=True)
class FoundVolume:
    """A volume of the account, in the state or not."""

    volume_id: str
    size_gib: int


def find_volume(name: str, region: str) -> FoundVolume | None:
    """The account's volume of that name; None if absent or if the account cannot be queried."""
    try:
        found = do.get_volume(name=name, region=region)
    except Exception as e:  # the engine raises plain Exception for any failed call
        if not is_absence(str(e)):
            pulumi.log.warn(
                f"volume {name} could not be looked up ({str(e).splitlines()[0][:200]}): "
                "cannot check whether it would shrink or has to be adopted"
            )
        return None
    if not found.id or found.size is None:
        return None
    return FoundVolume(volume_id=found.id, size_gib=int(found.size))


def is_absence(message: str) -> bool:
    """Whether a failed look-up means that there is no such volume.

    Source: terraform-provider-digitalocean, volume/datasource_volume.go: "no volumes found" and
    "volume not found".
    """
    return any(mark in message.lower() for mark in ("no volume", "not found", "404"))
