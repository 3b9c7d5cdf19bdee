#!/usr/bin/env python3
"""Smoke test of a deployed service: `smoke.py URL [SHA256 AUTHORITY.pem]`.

Posts nothing and needs no secret. With a fingerprint, only certificates of that authority are
accepted; without one, the certificate must be publicly valid.
"""

import hashlib
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

PAGES = {"/healthz": (200,), "/readyz": (200,), "/": (200, 303, 401, 403)}
TRIES, PAUSE = 10, 6


def context(fingerprint: str, authority: str) -> ssl.SSLContext:
    """Trust the public authorities, or only the one with this fingerprint."""
    if not fingerprint:
        return ssl.create_default_context()
    pem = Path(authority).read_text()
    wanted = fingerprint.replace(":", "").strip().lower()
    found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    if found != wanted:
        raise SystemExit(f"authority: expected SHA-256 {wanted}, found {found}; do not log in")
    return ssl.create_default_context(cadata=pem)


def status(url: str, trust: ssl.SSLContext) -> int:
    """HTTP status of a page."""
    try:
        with urllib.request.urlopen(url, timeout=20, context=trust) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def check(url: str, trust: ssl.SSLContext) -> None:
    """Raise SystemExit for the first page with an unexpected status."""
    if not url.startswith("https:"):
        raise SystemExit(f"{url}: expected an https address")
    for page, good in PAGES.items():
        found = status(url.rstrip("/") + page, trust)
        if found not in good:
            raise SystemExit(
                f"{page}: expected HTTP {good}, found {found}; see `unetops-host status`"
            )
        print(f"{page}: {found}")  # noqa: T201


def main(url: str, fingerprint: str = "", authority: str = "") -> None:
    """Retry until the service answers, as a release restarts it."""
    trust = context(fingerprint, authority)
    for left in reversed(range(TRIES)):
        try:
            return check(url, trust)
        except OSError as error:
            if not left:
                raise SystemExit(f"{url}: no answer in {TRIES} tries: {error}") from error
            time.sleep(PAUSE)
    return None


if __name__ == "__main__":
    main(*sys.argv[1:4])
