#!/bin/sh
# Makes a filesystem on a volume that is blank, and on no other. blkid -p leaves with 2 only for a
# blank device; cloud-init's fs_setup would format the volume again under every new droplet.
set -u
for _ in $(seq 240); do
  [ -b "$1" ] && break
  sleep 0.5
done
blkid -p "$1" >/dev/null
[ $? -ne 2 ] || mkfs.ext4 -q -L unetops "$1"
