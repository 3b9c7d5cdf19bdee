from collections import Counter
from pathlib import Path

import pytest

from tests.infra.cloud_mocks import made_by
from tests.infra.test_components import KEY

PROGRAM = f"""
from infra import stack
from infra.checks import read_config
from infra.source import Source
values = {{"sshPublicKeys": ['{KEY}'], "sshFrom": ["198.18.0.7/32"], **EXTRA}}
config = read_config(values, "dev", stack.read_file)
stack.build(config, Source(release_id="one", address="https://example.org/unetops.whl"))
"""


@pytest.fixture(scope="module")
def made():
    return made_by(PROGRAM.replace("EXTRA", "{}"))


def test_stack_has_one_droplet_and_one_volume_of_its_name_and_tag(made):
    kinds = Counter(name.split()[0] for name in made)
    assert (kinds["Droplet"], kinds["Volume"], kinds["VolumeAttachment"]) == (1, 1, 1)
    assert made["Droplet unetops-dev"]["name"] == "unetops-dev"
    assert made["Droplet unetops-dev"]["tags"] == ["unetops-dev"]
    assert made["Firewall unetops-dev"]["tags"] == ["unetops-dev"]


def test_volume_is_made_without_a_filesystem(made):
    assert not {key for key in made["Volume unetops-dev"] if "ilesystem" in key}


def test_domain_bucket_and_mail_addresses_add_their_parts():
    extra = '{"domain": "m.example.org", "bucket": True, "alertEmails": ["me@example.org"]}'
    more = made_by(PROGRAM.replace("EXTRA", extra))
    kinds = Counter(name.split()[0] for name in more)
    assert (kinds["DnsRecord"], kinds["SpacesBucket"], kinds["MonitorAlert"]) == (1, 1, 3)
    assert more["UptimeCheck unetops-dev"]["target"] == "https://m.example.org/healthz"


def test_main_is_short():
    assert len(Path("infra/__main__.py").read_text().splitlines()) < 60
