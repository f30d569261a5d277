#!/usr/bin/env bash
# Installs missing programs that the tests start from Debian packages, if this user is root.
# Otherwise, prints what to install. With `bench`, `attack`, `fuzz` or `chaos`: the programs of
# these instead. With `page`: only axe-core and TypeScript, which the tests use too.
set -euo pipefail

# From npm's registry, for the tests and lints of the page. Where npm or the registry is missing,
# these checks are left out, but not in CI.
install_page_tools() {
  local dir why packages=(axe-core@4.14.1 typescript@7.0.2)
  dir="${CARGO_TARGET_DIR:-$(dirname "$0")/../target}/page-tools"
  [ "$(cat "$dir/installed" 2>/dev/null)" = "${packages[*]}" ] && return
  why="npm is not installed"
  if command -v npm >/dev/null; then
    why="npm could not install them"
    mkdir -p "$dir"
    if npm install --prefix "$dir" --no-save --ignore-scripts --no-audit --no-fund \
      --fetch-retries=1 --fetch-timeout=20000 --loglevel=error "${packages[@]}"; then
      echo "${packages[*]}" >"$dir/installed"
      return
    fi
  fi
  echo "The page is tested without ${packages[*]}, because $why" >&2
  [ -z "${CI:-}" ]
}

case "${1:-}" in
  page)
    install_page_tools
    exit
    ;;
  "") install_page_tools ;;
esac

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
# In addition to those of the tests, for the faults of disk and clock.
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
  echo "These packages are missing: ${missing[*]}" >&2
  echo "On Debian and Ubuntu, run: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
echo "installing ${missing[*]}"
apt-get update
# The tests start their own servers. Those that a package may start are not used.
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
