#!/usr/bin/env bash
# Opens or closes SSH for this runner in the stack's config; deploys, and runs the checks afterwards.
# Usage: stack.sh open|deploy|close|smoke|drift; STACK is the stack's name.
set -euo pipefail
: "${STACK:?the name of the stack, such as prod}"
export PULUMI_SKIP_UPDATE_CHECK=true
# Process id of a running engine; removed if the engine exits by itself.
mark=${RUNNER_TEMP:-${TMPDIR:-/tmp}}/unetops-$STACK-engine
cd "$(dirname "$0")/../.."

own_address() {
  local address=${RUNNER_ADDRESS:-$(curl -4fsS --retry 3 --max-time 20 https://checkip.amazonaws.com)}
  [[ "$address" =~ ^[0-9]+(\.[0-9]+){3}$ ]] || {
    echo "own address: expected IPv4, found: ${address:0:40}; rerun the job" >&2
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
  # With a preview, in which the policy pack checks the stack before anything is created.
  pulumi up --stack "$STACK" --yes --non-interactive --color never \
    --policy-pack infra/policy "$@" </dev/null &
  local engine=$! status=0
  echo "$engine" >"$mark"
  wait "$engine" || status=$?
  ((status > 128)) || rm -f "$mark"
  return "$status"
}

# After an interrupted job the engine may still run, its lock remains, and a firewall that it just
# created may be missing from the state. A lock without our mark is somebody else's and stays.
recover() {
  local engine
  [[ -f "$mark" ]] || return 0
  engine=$(<"$mark")
  for signal in TERM KILL; do
    [[ "$(ps -o comm= -p "$engine" || true)" == pulumi ]] || break
    kill -s "$signal" "$engine" || true
    for _ in {1..10}; do kill -s 0 "$engine" 2>/dev/null && sleep 1; done
  done
  # 1: done, but something is left for a person to decide.
  .venv/bin/python -m infra.recover --stack "$STACK" --yes || [[ $? == 1 ]] ||
    pulumi cancel --yes "$STACK"
  rm -f "$mark"
}

close() {
  # The committed file has the permanent addresses only, without the one that `open` added.
  git checkout -- "Pulumi.$STACK.yaml"
  recover
  local walls=()
  while read -r urn; do walls+=(--target "$urn"); done < <(
    pulumi stack --stack "$STACK" --show-urns --non-interactive |
      grep -o 'urn:pulumi:.*digitalocean:index/firewall:Firewall::.*' || true
  )
  # Refresh: an interrupted update is in the cloud but not in the state.
  if ((${#walls[@]})); then up --refresh "${walls[@]}"; fi
  unknown_walls
}

# A provider that died may have created a firewall unknown to both state and mark.
unknown_walls() {
  local said status=0
  said=$(.venv/bin/python -m infra.recover --stack "$STACK" </dev/null) || status=$?
  echo "$said"
  if ((status > 1)) || grep -q '^not in the state: firewall' <<<"$said"; then
    echo "::error title=SSH may be open::a firewall of $STACK may admit this runner; see above"
    return 1
  fi
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
  # The host is not trusted here: its certificate is checked against the stack's fingerprint.
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
    *) echo "::error title=Check failed::refresh of $STACK exited with $status: drift unknown" ;;
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
