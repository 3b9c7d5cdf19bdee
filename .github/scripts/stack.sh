#!/usr/bin/env bash
# Opens or closes SSH for this runner in the stack's config, and runs what follows the deployment.
# Usage: stack.sh open|deploy|close|smoke|drift; STACK names the stack.
set -euo pipefail
: "${STACK:?the name of the stack, such as prod}"
export PULUMI_SKIP_UPDATE_CHECK=true
cd "$(dirname "$0")/../.."

own_address() {
  local address=${RUNNER_ADDRESS:-$(curl -4fsS --retry 3 --max-time 20 https://checkip.amazonaws.com)}
  [[ "$address" =~ ^[0-9]+(\.[0-9]+){3}$ ]] || {
    echo "own address: expected IPv4, found: ${address:0:40}; try the job again" >&2
    return 1
  }
  echo "$address/32"
}

open() {
  local index address
  address=$(own_address)
  index=$({ pulumi config get --stack "$STACK" sshFrom 2>/dev/null || true; } |
    python3 -c 'import json, sys; print(len(json.loads(sys.stdin.read() or "[]")))')
  pulumi config set --stack "$STACK" --path "sshFrom[$index]" -- "$address"
}

up() {
  pulumi up --stack "$STACK" --yes --skip-preview --non-interactive --color never \
    --policy-pack infra/policy "$@"
}

close() {
  # The file as committed knows the lasting addresses only: what `open` added is gone from it.
  # A job cut off in the middle leaves a lock and pending marks; both would stop this step.
  git checkout -- "Pulumi.$STACK.yaml"
  pulumi cancel --stack "$STACK" --yes --non-interactive || true
  local walls=()
  while read -r urn; do walls+=(--target "$urn"); done < <(
    pulumi stack --stack "$STACK" --show-urns --non-interactive |
      grep -o 'urn:pulumi:.*digitalocean:index/firewall:Firewall::.*' || true
  )
  if ((${#walls[@]})); then up "${walls[@]}"; fi
}

smoke() {
  local url finger authority
  url=$(pulumi stack output --stack "$STACK" url)
  finger=$(pulumi stack output --stack "$STACK" certificateFingerprint 2>/dev/null || true)
  if [[ -z "$finger" ]]; then
    python3 .github/scripts/smoke.py "$url"
    return
  fi
  authority=$(mktemp)
  # Whoever answers here is not trusted: the stack's fingerprint judges what is sent.
  ssh -o BatchMode=yes -o ConnectTimeout=20 -o StrictHostKeyChecking=no \
    -o UserKnownHostsFile=/dev/null "root@$(pulumi stack output --stack "$STACK" address)" \
    cat /var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt >"$authority"
  python3 .github/scripts/smoke.py "$url" "$finger" "$authority"
}

drift() {
  local status=0
  pulumi refresh --stack "$STACK" --preview-only --expect-no-changes --non-interactive \
    --color never --diff || status=$?
  case $status in
    0) echo "no drift" ;;
    7) echo "::error title=Drift::the cloud differs from the stack $STACK; the plan is above" ;;
    *) echo "::error title=Check failed::refresh of $STACK ended with $status: drift unknown" ;;
  esac
  return "$status"
}

case ${1:-} in
  open | close | smoke | drift) "$1" ;;
  deploy) up ;;
  *)
    echo "stack.sh: expected open, deploy, close, smoke or drift, found: ${1:-nothing}" >&2
    exit 2
    ;;
esac
