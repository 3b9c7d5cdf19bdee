"""The smoke test of the deploy job against the real service behind TLS, as with Caddy."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.cloud.stack import ROOT, stack
from tests.system.test_service import free_port, serving

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
SMOKE = ROOT / ".github/scripts/smoke.py"
PROGRAM = """
import pulumi
for name in ("url", "address", "certificateFingerprint"):
    pulumi.export(name, pulumi.Config().get(name))
"""
REQUEST = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=tests"]


class Authority:
    """An authority that no browser knows, and a server's certificate that it signed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.root, self.leaf, self.key = (folder / f"{n}.pem" for n in ("root", "leaf", "key"))
        signer, wanted = folder / "signer.pem", folder / "wanted.pem"
        self._openssl("req", "-x509", *REQUEST, "-keyout", signer, "-out", self.root)
        self._openssl("req", *REQUEST, "-keyout", self.key, "-out", wanted,
                      "-addext", "subjectAltName=IP:127.0.0.1")  # fmt: skip
        self._openssl("x509", "-req", "-in", wanted, "-CA", self.root, "-CAkey", signer,
                      "-copy_extensions", "copy", "-out", self.leaf)  # fmt: skip

    @staticmethod
    def _openssl(*words: str | Path) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True)

    @property
    def fingerprint(self) -> str:
        """In the format of the stack's output."""
        der = ssl.PEM_cert_to_DER_cert(self.root.read_text())
        digest = hashlib.sha256(der).hexdigest().upper()
        return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


@contextmanager
def https(authority: Authority, behind: httpx.URL | None) -> Iterator[str]:
    """TLS in front of a service; without a service every response is 502, as from Caddy."""

    class Relay(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = 502, b""
            if behind:
                got = httpx.get(behind.join(self.path), trust_env=False)
                status, body = got.status_code, got.content
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Relay) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.leaf, authority.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.URL]:
    with serving(tmp_path_factory.mktemp("service") / "home") as made:
        yield made.http.base_url


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def smoke(*words: str | Path, tries: int = 1) -> subprocess.CompletedProcess[str]:
    """Run the script, with fewer tries than a release needs."""
    less = f"import runpy, sys; sys.argv[1:] = {[str(w) for w in words]!r}\n"
    less += f"s = runpy.run_path({str(SMOKE)!r}); s['main'].__globals__['TRIES'] = {tries}\n"
    less += "s['main'](*sys.argv[1:4])"
    return subprocess.run([sys.executable, "-c", less], capture_output=True, text=True)


def test_a_live_service_passes_under_the_authority_that_the_stack_names(
    authority: Authority, service: httpx.URL, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    with https(authority, service) as url:
        done = subprocess.run(
            [sys.executable, SMOKE, url, authority.fingerprint, authority.root],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "/healthz: 200\n/readyz: 200\n" in done.stdout
        refused = smoke(url, authority.fingerprint, other.root)
        assert refused.returncode == 1
        assert "do not log in" in refused.stderr
        for words in [(url,), (url, other.fingerprint, other.root)]:
            untrusted = smoke(*words)
            assert untrusted.returncode == 1
            assert "CERTIFICATE_VERIFY_FAILED" in untrusted.stderr


def test_a_dead_service_behind_a_live_proxy_fails(authority: Authority) -> None:
    with https(authority, None) as url:
        done = smoke(url, authority.fingerprint, authority.root)
    assert done.returncode == 1
    assert "/healthz: expected HTTP (200,), found 502" in done.stderr


def test_no_answer_and_no_https_are_failures() -> None:
    assert "no answer in 1 tries" in smoke(f"https://127.0.0.1:{free_port()}").stderr
    assert "expected an https address" in smoke("http://127.0.0.1").stderr


def test_the_deploy_job_fetches_the_authority_and_judges_it_by_the_stacks_fingerprint(
    authority: Authority, service: httpx.URL, tmp_path: Path
) -> None:
    """`ssh` is a stub: the certificate it fetches is not trusted, and need not be."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/ssh"
    fake.write_text(
        f'#!/bin/sh\ncase "$*" in *"root@127.0.0.1 cat "*) cat {authority.root};; esac\n'
    )
    fake.chmod(0o755)
    with stack() as one, https(authority, service) as url:
        (one.project / "infra/__main__.py").write_text(PROGRAM)
        words = [one.project / ".github/scripts/stack.sh", "smoke"]
        env = {**one.env, "STACK": one.name, "PATH": f"{fake.parent}:{one.env['PATH']}"}
        for fingerprint, code in ((authority.fingerprint, 0), ("00:11", 1)):
            values = {"url": url, "address": "127.0.0.1", "certificateFingerprint": fingerprint}
            for name, value in values.items():
                one.config(name, value)
            one.up()
            done = subprocess.run(words, env=env, capture_output=True, text=True)
            assert done.returncode == code, done.stdout + done.stderr
            assert ("/readyz: 200" in done.stdout) == (code == 0)
