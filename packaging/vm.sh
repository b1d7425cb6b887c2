#!/usr/bin/env bash
# Runs tests on Debian's own kernel, in a virtual machine that sees this one's files:
#
#   packaging/vm.sh [PYTEST ARGUMENT...]    (no argument: the tests that need that kernel)
#
# The kernel is taken out of Debian's package and kept in .vm, never installed. The root of this
# machine and the checkout are shared with the guest read-only; what tests write stays in its
# memory. QEMU emulates the processor, so this works everywhere and takes minutes. Needs no root,
# except for installing QEMU. The guest has no network and ends with this script.
#
# SEAWAY_VM_MINUTES is the longest that it may run, 45 if not set.
set -euo pipefail

cd "$(dirname "$0")/.."
readonly CACHE=$PWD/.vm
mkdir -p "$CACHE"
echo '*' >"$CACHE/.gitignore"
exec 9>"$CACHE/lock"
flock 9 # one at a time; QEMU holds it as well, as long as it runs
readonly KERNEL=$CACHE/kernel RESULTS=$CACHE/results
readonly MINUTES=${SEAWAY_VM_MINUTES:-45}
readonly BOOT_MODULES=(virtio_pci 9pnet_virtio 9p overlay) # between the kernel and our files
# Beside the files with tests that are marked needs_kernel: some of each thing we ask a kernel for.
readonly TESTS=(
  tests/netns/test_{wireguard,netlink,conntrack,names_of_namespaces}.py
  tests/netns/test_vxlan.py::test_{boxes_talk,the_device_is_as_it_should_be,two_families_at_once}
  tests/netns/test_vxlan.py::test_a_narrower_way_is_told_to_the_sender
  tests/netns/test_plan_applied.py::test_{a_second_look_finds_nothing_to_do,a_macvlan_applied_twice}
  tests/netns/test_plan_applied.py::test_a_{macvlan_is_on_the_wire,namespace_of_our_making}
  tests/netns/test_plan_applied.py::test_an_endpoint_talks_and_is_reached
)

say() { echo "test-vm: $*" >&2; }
die() {
  say "$*"
  exit 1
}

case $(uname -m) in
  x86_64) QEMU=(qemu-system-x86_64) CONSOLE=ttyS0 IMAGE=linux-image-amd64 ;;
  aarch64) QEMU=(qemu-system-aarch64 -M virt) CONSOLE=ttyAMA0 IMAGE=linux-image-arm64 ;;
  *) die "there is no set-up for $(uname -m) yet: it is x86_64 or aarch64" ;;
esac

# --- the kernel -----------------------------------------------------------------------------------

newest_kernel() { # the package that the one called after no version stands for
  apt-cache --no-all-versions show "$IMAGE" 2>/dev/null |
    sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p'
}

download() { # FOLDER: both packages into FOLDER; fails if the lists are too old for that
  local kernel
  kernel=$(newest_kernel)
  [ -n "$kernel" ] && (cd "$1" && apt-get -qq download "$kernel" busybox-static >/dev/null 2>&1)
}

unpack() { # FOLDER: leaves vmlinuz, busybox and lib/modules/VERSION of the packages there
  local package
  mkdir "$1/files" "$1/lib"
  for package in "$1"/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$1/files" --no-same-owner \
      --exclude '*/kernel/sound' --exclude '*/kernel/drivers/[!nv]*' \
      --exclude '*/kernel/drivers/net/ethernet' --exclude '*/kernel/drivers/net/wireless'
  done
  mv "$1"/files/boot/vmlinuz-* "$1/vmlinuz"
  mv "$(find "$1/files" -type f -path '*bin/busybox')" "$1/busybox"
  mv "$(find "$1/files" -type d -path '*lib/modules')" "$1/lib/modules"
  rm -r "$1/files" "$1"/*.deb
  depmod -b "$1" "$(ls "$1/lib/modules")"
}

set_up_kernel() {
  [ ! -e "$KERNEL" ] || return 0
  local new=$CACHE/kernel.new
  rm -rf "$new"
  mkdir "$new"
  say "taking the kernel out of $IMAGE"
  download "$new" || { packaging/setup.sh lists && download "$new"; } ||
    die "apt-get has no $IMAGE or no busybox-static for us: this needs Debian's packages"
  unpack "$new"
  mv "$new" "$KERNEL"
}

# --- the machine ----------------------------------------------------------------------------------

pack_initramfs() { # FILE: busybox, the modules it has to load, and packaging/vm/boot
  local module name top=$CACHE/initramfs.new
  rm -rf "$top"
  mkdir -p "$top"/{bin,proc,dev,modules}
  cp "$KERNEL/busybox" "$top/bin"
  cp packaging/vm/boot "$top/init"
  echo "$PWD" >"$top/checkout"
  for module in "${BOOT_MODULES[@]}"; do
    modprobe -d "$KERNEL" -S "$VERSION" --show-depends "$module"
  done | sed -n 's/^insmod \(.*[^ ]\) *$/\1/p' | awk '!seen[$0]++' | while read -r module; do
    name=$(basename "$module")
    case $name in
      *.xz) xz -dc "$module" >"$top/modules/${name%.xz}" ;;
      *) cp "$module" "$top/modules" ;;
    esac
    echo "${name%.xz}" >>"$top/modules/order"
  done
  (cd "$top" && find . | cpio --quiet -o -H newc -R 0:0) >"$1"
  rm -r "$top"
}

shared() { # TAG FOLDER OPTIONS: QEMU's words for a folder that the guest can mount as TAG
  printf '%s\n' -virtfs "local,mount_tag=$1,path=${2//,/,,},security_model=none$3"
}

start_machine() { # its console goes to the pipe; it ends with this script, even with a killed one
  local -a shares
  mapfile -t shares < <(
    shared root / ,readonly=on,multidevs=remap
    shared project "$PWD" ,readonly=on,multidevs=remap
    shared modules "$KERNEL/lib/modules" ,readonly=on
    shared results "$RESULTS" ""
  )
  nice setpriv --pdeathsig KILL timeout --kill-after=10 "${MINUTES}m" \
    setpriv --pdeathsig KILL "${QEMU[@]}" -accel tcg -cpu max -smp 2 -m 2048 \
    -nodefaults -no-user-config -no-reboot -display none -serial stdio "${shares[@]}" \
    -kernel "$KERNEL/vmlinuz" -initrd "$CACHE/initramfs" \
    -append "console=$CONSOLE quiet loglevel=3 panic=-1 mitigations=off random.trust_cpu=on" \
    </dev/null >"$CACHE/console" 2>&1 &
  machine=$!
}

end_machine() {
  [ -z "$machine" ] || kill "$machine" 2>/dev/null || true
  [ -z "$machine" ] || wait "$machine" || true
}

run_machine() { # shows the console and keeps it among the results; returns when the machine is off
  local printer
  machine=""
  trap end_machine EXIT
  trap 'exit 130' INT TERM HUP
  stdbuf -o0 tr -d '\r' <"$CACHE/console" | tee "$RESULTS/console" &
  printer=$!
  start_machine
  wait "$machine" || [ $? != 124 ] || say "ended after $MINUTES minutes: SEAWAY_VM_MINUTES allows more"
  machine=""
  wait "$printer"
}

# --- main -----------------------------------------------------------------------------------------

if [ $# = 0 ]; then # wireguard-go and the rest of the tests are for make test
  mapfile -t marked < <(grep -rl --include 'test_*.py' needs_kernel tests)
  set -- "${marked[@]}" "${TESTS[@]}" -k "not wireguard-go"
fi
packaging/setup.sh vm python
set_up_kernel
VERSION=$(ls "$KERNEL/lib/modules")
rm -rf "$RESULTS" "$CACHE/console"
mkdir "$RESULTS"
mkfifo "$CACHE/console"
[ -t 1 ] && color=yes || color=no
printf '%q ' -ra --color=$color --durations=5 --timeout=600 -p no:cacheprovider "$@" >"$RESULTS/arguments"
pack_initramfs "$CACHE/initramfs"

say "booting Linux $VERSION; the first test comes after half a minute, all of them take five to ten minutes"
SECONDS=0
run_machine
took="$((SECONDS / 60)) min $((SECONDS % 60)) s"
status=$(cat "$RESULTS/status" 2>/dev/null) ||
  die "the machine ended before the tests did, after $took; its console: $RESULTS/console"
[ "$status" = 0 ] || die "failed on Linux $VERSION, in $took"
say "passed on Linux $VERSION, in $took"
