"""Project component: one place in DigitalOcean's console for what belongs together."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_digitalocean as do


@dataclass(frozen=True, kw_only=True)
class ProjectArgs:
    """What is shown there, by its URN at DigitalOcean (do:droplet:...)."""

    resources: Sequence[pulumi.Input[str]]
    environment: str = "Development"
    description: str = "Segmentation service, made by Pulumi"


class Project(pulumi.ComponentResource):
    """A project; what it shows is not deleted with it."""

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
