#!/usr/bin/env bash
# Installs what the benchmarks compare with and are built with, as far as it is missing; starts none of it.
set -euo pipefail

readonly POLICY=/usr/sbin/policy-rc.d

missing() { # one package a line; asks for the things themselves, not for package names
  [ -x /usr/sbin/dockerd ] || echo docker.io
  [ -x /usr/lib/cni/portmap ] || echo containernetworking-plugins
  [ -x /usr/lib/podman/netavark ] || echo netavark
  [ -x /usr/lib/podman/aardvark-dns ] || echo aardvark-dns
  [ -x /usr/sbin/iptables ] || echo iptables # the CNI plugins and netavark call it
  command -v wireguard-go >/dev/null || echo wireguard-go
  command -v wg >/dev/null || echo wireguard-tools
  command -v etcd >/dev/null || echo etcd-server
  command -v gcc >/dev/null || echo gcc
  [ -e /usr/include/stdio.h ] || echo libc6-dev
}

mapfile -t packages < <(missing)
[ ${#packages[@]} != 0 ] || exit 0
echo "bench: installing ${packages[*]}" >&2
if [ ! -e $POLICY ]; then # a package being installed asks this program whether it may start services
  trap 'rm -f $POLICY' EXIT
  printf '#!/bin/sh\nexit 101\n' >$POLICY
  chmod 755 $POLICY
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o DPkg::Lock::Timeout=300 update >&2 || echo "bench: going on with the lists there are" >&2
apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
  install -y --no-install-recommends "${packages[@]}" >&2
