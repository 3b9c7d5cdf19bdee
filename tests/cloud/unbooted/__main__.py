"""All components of the project except the release."""

import pulumi

from infra import stack
from infra.checks import read_config
from infra.source import Source
from infra.volume import find_volume

values = pulumi.runtime.config.CONFIG.get().items()
config = read_config(
    {key.removeprefix("unetops:"): value for key, value in values}, "dev", stack.read_file
)
stack._release = lambda *_, **__: None
source = Source(release_id="one", address="https://example.org/unetops-1-py3-none-any.whl")
stack.build(config, source, find_volume(config.name, config.region))
