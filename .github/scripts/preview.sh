#!/usr/bin/env bash
# Previews the dev stack without an account: empty local backend, a dummy token.
# Usage: preview.sh REPORT.md. PROJECT: folder of another project.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
report=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work" "${PROJECT:-$root}/Pulumi.preview.yaml"' EXIT
mkdir "$work/backend"
export PULUMI_BACKEND_URL="file://$work/backend?metadata=skip"
export PULUMI_CONFIG_PASSPHRASE=offline-preview DIGITALOCEAN_TOKEN=offline-preview
export PULUMI_SKIP_UPDATE_CHECK=true
cd "${PROJECT:-$root}"
config=$work/Pulumi.dev.yaml
# The committed salt belongs to another passphrase.
if [[ -f Pulumi.dev.yaml ]]; then grep -v '^encryptionsalt:' Pulumi.dev.yaml >"$config" || true; fi
# The runner does not have your keys: use a temporary one.
ssh-keygen -q -t ed25519 -N '' -C preview -f "$work/key"
pulumi stack init preview --non-interactive --secrets-provider passphrase >/dev/null
pulumi config set --stack preview --config-file "$config" --path 'sshPublicKeys[0]' \
  -- "$(cat "$work/key.pub")"
pulumi config set --stack preview --config-file "$config" deployKeyFile -- "$work/key"
status=0
pulumi preview --stack preview --config-file "$config" --non-interactive --color never --diff \
  --policy-pack "$root/infra/policy" >"$work/plan" 2>&1 || status=$?
cat "$work/plan"
python3 "$root/.github/scripts/report.py" "$status" <"$work/plan" >"$report"
exit "$status"
