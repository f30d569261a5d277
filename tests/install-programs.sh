#!/usr/bin/env bash
# Installs missing programs that the tests start from Debian's packages, if this user may. If not,
# says what to install. With `bench`, `attack`, `fuzz` or `chaos`: the programs of those instead.
set -euo pipefail

# Program and package, in pairs.
needed=(
  redis-server redis-server
  prometheus-alertmanager prometheus-alertmanager
  amtool prometheus-alertmanager
  prometheus prometheus
  curl curl
  jq jq
  python3 python3
  prlimit util-linux
  faketime faketime
)
if [ "${1:-}" = bench ]; then
  needed=(
    redis-server redis-server
    redis-benchmark redis-tools
    wrk wrk
    setpriv util-linux
  )
fi
if [ "${1:-}" = attack ]; then
  needed=(
    redis-server redis-server
    redis-cli redis-tools
    curl curl
    python3 python3
  )
fi
# Beside those of the tests: the faults of disk and clock.
if [ "${1:-}" = chaos ]; then
  needed=(faketime faketime cc gcc)
fi
# libFuzzer is C++.
if [ "${1:-}" = fuzz ]; then
  needed=(g++ g++)
fi

missing=()
for ((i = 0; i < ${#needed[@]}; i += 2)); do
  command -v "${needed[i]}" >/dev/null || missing+=("${needed[i + 1]}")
done
# Ubuntu has no package of Chromium, and GitHub's machines have Chrome.
if [ -z "${1:-}" ] && ! command -v chromium google-chrome >/dev/null; then
  missing+=(chromium)
fi
if [ "${1:-}" = attack ] && ! python3 -c 'import ensurepip' 2>/dev/null; then
  missing+=(python3-venv)
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "These programs are needed: ${missing[*]}" >&2
  echo "On Debian and Ubuntu: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
echo "installing ${missing[*]}"
apt-get update
# The tests start their own servers, whether or not a package has started one.
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
