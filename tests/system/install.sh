#!/usr/bin/env bash
# What the system tests need beside Python: a browser. Says what is missing where it cannot install.
set -euo pipefail
command -v chromium >/dev/null && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "chromium is missing: the browser tests will be skipped (install Debian's chromium)"
    exit 0
fi
echo "== installing chromium"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
