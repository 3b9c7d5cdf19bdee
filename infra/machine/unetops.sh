#!/bin/sh
# Runs the current release, always as the service's user: root would leave files that the service
# cannot write.
set -eu
if [ "$(id -u)" -eq 0 ]; then
  exec setpriv --reuid=unetops --regid=unetops --init-groups -- "$0" "$@"
fi
set -a
. /etc/unetops/environment
set +a
release=$(readlink -f /opt/unetops/current)
exec "$release/run" "$@"
