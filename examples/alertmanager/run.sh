#!/usr/bin/env bash
# Runs anomaly-counter with a real Alertmanager: an alert fires, is sent again, resolves, and fires
# again. The script prints the frequency after each step. Everything runs on free ports of 127.0.0.1
# and in a temporary directory, and ends with this script.
#
# ANOMALY_COUNTER_BIN  the binary to run; if it is not set, cargo builds it
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
processes=()

finish() {
  status=$?
  for process in "${processes[@]}"; do
    kill "$process" 2>/dev/null || true
  done
  wait 2>/dev/null || true
  if [ "$status" -ne 0 ]; then
    tail -n 20 "$work"/*.log >&2 || true
  fi
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT

say() { printf '\n== %s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

# Installs a Debian package if its program is missing and this user is root.
need() {
  command -v "$1" >/dev/null && return
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    say "installing $2"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y "$2"; } \
      >"$work/apt.log" 2>&1
  else
    fail "$1 is missing: install it with 'apt-get install $2'"
  fi
}

# Waits up to a minute for a command to succeed.
until_ok() {
  for _ in $(seq 600); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  fail "this did not succeed within a minute: $*"
}

free_port() {
  for _ in $(seq 100); do
    port=$((20000 + RANDOM % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
  fail "no free port was found"
}

need curl curl
need prometheus-alertmanager prometheus-alertmanager

if [ -z "${ANOMALY_COUNTER_BIN:-}" ]; then
  say "building anomaly-counter"
  (cd "$project" && cargo build --release)
  ANOMALY_COUNTER_BIN="${CARGO_TARGET_DIR:-$project/target}/release/anomaly-counter"
fi

# The binary runs in another directory.
ANOMALY_COUNTER_BIN=$(realpath "$ANOMALY_COUNTER_BIN")

counter_port=$(free_port)
counter="http://127.0.0.1:$counter_port"
(cd "$work" && ANOMALY_COUNTER__LISTEN="127.0.0.1:$counter_port" ANOMALY_COUNTER__LOG__FORMAT=json \
  exec "$ANOMALY_COUNTER_BIN" 2>"$work/anomaly-counter.log") &
processes+=($!)
until_ok curl -fsS "$counter/readyz"
say "anomaly-counter serves on $counter"

alertmanager_port=$(free_port)
alertmanager="http://127.0.0.1:$alertmanager_port"
sed "s|http://anomaly-counter:8080|$counter|" "$here/alertmanager.yml" >"$work/alertmanager.yml"
prometheus-alertmanager --config.file="$work/alertmanager.yml" --storage.path="$work/alertmanager" \
  --web.listen-address="127.0.0.1:$alertmanager_port" --cluster.listen-address= \
  >"$work/alertmanager.log" 2>&1 &
processes+=($!)
until_ok curl -fsS "$alertmanager/-/ready"
say "Alertmanager serves on $alertmanager"

labels='{"alertname":"PodCrashLoopBackOff","job":"checkout-api","namespace":"prod","reason":"OOMKilled"}'
key=$("$ANOMALY_COUNTER_BIN" key "$labels")

# alert BEGUN ENDED: sends an alert to Alertmanager, as Prometheus does.
alert() {
  curl -fsS --json "[{\"labels\":$labels,\"startsAt\":\"$1\",\"endsAt\":\"$2\"}]" \
    "$alertmanager/api/v2/alerts"
}
now() { date -u +%Y-%m-%dT%H:%M:%S.%3NZ; }
in_an_hour() { date -u -d '+1 hour' +%Y-%m-%dT%H:%M:%SZ; }
# Prints the number of successful deliveries of Alertmanager so far.
deliveries() {
  curl -fsS "$alertmanager/metrics" | awk '
    /^alertmanager_notifications_total\{integration="webhook"/ { sent += $2 }
    /^alertmanager_notifications_failed_total\{integration="webhook"/ { failed += $2 }
    END { print sent - failed }'
}
more_deliveries_than() { [ "$(deliveries)" -gt "$1" ]; }
counted() { frequency | grep -q "\"count_1h\":$1,"; }
frequency() { curl -fsS "$counter/anomalies/$key/frequency"; echo; }

say "the alert fires"
begun=$(now)
alert "$begun" "$(in_an_hour)"
until_ok more_deliveries_than 0
frequency

say "Alertmanager sends its group again: the same episode counts once"
until_ok more_deliveries_than 2
frequency

say "the alert resolves: this is not an occurrence"
before=$(deliveries)
alert "$begun" "$(now)"
until_ok more_deliveries_than "$before"
frequency

say "the alert fires again: the new episode counts"
alert "$(now)" "$(in_an_hour)"
until_ok counted 2
frequency
