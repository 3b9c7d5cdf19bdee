"""The whole service as users run it: `unetops serve`, killed and restarted, used over HTTP."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from dataset_rules.artifacts.manifest import RECORD_KEY
from dataset_rules.artifacts.seal import altered_files
from dataset_rules.pixels.images import encode
from dataset_rules.pixels.png import png_text
from tests.drawn import draw_discs

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

PAPER = {
    "_token": "abc", "height": "64", "width": "64", "image_type": "2", "color_model": "1",
    "separate_file_format": "on", "description": "_mask",
}  # fmt: skip
TIME_LIMIT_S = 30


class Service:
    """A running `unetops serve` and a client of it."""

    def __init__(self, process: subprocess.Popen, port: int, home: Path) -> None:
        self.process = process
        self.home = home
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}/api/v1", timeout=120, trust_env=False
        )

    def post(self, path: str, **body) -> dict:
        answer = self.http.post(path, **body)
        assert answer.is_success, answer.text
        return answer.json()

    def job(self, job: str) -> dict:
        return self.http.get(f"/jobs/{job}").json()

    def finished(self, job: str, seconds: float = 200) -> dict:
        wait_for(lambda: self.job(job)["status"] not in {"queued", "running"}, seconds)
        view = self.job(job)
        assert view["status"] == "succeeded", view["error"]
        return view

    def events(self, job: str) -> list[dict]:
        return self.http.get(f"/jobs/{job}/events").json()["events"]


@contextmanager
def serving(home: Path):
    port = free_port()
    with (home.parent / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--data", str(home)],
            stdout=log, stderr=log,
        )  # fmt: skip
    service = Service(process, port, home)
    try:
        wait_for(lambda: is_ready(port), 90)
        yield service
    finally:
        service.http.close()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(40)


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).is_success
    except httpx.TransportError:
        return False


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(condition, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"did not happen in {seconds} s"
        time.sleep(0.2)


def processes_with(mark: str) -> dict[int, str]:
    """Process id -> module, of every running process with this in its environment."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if alive and mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().decode().split("\0")[2]
        except (OSError, IndexError):
            continue
    return found


def process_id(home: Path, module: str) -> int:
    return next(p for p, m in processes_with(f"UNETOPS_HOME={home}").items() if m == module)


def drawn_zip(count: int = 10) -> bytes:
    rng = np.random.default_rng(0)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for index in range(count):
            image, instances = draw_discs(rng)
            mask = (instances > 0).astype(np.uint8) * 255
            archive.writestr(f"set/images/case{index:03}.png", encode(image, ".png"))
            archive.writestr(f"set/masks/case{index:03}.png", encode(mask, ".png"))
    return data.getvalue()


def make_dataset(service: Service) -> str:
    rules = service.post("/rules", json=PAPER)["id"]
    source = service.post("/sources", files={"file": ("set.zip", drawn_zip())})["id"]
    job = service.post("/datasets", json={"source": source, "rules": rules})["job"]
    return service.finished(job)["result"]["id"]


def start_run(service: Service, dataset: str, *, seed: int = 0, limit_s: int = TIME_LIMIT_S) -> str:
    body = {"dataset": dataset, "time_limit_s": limit_s, "seed": seed}
    return service.post("/runs", json=body)["job"]


def wait_for_checkpoint(home: Path, job: str) -> None:
    wait_for(lambda: (home / "work" / job / "last.safetensors").exists(), 150)


def test_a_run_survives_killed_worker_and_service(tmp_path):
    home = tmp_path / "home"
    with serving(home) as service:
        dataset = make_dataset(service)
        job = start_run(service, dataset)
        wait_for_checkpoint(home, job)
        os.kill(process_id(home, "app.jobs.worker"), signal.SIGKILL)
        wait_for(lambda: plans(service, job) == 2, 60)
        assert len(steps_of(job)) == 1, "never two writers"
        os.kill(service.process.pid, signal.SIGKILL)
        wait_for(lambda: not processes_with(f"UNETOPS_HOME={home}"), 10)
        assert not steps_of(job)
    with serving(home) as service:
        run = service.finished(job)["result"]["id"]
        first_steps = [e["data"]["step"] for e in service.events(job) if e["event"] == "plan"]
        assert len(first_steps) == 3, "started, and resumed after each kill"
        assert first_steps[0] == 0
        assert all(step > 0 for step in first_steps[1:]), "resumed from a checkpoint"
        assert altered_files(home / "artifacts" / run) == []
        assert start_run(service, dataset) == job, "the same request is the same job"
        check_predictions(service, home, run)
        os.kill(process_id(home, "app.web.main"), signal.SIGKILL)
        os.kill(process_id(home, "app.serving.predictor_process"), signal.SIGKILL)
        wait_for(lambda: is_ready(service.http.base_url.port), 60)
        check_predictions(service, home, run)
    assert service.process.returncode == 0, "Ctrl-C stops it cleanly"
    assert processes_with(f"UNETOPS_HOME={home}") == {}


def plans(service: Service, job: str) -> int:
    return [event["event"] for event in service.events(job)].count("plan")


def steps_of(job: str) -> list[int]:
    found = processes_with(f"UNETOPS_JOB={job}")
    return [process for process, module in found.items() if module == "app.jobs.steps"]


def check_predictions(service: Service, home: Path, run: str) -> None:
    image, _ = draw_discs(np.random.default_rng(9), size=90)
    files = {"image": ("field.png", encode(image[:, :70], ".png"))}
    answer = service.http.post("/predictions", files=files, headers={"accept": "image/png"})
    assert answer.status_code == 201, answer.text
    mask = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (90, 70)
    made = service.post("/predictions", files=files, data={"model": run})
    assert answer.headers["location"] == made["links"]["self"]
    shown = service.http.get(made["links"]["self"].removeprefix("/api/v1")).json()
    assert png_text(answer.content, RECORD_KEY) == shown["record"]
    assert sum(made["class_share"].values()) == pytest.approx(1, abs=1e-4)
    for part in ("mask", "instances", "image", "overlay"):
        link = made["links"][part].removeprefix("/api/v1")
        picture = cv2.imdecode(
            np.frombuffer(service.http.get(link).content, np.uint8), cv2.IMREAD_UNCHANGED
        )
        assert picture.shape[:2] == (90, 70)
    check_lineage(service, home, made["id"])


def check_lineage(service: Service, home: Path, prediction: str) -> None:
    chain = service.http.get(f"/lineage/{prediction}").json()
    assert chain["whole"], chain
    kinds = [link["kind"] for link in chain["links"]]
    order = ["mask", "prediction", "model", "run", "dataset", "rules", "commit"]
    assert [kind for kind in kinds if kind in order] == order
    weights = next((home / "artifacts").glob("*/model/*.safetensors"))
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    broken = service.http.get(f"/lineage/{prediction}").json()
    assert not broken["whole"]
    assert [link["kind"] for link in broken["links"] if link["state"] == "broken"] == ["model"]
    weights.write_bytes(kept)


RELEASE = {"UNETOPS_STACK": "test", "UNETOPS_DROPLET": "one"}


@contextmanager
def deployed(home: Path, release: str, **more: str):
    """Web process and worker of a release, as run by their two systemd units."""
    environment = {**os.environ, **RELEASE, **more, "UNETOPS_COMMIT": release}
    environment["UNETOPS_ALLOW_OPEN"] = "1"  # the tests use no proxy
    port = free_port()
    with (home.parent / "deployed.log").open("ab") as log:
        web, worker = (
            subprocess.Popen(
                [sys.executable, "-m", "app.cli", *words, "--data", str(home)],
                stdout=log, stderr=log, env=environment,
            )
            for words in (["web", "--port", str(port)], ["worker"])
        )  # fmt: skip
    service = Service(worker, port, home)
    try:
        wait_for(lambda: is_ready(port), 90)
        yield service
    finally:
        service.http.close()
        for process in (worker, web):
            if process.poll() is None:
                process.terminate()
            process.wait(40)


def newer_package(folder: Path) -> str:
    """A folder for PYTHONPATH that gives this code a later version."""
    info = folder / "unetops-99.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unetops\nVersion: 99.0\n")
    return str(folder)


def test_a_training_survives_a_release_with_a_migration_and_a_backup(tmp_path):
    home = tmp_path / "home"
    with deployed(home, "release-a") as service:
        dataset = make_dataset(service)
        job = start_run(service, dataset, limit_s=60)
        wait_for_checkpoint(home, job)
        service.process.terminate()
        assert service.process.wait(30) == 0
        assert not steps_of(job)
        assert service.job(job)["status"] == "running", "neither failed nor cancelled"
        answer = httpx.get(f"{service.http.base_url.copy_with(path='/readyz')}", trust_env=False)
        assert (answer.status_code, answer.json()["worker"]) == (503, False)
    backup = subprocess.run(
        [sys.executable, "-m", "app.cli", "migrate", "--backup", str(tmp_path / "backups"),
         "--data", str(home)],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout.strip()  # fmt: skip
    assert Path(backup).stat().st_size > 0
    path = os.pathsep.join([newer_package(tmp_path / "newer"), str(Path(__file__).parents[2])])
    with deployed(home, "release-b", PYTHONPATH=path, PYTHONSAFEPATH="1") as service:
        run = service.finished(job)["result"]["id"]
        events = service.events(job)
        assert start_run(service, dataset, limit_s=60) == job, "the step versions are unchanged"
    first_steps = [event["data"]["step"] for event in events if event["event"] == "plan"]
    assert len(first_steps) == 2
    assert first_steps[0] == 0 < first_steps[1], "resumed from the checkpoint of the drain"
    releases = [event["data"]["release"] for event in events if event["event"] == "started"]
    assert releases == ["release-a", "release-b"]
    made = json.loads((home / "artifacts" / run / "provenance.json").read_text())
    assert (made["commit"], made["unetops"]) == ("release-b", "99.0")
    assert made["deployment"] == {"stack": "test", "droplet": "one"}
    assert altered_files(home / "artifacts" / run) == []


def test_cancel_stops_a_training(tmp_path):
    home = tmp_path / "home"
    with serving(home) as service:
        job = start_run(service, make_dataset(service))
        wait_for(lambda: steps_of(job), 30)
        assert service.post(f"/jobs/{job}/cancel")["status"] == "cancelled"
        wait_for(lambda: not steps_of(job), 15)
        run = service.http.get(f"/runs/{job}").json()
        assert (run["status"], run["model"]) == ("cancelled", None)
        assert service.http.get("/models").json() == []


def test_promotion_moves_production(tmp_path):
    home = tmp_path / "home"
    with serving(home) as service:
        dataset = make_dataset(service)
        first, second = (
            service.finished(start_run(service, dataset, seed=seed, limit_s=5))["id"]
            for seed in (1, 2)
        )
        models = [service.http.get(f"/runs/{job}").json()["model"] for job in (first, second)]
        assert models[0] != models[1]
        assert service.http.get("/models/production").json()["id"] == models[0]
        moved = service.post(f"/models/{models[1]}/promote")
        assert moved == {"alias": "production", "model": models[1]}
        image, _ = draw_discs(np.random.default_rng(9))
        files = {"image": ("field.png", encode(image, ".png"))}
        assert service.post("/predictions", files=files)["model"] == models[1]


def test_serve_refuses_a_used_port_and_open_access(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        found = refusal("--port", str(taken), "--data", str(tmp_path / "a"))
    assert str(taken) in found
    found = refusal("--host", "0.0.0.0", "--data", str(tmp_path / "b"))
    assert "unetops token create --role admin" in found


def refusal(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "serve", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    return " ".join((done.stdout + done.stderr).split())


def test_a_token_from_the_command_line_is_accepted(tmp_path):
    home = tmp_path / "home"
    made = subprocess.run(
        [sys.executable, "-m", "app.cli", "token", "create", "--role", "admin", "--data",
         str(home), "--json"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    token = json.loads(made.stdout)["token"]
    with serving_closed(home) as port:
        address = f"http://127.0.0.1:{port}/api/v1/jobs"
        assert httpx.get(address, trust_env=False).status_code == 401
        headers = {"authorization": f"Bearer {token}"}
        assert httpx.get(address, headers=headers, trust_env=False).json() == []


@contextmanager
def serving_closed(home: Path):
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--data", str(home)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).is_success
        except httpx.TransportError:
            return False

    try:
        wait_for(answers, 60)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)
