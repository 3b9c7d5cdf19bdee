#!/usr/bin/env bash
# Opens or closes SSH for this runner in the stack's config, and runs what follows the deployment.
# Usage: stack.sh open|deploy|close|smoke|drift; STACK names the stack.
set -euo pipefail
: "${STACK:?the name of the stack, such as prod}"
export PULUMI_SKIP_UPDATE_CHECK=true
# Names the engine that runs; one that ended by itself takes it away.
mark=${RUNNER_TEMP:-${TMPDIR:-/tmp}}/unetops-$STACK-engine
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
  # With its preview: there the policy pack judges the whole before anything is made.
  pulumi up --stack "$STACK" --yes --non-interactive --color never \
    --policy-pack infra/policy "$@" </dev/null &
  local engine=$! status=0
  echo "$engine" >"$mark"
  wait "$engine" || status=$?
  ((status > 128)) || rm -f "$mark"
  return "$status"
}

# After a job that was cut off: the engine may still run, its lock stays, and the state may not know
# the firewall that it just made. A lock without a mark of ours is somebody else's and stays.
recover() {
  local engine
  [[ -f "$mark" ]] || return 0
  engine=$(<"$mark")
  for signal in TERM KILL; do
    [[ "$(ps -o comm= -p "$engine" || true)" == pulumi ]] || break
    kill -s "$signal" "$engine" || true
    for _ in {1..10}; do kill -s 0 "$engine" 2>/dev/null && sleep 1; done
  done
  # 1 is: done, and something is named that a person decides about.
  .venv/bin/python -m infra.recover --stack "$STACK" --yes || [[ $? == 1 ]] ||
    pulumi cancel --yes "$STACK"
  rm -f "$mark"
}

close() {
  # The file as committed knows the lasting addresses only: what `open` added is gone from it.
  git checkout -- "Pulumi.$STACK.yaml"
  recover
  local walls=()
  while read -r urn; do walls+=(--target "$urn"); done < <(
    pulumi stack --stack "$STACK" --show-urns --non-interactive |
      grep -o 'urn:pulumi:.*digitalocean:index/firewall:Firewall::.*' || true
  )
  # Refreshed: an update that was cut off is in the cloud and not in the state.
  if ((${#walls[@]})); then up --refresh "${walls[@]}"; fi
  unknown_walls
}

# A provider that died may have made a firewall of which neither state nor mark knows.
unknown_walls() {
  local said status=0
  said=$(.venv/bin/python -m infra.recover --stack "$STACK" </dev/null) || status=$?
  echo "$said"
  if ((status > 1)) || grep -q '^not in the state: firewall' <<<"$said"; then
    echo "::error title=Door perhaps open::a firewall of $STACK may admit this runner; see above"
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
