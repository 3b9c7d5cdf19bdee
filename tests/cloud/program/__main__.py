"""A program for tests: a droplet to be replaced on purpose, and its volume."""

import pulumi
import pulumi_command as command
import pulumi_digitalocean as do

config = pulumi.Config()
bootstrap = config.require("bootstrap")
volume = do.Volume(
    "data",
    name="double",
    region="nyc3",
    size=10,
    opts=pulumi.ResourceOptions(protect=True),
)
host = do.Droplet(
    "host",
    name="double",
    image="debian-12-x64",
    region="nyc3",
    size=config.require("size"),
    tags=["double"],
    user_data=pulumi.Output.secret(f"#cloud-config\n# {bootstrap} hunter2\n"),
    opts=pulumi.ResourceOptions(
        ignore_changes=["userData"],
        replacement_trigger=bootstrap,
        delete_before_replace=True,
    ),
)
attached = do.VolumeAttachment("disk", droplet_id=host.id.apply(int), volume_id=volume.id)
address = do.ReservedIp("address", region="nyc3")
do.ReservedIpAssignment(
    "assigned",
    ip_address=address.ip_address,
    droplet_id=host.id.apply(int),
    opts=pulumi.ResourceOptions(depends_on=[attached]),
)
if strange := config.get("strange"):
    # Our own class, with properties that the SDK's class would reject.
    pulumi.CustomResource("digitalocean:index/tag:Tag", "strange", {"name": [strange], "odd": 1})
if text := config.get("command"):
    ran = command.local.Command(
        "ran", create=text, triggers=[config.require("trigger")], environment={"WORD": "here"}
    )
    pulumi.export("stdout", ran.stdout)
if port := config.get_int("sshPort"):
    reach = command.remote.ConnectionArgs(
        host="127.0.0.1",
        port=port,
        host_key=config.require("hostKey"),
        private_key=config.require_secret("privateKey"),
        dial_error_limit=0,
    )
    copied = command.remote.CopyToRemote(
        "copied",
        connection=reach,
        source=pulumi.FileAsset("Pulumi.yaml"),
        remote_path=config.require("target"),
    )
    command.remote.Command(
        "there",
        connection=reach,
        create="cat",
        update="echo update",
        delete="echo delete",
        stdin=config.require("trigger"),
        opts=pulumi.ResourceOptions(depends_on=[copied]),
    )
pulumi.export("ip", host.ipv4_address)
priced = do.get_sizes(filters=[{"key": "slug", "values": [config.require("size")]}]).sizes
pulumi.export("price", priced[0].price_monthly)
