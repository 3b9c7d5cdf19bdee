"""The life of a deployment: deployed, used, updated, replaced, destroyed, restored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataset_rules.pixels.images import encode
from tests.cloud.stack import PASSPHRASE, TOKEN
from tests.drawn import draw_discs
from tests.guest.needs import require
from tests.guest.prepared import BASE, prepared
from tests.system.deployment import Deployment, Site, deployment, until
from tests.system.test_boot import Clock
from tests.system.test_service import PAPER, drawn_zip

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@dataclass
class Kept:
    """What must be the same at the end as at the beginning."""

    token: str
    volume_uuid: str
    dataset: str = ""
    model: str = ""
    prediction: str = ""
    mask: bytes = b""
    pictures: int = 0


def test_a_deployment_keeps_its_data_through_releases_new_droplets_and_destroy(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    require()
    clock = Clock(request.config)
    with deployment(tmp_path, is_prepared=True) as one:
        clock.start()
        one.plan("first")
        clock.lap("pulumi preview")
        one.stack.up()
        used = {path.name for path in (one.guest.root / BASE).iterdir()}
        assert used == {path.name for path in (prepared() / BASE).iterdir()}
        clock.lap("pulumi up, from nothing to a service that answers")
        kept = meet(one)
        clock.lap("admin token over SSH")
        with one.site(kept.token) as site:
            use(site, kept)
            clock.lap("rules, images, dataset, training of 30 s, mask")
        release(one, kept, clock)
        replace(one, kept, clock)
        no_drift(one)
        clock.lap("refresh and up: no drift")
        destroy(one, kept)
        clock.lap("pulumi destroy --exclude-protected")
        one.stack.up()
        clock.lap("pulumi up again")
        same(one, kept)
        clock.lap("data and user found again")
        one.keep_texts()
        keeps_secrets(one, kept)


def meet(one: Deployment) -> Kept:
    """The first administrator token is created over SSH, once; until then nothing opens."""
    command = one.stack.outputs()["adminTokenCommand"]
    kept = Kept(one.typed(command), one.status()["volume_uuid"])
    one.typed(command, code=1)
    with one.site("") as site:
        assert site.http.get("/jobs").status_code == 401
    return kept


def use(site: Site, kept: Kept) -> None:
    """Upload rules and images, train a model, predict a mask."""
    rules = site.post("/rules", json=PAPER)["id"]
    source = site.post("/sources", files={"file": ("set.zip", drawn_zip())})["id"]
    made = site.post("/datasets", json={"source": source, "rules": rules})
    kept.dataset = site.finished(made["job"])["result"]["id"]
    job = train(site, kept, seconds=30)
    site.finished(job)
    kept.model = site.get(f"/runs/{job}")["model"]
    kept.prediction = predict(site, kept)
    kept.mask = stored(site, kept.prediction)


def train(site: Site, kept: Kept, *, seconds: int, seed: int = 0) -> str:
    body = {"dataset": kept.dataset, "time_limit_s": seconds, "seed": seed}
    return str(site.post("/runs", json=body)["job"])


def predict(site: Site, kept: Kept) -> str:
    """The model finds discs in a new image that has a known mask."""
    kept.pictures += 1
    image, truth = draw_discs(np.random.default_rng(1000 + kept.pictures))
    files = {"image": ("field.png", encode(image, ".png"))}
    made = site.post("/predictions", files=files, data={"model": kept.model})
    link = str(made["links"]["mask"])
    pixels = cv2.imdecode(np.frombuffer(stored(site, link), np.uint8), cv2.IMREAD_UNCHANGED)
    common = np.count_nonzero((pixels > 0) & (truth > 0))
    assert common / np.count_nonzero((pixels > 0) | (truth > 0)) > 0.5
    return link


def stored(site: Site, link: str) -> bytes:
    answer = site.http.get(link.removeprefix("/api/v1"))
    assert answer.status_code == 200, answer.text
    return answer.content


def release(one: Deployment, kept: Kept, clock: Clock) -> None:
    """A new commit is released to the existing droplet while a training is running."""
    droplet, first = one.droplet, one.stack.outputs()["release"]
    commit = one.commit("README.md", "\nA further line.\n")
    with one.site(kept.token) as site:
        job = train(site, kept, seconds=40, seed=1)
        until(lambda: any(e["event"] == "plan" for e in site.events(job)), 60)
        one.plan("release")
        clock.start()
        one.stack.up()
        clock.lap("pulumi up with a new release")
        assert one.stack.outputs()["release"] == commit[:12] != first
        assert one.droplet == droplet
        site.finished(job)
        began = [e["data"]["release"] for e in site.events(job) if e["event"] == "started"]
        assert began == [first, commit[:12]]
    same(one, kept)
    assert one.status()["previous"] == first
    clock.lap("the training goes on and ends under the new release")


def replace(one: Deployment, kept: Kept, clock: Clock) -> None:
    """A new bootstrap replaces the droplet; volume and address stay."""
    droplet, address = one.droplet, one.stack.outputs()["address"]
    one.keep_texts()
    one.stack.config("bootstrap", "2")
    one.stack.up()
    clock.lap("pulumi up with a new bootstrap")
    assert one.droplet != droplet
    assert one.stack.outputs()["address"] == address
    same(one, kept)
    clock.lap("data and user found on the new droplet")


def same(one: Deployment, kept: Kept) -> None:
    """The volume is the same, and so are the user, the dataset and the model."""
    assert one.status()["volume_uuid"] == kept.volume_uuid
    with one.site(kept.token) as site:
        assert site.get(f"/datasets/{kept.dataset}")["id"] == kept.dataset
        assert stored(site, kept.prediction) == kept.mask
        predict(site, kept)


def no_drift(one: Deployment) -> None:
    one.stack.refresh("--expect-no-changes")
    one.stack.up("--expect-no-changes")


def destroy(one: Deployment, kept: Kept) -> None:
    """Everything but the volume is destroyed."""
    one.keep_texts()
    one.stack.destroy("--exclude-protected")
    left = {kind for kind, objects in one.stack.cloud.objects.items() if objects}
    assert left == {"Volume"}
    (disk,) = one.machines.disks.values()
    assert disk.uuid() == kept.volume_uuid


def keeps_secrets(one: Deployment, kept: Kept) -> None:
    """A search for their values finds secrets only where they belong."""
    texts = {**one.texts, "state": one.stack.state_text(), "said": one.stack.said}
    assert all("unetops" in text for text in texts.values())
    private = one.key.read_text().splitlines()
    secrets = {"admin token": kept.token, "passphrase": PASSPHRASE, "cloud token": TOKEN}
    secrets |= {f"line {n} of the private key": line for n, line in enumerate(private[1:-1])}
    found = [f"{s} in {t}" for s, value in secrets.items() for t, x in texts.items() if value in x]
    assert found == []
