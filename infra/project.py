"""Project component: groups the stack's resources in DigitalOcean's console."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_digitalocean as do


@dataclass(frozen=True, kw_only=True)
class ProjectArgs:
    """Resources to show, by their DigitalOcean URN (do:droplet:...)."""

    resources: Sequence[pulumi.Input[str]]
    environment: str = "Development"
    description: str = "Segmentation service, managed by Pulumi"


class Project(pulumi.ComponentResource):
    """A project; deleting it does not delete its resources."""

    project_id: pulumi.Output[str]

    def __init__(
        self, name: str, args: ProjectArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("unetops:infra:Project", name, None, opts)
        project = do.Project(
            name,
            name=name,
            description=args.description,
            environment=args.environment,
            purpose="Machine Learning",
            resources=list(args.resources),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.project_id = project.id
        self.register_outputs({"project_id": self.project_id})
