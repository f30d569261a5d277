#!/usr/bin/env bash
# Runs Schemathesis against the service, on both stores: every call of /openapi.json with valid and
# with invalid data, and sequences of calls. No answer may be a 5xx, or differ from the description.
#
#   tests/attack/run.sh CASES_EACH
set -euo pipefail
cd "$(dirname "$0")"
cases=$1
here=$PWD
# Builds the service if needed. `exec` replaces cargo by it, so that it can be ended by its process
# id.
service=(cargo run --quiet --locked --manifest-path "$here/../../Cargo.toml" --)
version=4.32.5

dir=$(mktemp -d)
started=()
end() {
  for process in "${started[@]}"; do kill "$process" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap end EXIT

# A virtual environment, which leaves the machine's Python alone and is kept for the next run.
target=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-../../target}")
environment=$target/attack/$version
if [ ! -x "$environment/bin/schemathesis" ]; then
  echo "installing schemathesis $version"
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
fi

free_port() {
  python3 -c '
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1])'
}

# Waits up to a minute until a command succeeds.
await() {
  for _ in $(seq 600); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.1
  done
  echo "this did not succeed within a minute: $*" >&2
  cat "$dir"/*.log >&2
  return 1
}

# A token with all scopes, so that the attack gets beyond the authentication.
scopes=(--scope ingest --scope read --scope operate)
token=$("${service[@]}" token new --name attack "${scopes[@]}" 2>"$dir/entry")
sed -n '/^name = /,$p' "$dir/entry" | sed '1i [[tokens]]' >"$dir/tokens.toml"
export ANOMALY_COUNTER__AUTH__FILE=$dir/tokens.toml

attack() {
  local store=$1 url=$2 port
  port=$(free_port)
  mkdir "$dir/$store"
  (
    cd "$dir/$store"
    ANOMALY_COUNTER__LISTEN=127.0.0.1:$port ANOMALY_COUNTER__REDIS__URL=$url exec "${service[@]}"
  ) 2>"$dir/$store.log" &
  started+=($!)
  await curl --fail --silent "http://127.0.0.1:$port/readyz"
  echo "--- on the store $store"
  # Schemathesis leaves a cache in its working directory.
  (
    cd "$dir"
    "$environment/bin/schemathesis" --config-file "$here/schemathesis.toml" run \
      "http://127.0.0.1:$port/openapi.json" --header "Authorization: Bearer $token" \
      --max-examples "$cases" --continue-on-failure
  )
  # A panic is a 500. An error in the log is a finding too.
  if grep --quiet '"level":"ERROR"' "$dir/$store.log"; then
    echo "the service has logged errors:" >&2
    grep '"level":"ERROR"' "$dir/$store.log" | head -5 >&2
    return 1
  fi
}

redis_port=$(free_port)
redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --dir "$dir" >"$dir/redis.log" &
started+=($!)
await redis-cli -p "$redis_port" ping

attack embedded ""
attack redis "redis://127.0.0.1:$redis_port"
