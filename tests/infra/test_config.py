import base64

import pytest

from infra.checks import read_config
from infra.config import KEYS, ConfigError

KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519" + b"k" * 36).decode() + " me"
GOOD = {"sshPublicKeys": [KEY], "sshFrom": ["198.18.0.7/32"]}


def nothing(path):
    raise FileNotFoundError(2, "No such file or directory", path)


def mistakes(**values):
    with pytest.raises(ConfigError) as caught:
        read_config({**GOOD, **values}, "dev", nothing)
    return "\n".join(caught.value.mistakes)


def test_defaults_with_a_key_and_an_address_are_enough():
    config = read_config(GOOD, "dev", nothing)
    assert (config.name, config.region, config.volume_gib) == ("unetops-dev", "nyc3", 100)
    assert config.public_keys == (KEY,)


def test_texts_as_pulumi_keeps_them_are_read_by_type():
    texts = {"sshPublicKeys": f'["{KEY}"]', "sshFrom": '["198.18.0.7/32"]', "volumeGib": "7"}
    config = read_config({**texts, "bucket": "true", "prices": '{"a": 2}'}, "dev", nothing)
    assert (config.volume_gib, config.bucket, config.prices) == (7, True, {"a": 2.0})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"region": "moon1"}, "region: moon1 is unknown; use one of nyc1"),
        ({"region": "nyc1", "bucket": "true"}, "nyc1 has no Spaces; set bucketRegion"),
        ({"image": "ubuntu-20-04-x64"}, "retired; use ubuntu-24-04-x64"),
        ({"size": "gpu-h100x1-80gb", "region": "tor1"}, "no GPU driver"),
        ({"image": "gpu-h100x1-base"}, "has no GPU for image"),
        ({"sshPublicKeys": ["~/none.pub"]}, "file ~/none.pub cannot be read"),
        ({"sshPublicKeys": ["ssh-ed25519 %%%"]}, "number 1 is not a public key"),
        ({"deployKeyFile": "none"}, "or remove deployKeyFile"),
        ({"sshFrom": ["198.18.0.7/33"]}, "is not a CIDR"),
        ({"sshFrom": ["0.0.0.0/0"]}, "opens port 22 to everybody"),
        ({"size": "s-1vcpu-1gb"}, "1024 MiB of memory, torch needs at least 2048"),
        ({"sizze": "x"}, "did you mean size?"),
        ({"loseData": "prod"}, "write dev to delete its data"),
        ({"volumeGib": "many"}, "volumeGib: expected a number (int), found 'many'"),
        ({"source": "git+https://example.org/x@main"}, "40 hex digits"),
        ({"acmeDirectory": "https://example.org"}, "set domain or remove it"),
    ],
)
def test_mistake_is_named_with_its_remedy(values, said):
    assert said in mistakes(**values)


def test_all_mistakes_come_at_once():
    said = mistakes(region="moon1", image="ubuntu-20-04-x64", sshFrom=["x"], nope="1")
    assert [line.split(":")[0] for line in said.splitlines()] == [
        "nope",
        "region",
        "image",
        "sshFrom",
    ]


def test_volume_does_not_shrink():
    values = {**GOOD, "volumeGib": 50}
    with pytest.raises(ConfigError, match="less than the 80 that the volume has"):
        read_config(values, "dev", nothing, volume_gib_now=lambda name, region: 80)
    assert read_config(values, "dev", nothing, volume_gib_now=lambda n, r: 50).volume_gib == 50


def test_user_data_over_64_kib_is_refused():
    with pytest.raises(ConfigError, match="65537 bytes, the limit is 65536"):
        read_config(GOOD, "dev", nothing, render=lambda config: "x" * 65537)
    assert read_config(GOOD, "dev", nothing, render=lambda config: "x" * 65536)


def test_lose_data_of_the_own_name_is_taken():
    assert read_config({**GOOD, "loseData": "dev"}, "dev", nothing).loses_data


def test_private_key_does_not_show_in_the_object_s_text():
    config = read_config({**GOOD, "deployKeyFile": "k"}, "dev", lambda path: "SECRET")
    assert config.deploy_key == "SECRET"
    assert "SECRET" not in repr(config)


def test_pulumi_yaml_declares_every_key():
    from pathlib import Path

    import yaml

    assert set(yaml.safe_load(Path("Pulumi.yaml").read_text())["config"]) == set(KEYS)
