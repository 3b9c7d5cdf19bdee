#!/usr/bin/env bash
# Previews the dev stack without an account: empty local backend, a token that opens nothing.
# Usage: preview.sh REPORT.md. PROJECT is another project's folder, EXTRA more words for the CLI.
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
# Another passphrase's salt would refuse this one's.
if [[ -f Pulumi.dev.yaml ]]; then grep -v '^encryptionsalt:' Pulumi.dev.yaml >"$config" || true; fi
# The runner has no key of yours: one that lives for this preview stands for it.
ssh-keygen -q -t ed25519 -N '' -C preview -f "$work/key"
pulumi stack init preview --non-interactive --secrets-provider passphrase >/dev/null
pulumi config set --stack preview --config-file "$config" --path 'sshPublicKeys[0]' \
  -- "$(cat "$work/key.pub")"
status=0
pulumi preview --stack preview --config-file "$config" --non-interactive --color never --diff \
  --policy-pack "$root/infra/policy" >"$work/plan" 2>&1 || status=$?
cat "$work/plan"
price=$(grep -m 1 -i 'monthlyPrice' "$work/plan" || echo 'no price in this plan')
{
  if ((status)); then echo "### Preview: refused or failed ($status)"; else echo '### Preview'; fi
  # Indented text is code in Markdown whatever it holds; a comment holds 65 536 characters at most.
  printf '\n    %s\n\nThe plan, made without an account on an empty stack:\n\n' "$price"
  tail -c 60000 "$work/plan" | sed 's/^/    /'
} >"$report"
exit "$status"
