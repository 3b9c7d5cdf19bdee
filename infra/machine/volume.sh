#!/bin/sh
# Makes a filesystem on a volume that is blank, and on no other; $1 is its device, $2 for how many
# half seconds it is waited for. cloud-init's fs_setup would format it again under every new droplet.
# blkid's answer for a blank device (2) is the same for one that is not there or cannot be read, so
# it is asked last, of a device that is there and whose beginning was read as zeros.
set -u
refuse() {
  echo "volume $1: not formatted: $2" >&2
  exit 0  # an error here would end the wait for first boot, which says itself what is not mounted
}
for _ in $(seq "${2:-240}"); do
  [ -b "$1" ] && break
  sleep 0.5
done
[ -b "$1" ] || refuse "$1" "no block device: is the volume attached?"
[ "$(blkid -p -s TYPE -o value "$1")" != ext4 ] || exit 0
cmp -s -n 1048576 "$1" /dev/zero ||
  refuse "$1" "its first MiB cannot be read, or holds something; look with: blkid -p, hexdump -C"
blkid -p "$1" >/dev/null
[ $? -eq 2 ] || refuse "$1" "blkid finds something on it; look with: blkid -p, wipefs"
mkfs.ext4 -q -L unetops "$1" || refuse "$1" "mkfs.ext4 failed"
