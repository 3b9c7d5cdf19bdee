#!/usr/bin/env bash
# What the tests that boot guests need: mmdebstrap, systemd-nspawn and a few small tools. Says what
# is missing where it cannot install.
set -euo pipefail
declare -A package=([mmdebstrap]=mmdebstrap [systemd-nspawn]=systemd-container [ip]=iproute2
    [ssh]=openssh-client [dpkg-scanpackages]=dpkg-dev [mkfs.ext4]=e2fsprogs [losetup]=mount
    [pgrep]=procps [nsenter]=util-linux [openssl]=openssl)
missing=()
for name in "${!package[@]}"; do command -v "$name" >/dev/null || missing+=("${package[$name]}"); done
[ ${#missing[@]} = 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}; the tests that boot guests will be skipped"
    exit 0
fi
echo "== installing ${missing[*]}"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
