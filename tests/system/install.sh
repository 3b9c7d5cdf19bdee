#!/usr/bin/env bash
# What the system tests need beside Python: a browser, curl and jq. Says what is missing where it
# cannot install.
set -euo pipefail
missing=()
for name in chromium curl jq; do command -v "$name" >/dev/null || missing+=("$name"); done
[ ${#missing[@]} = 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}; the tests that need them will be skipped"
    exit 0
fi
echo "== installing ${missing[*]}"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
