"""Bucket component: a private Spaces bucket and a key that gives access to nothing else."""

from dataclasses import dataclass

import pulumi
import pulumi_digitalocean as do


@dataclass(frozen=True, kw_only=True)
class BucketArgs:
    """Region of the bucket; needs Spaces keys in the provider's environment."""

    region: pulumi.Input[str]
    lose_data: bool = False


class Bucket(pulumi.ComponentResource):
    """Protected bucket with versioning; the key's secret is a secret of the stack."""

    bucket_name: pulumi.Output[str]
    bucket_urn: pulumi.Output[str]
    access_key: pulumi.Output[str]
    secret_key: pulumi.Output[str]

    def __init__(
        self, name: str, args: BucketArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("unetops:infra:Bucket", name, None, opts)
        bucket = do.SpacesBucket(
            name,
            name=name,
            region=args.region,
            acl="private",
            versioning=do.SpacesBucketVersioningArgs(enabled=True),
            force_destroy=args.lose_data,
            opts=pulumi.ResourceOptions(
                parent=self, protect=not args.lose_data, retain_on_delete=not args.lose_data
            ),
        )
        key = do.SpacesKey(
            name,
            name=name,
            grants=[do.SpacesKeyGrantArgs(bucket=bucket.name, permission="readwrite")],
            opts=pulumi.ResourceOptions(parent=self, additional_secret_outputs=["secretKey"]),
        )
        self.bucket_name = bucket.name
        self.bucket_urn = bucket.bucket_urn
        self.access_key = key.access_key
        self.secret_key = pulumi.Output.secret(key.secret_key)
        self.register_outputs({"bucket_name": self.bucket_name})
