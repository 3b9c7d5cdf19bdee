#!/bin/sh
# Creates a filesystem on a blank volume, and only there; $1 is its device, $2 the number of half
# seconds to wait for it. cloud-init's fs_setup would format it again under every new droplet.
# blkid's exit status for a blank device (2) also means that the device is missing or unreadable, so
# it is queried last, after the device was found and its first MiB read as zeros.
set -u
refuse() {
  echo "volume $1: not formatted: $2" >&2
  exit 0  # an error would end the wait for first boot, which itself reports what is not mounted
}
for _ in $(seq "${2:-240}"); do
  [ -b "$1" ] && break
  sleep 0.5
done
[ -b "$1" ] || refuse "$1" "no block device: is the volume attached?"
[ "$(blkid -p -s TYPE -o value "$1")" != ext4 ] || exit 0
cmp -s -n 1048576 "$1" /dev/zero ||
  refuse "$1" "its first MiB is unreadable or not empty; check with: blkid -p, hexdump -C"
blkid -p "$1" >/dev/null
[ $? -eq 2 ] || refuse "$1" "blkid finds something on it; check with: blkid -p, wipefs"
mkfs.ext4 -q -L unetops "$1" || refuse "$1" "mkfs.ext4 failed"
