#!/usr/bin/env bash
# Makes a checkout ready to run: Debian packages, Python environment, container images.
#
#   packaging/setup.sh [packages] [python] [images]     (no argument: all three)
#   packaging/setup.sh neighbours | vm                  (what only some tests need)
#   packaging/setup.sh lists                            (what packages there are, anew)
#
# Each step looks first and does only what is missing, so that running it again takes a moment and
# needs no network. Only packages and images need root; as an ordinary user they go through sudo.
# The environment belongs to whoever owns the checkout, also when root sets it up.
set -euo pipefail

cd "$(dirname "$0")/.."
if [ -z "${SEAWAY_SETUP_LOCKED:-}" ]; then # one at a time; the lock is not handed on to children
  SEAWAY_SETUP_LOCKED=yes exec flock -o packaging/setup.sh packaging/setup.sh "$@"
fi
readonly VENV=.venv
readonly STAMP=$VENV/installed-from
readonly POLICY=/usr/sbin/policy-rc.d
readonly POLICY_SAVED=$POLICY.before-seaway
readonly POLICY_MARK="# put here by Seaway's setup while it installs packages"

say() { echo "setup: $*" >&2; }
die() {
  say "$*"
  exit 1
}

quietly() { # shows what a command prints only if it fails
  local output
  output=$("$@" 2>&1) || {
    printf '%s\n' "$output" >&2
    return 1
  }
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "this needs root and there is no sudo: run the same command as root"
  fi
}

as_owner() { # the one who owns the checkout, so that its files stay theirs
  local owner
  owner=$(stat -c %U .)
  if [ "$(id -u)" = 0 ] && [ "$owner" != root ] && id "$owner" >/dev/null 2>&1; then
    setpriv --reuid "$owner" --regid "$(id -g "$owner")" --init-groups \
      env HOME="$(getent passwd "$owner" | cut -d: -f6)" "$@"
  else
    "$@"
  fi
}

# --- packages -------------------------------------------------------------------------------------

has_command() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }
has_library() { compgen -G "/usr/lib/*/$1" >/dev/null || compgen -G "/lib/*/$1" >/dev/null; }
has_init() { [ -e /usr/libexec/podman/catatonit ] || has_command catatonit; }

missing_packages() { # what is missing, one package a line; asks for things, not for package names
  has_command podman || echo podman
  has_command runc || echo runc # the one runtime that also knows cgroups of version 1
  has_init || echo catatonit    # podman run --init
  has_command nft || echo nftables
  has_library libnftables.so.1 || echo libnftables1
  has_command ip || echo iproute2
  [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates # registries speak TLS
  has_command etcd || echo etcd-server # the store of a cluster
  has_command wg || echo wireguard-tools # keys and peers of tunnels
}

missing_recommended() { # what only some hosts need, and some distributions lack; one a line
  has_command wireguard-go || echo wireguard-go # where the kernel has no WireGuard
}

forbid_starts() { # a package being installed asks this program whether it may start its services
  if as_root test -e $POLICY && ! as_root grep -qF "$POLICY_MARK" $POLICY; then
    as_root mv $POLICY $POLICY_SAVED
  fi
  printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" | as_root tee $POLICY >/dev/null
  as_root chmod 755 $POLICY
}

allow_starts() { # puts back what was there, also after an earlier run that was killed
  if as_root grep -qsF "$POLICY_MARK" $POLICY; then as_root rm -f $POLICY; fi
  if as_root test -e $POLICY_SAVED; then as_root mv $POLICY_SAVED $POLICY; fi
}

apt_get() {
  quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 \
    -o Dpkg::Use-Pty=0 "$@"
}

refreshed=no
refresh_lists() { # once in a run, and only when something is to be installed
  [ $refreshed = no ] || return 0
  say "reading the package lists"
  apt_get update || say "that failed; going on with the lists there are"
  refreshed=yes
}

install_packages() {
  command -v apt-get >/dev/null || die "no apt-get here; install these yourself: $*"
  refresh_lists
  say "installing $*"
  trap allow_starts EXIT
  forbid_starts
  apt_get install -y --no-install-recommends --no-remove "$@" || die "apt-get could not install $*"
  allow_starts
  trap - EXIT
}

set_up_packages() {
  local missing package
  mapfile -t missing < <(missing_packages)
  [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
  case " ${missing[*]} " in # Seaway starts its own; the package's would start with the machine
    *" etcd-server "*)
      ! has_command systemctl || quietly as_root systemctl disable etcd.service || true
      ;;
  esac
  for package in $(missing_recommended); do
    (install_packages "$package") ||
      say "going on without $package: encrypted networks then need a kernel with WireGuard"
  done
}

missing_neighbours() { # other engines and firewalls, beside which tests run Seaway; one a line
  has_command dockerd || echo docker.io
  has_command docker || [ -z "$(apt-cache search --names-only '^docker-cli$')" ] || echo docker-cli
  has_command iptables || echo iptables
  has_command ufw || echo ufw
  [ -e /usr/lib/podman/netavark ] || echo netavark
}

# One by one: ufw and docker.io exclude other packages, which may be here and then stay.
# Nothing of it starts, also not with the machine: the tests run their own, in namespaces.
set_up_neighbours() {
  local package missing
  mapfile -t missing < <(missing_neighbours)
  [ ${#missing[@]} = 0 ] || refresh_lists
  for package in "${missing[@]}"; do
    (install_packages "$package") || say "the tests that need $package will be skipped"
    [ "$package" != docker.io ] || ! has_command systemctl ||
      quietly as_root systemctl disable docker.service docker.socket || true
  done
}

# --- virtual machine ------------------------------------------------------------------------------

missing_vm() { # what packaging/vm.sh boots Debian's own kernel with; one a line
  case $(uname -m) in
    aarch64) has_command qemu-system-aarch64 || echo qemu-system-arm ;;
    *) has_command qemu-system-x86_64 || echo qemu-system-x86 ;;
  esac
  has_command depmod || echo kmod
  has_command cpio || echo cpio
  has_command xz || echo xz-utils
}

set_up_vm() {
  local missing
  mapfile -t missing < <(missing_vm)
  [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

set_up_lists() { refresh_lists; }

# --- python ---------------------------------------------------------------------------------------

# The system's own come first: root must be able to run what a user set up, and a shim on PATH
# (pyenv) may point into someone's home. Prints the interpreter itself, never the shim.
usable_python() {
  local candidate
  for candidate in /usr/bin/python3 /usr/bin/python3.1{4,3,2,1} \
    python3 python3.1{4,3,2,1}; do
    "$candidate" -Ic 'import ensurepip, sys, venv
assert sys.version_info >= (3, 11)
print(sys.executable)' 2>/dev/null && return
  done
  return 1
}

python_package() { # what to install: only the venv module, or the newest Python there is
  local version
  if /usr/bin/python3 -Ic 'import sys; assert sys.version_info >= (3, 11)' 2>/dev/null; then
    echo python3-venv
    return
  fi
  for version in 3.14 3.13 3.12 3.11; do
    if apt-cache show "python$version-venv" 2>/dev/null | grep -q '^Version:'; then
      echo "python$version-venv"
      return
    fi
  done
  return 1
}

find_python() {
  usable_python && return
  refresh_lists
  local package
  package=$(python_package) || die "Seaway needs Python 3.11 or newer and this distribution has \
none: install one with its venv module (as /usr/bin/python3.11, or on PATH) and try again"
  install_packages "$package"
  usable_python || die "$package is installed, but no Python of 3.11 or newer with venv is found"
}

environment_recipe() { # changes when the environment has to be installed again
  { cat pyproject.toml && pwd; } | sha256sum
}

set_up_python() {
  local recipe python
  recipe=$(environment_recipe)
  if [ "$(cat $STAMP 2>/dev/null)" = "$recipe" ] && $VENV/bin/python -Ic '' 2>/dev/null; then
    return 0
  fi
  python=$(find_python)
  say "installing the Python environment into $VENV with $python"
  as_owner "$python" -m venv --clear $VENV
  quietly as_owner $VENV/bin/pip install --disable-pip-version-check -e '.[dev]' ||
    die "pip could not install Seaway's dependencies: is a Python package index within reach?"
  echo "$recipe" | as_owner tee $STAMP >/dev/null
}

# --- images ---------------------------------------------------------------------------------------

set_up_images() { as_root env SEAWAY_IMAGES="${SEAWAY_IMAGES:-}" packaging/images.sh; }

[ $# -gt 0 ] || set -- packages python images
for step in "$@"; do
  case $step in
    packages | neighbours | vm | lists | python | images) "set_up_$step" ;;
    *) die "no step $step: it is packages, neighbours, vm, lists, python or images" ;;
  esac
done
