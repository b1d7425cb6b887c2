#!/usr/bin/env bash
# Shows Seaway at work: nginx, redis and busybox containers on one host of a lab.
#
#   make demo            sets up what is missing, then runs this
#   packaging/demo.sh    as root, once that has been done
#
# The lab is called "demo" and is made afresh each time.  It stays when the demo has ended, to be
# played with.  Any step that does not do what it should ends the demo with an error.
set -euo pipefail

cd "$(dirname "$0")/.."
if ! command -v seaway >/dev/null; then PATH=$PWD/.venv/bin:$PATH; fi
readonly LAB=demo
readonly HOST=192.0.2.1
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi

die() {
  printf '\ndemo: %s\n' "$*" >&2
  exit 1
}
trap 'die "this step failed; the lab is left as it is: seaway lab exec --name $LAB host1 seaway status"' ERR

[ "$(id -u)" = 0 ] || die "a lab needs root: use 'make demo', or sudo"
command -v seaway >/dev/null || die "seaway is not installed here: 'make demo' sets everything up"

scratch=$(mktemp)
trap 'rm -f "$scratch"' EXIT

say() { printf '\n%s\n' "$*"; }

as_typed() { # the words of a command, those with special characters in quotes
  local word
  for word; do
    if [[ $word == *[[:space:]\<\>\|\;\&]* ]]; then printf " '%s'" "$word"; else printf ' %s' "$word"; fi
  done
}

# Errors are shown too.  Without a terminal Podman remarks that -t has none: true, and left out.
on() { # on MACHINE COMMAND...: shows the command, runs it there, shows what it prints
  local machine=$1 output status=0
  shift
  printf '%s%s#%s%s\n' "$bold" "$machine" "$(as_typed "$@")" "$plain"
  output=$(seaway lab exec --name "$LAB" "$machine" "$@" 2>"$scratch") || status=$?
  sed '/The input device is not a TTY/d' "$scratch" >&2
  [ -z "$output" ] || printf '%s\n' "$output"
  return $status
}

see() { # see TEXT MACHINE COMMAND...: like on, and the output has to contain TEXT
  local wanted=$1 shown
  shift
  shown=$(on "$@") || die "the last command failed: $*"
  printf '%s\n' "$shown"
  [[ ${shown#*$'\n'} == *"$wanted"* ]] || die "expected to see: $wanted"
}

fetch() { # a client that this machine has, as a command line
  if command -v curl >/dev/null; then
    echo curl -s
  elif command -v wget >/dev/null; then
    echo wget -qO-
  else
    echo python3 -c 'import sys,urllib.request;print(urllib.request.urlopen(sys.argv[1]).read().decode())'
  fi
}

say "A lab: host1 runs Seaway, outside is a client on the same wire. This machine's own network is not touched."
seaway lab down --name "$LAB" 2>/dev/null
printf '%s# seaway lab up --name %s%s\n' "$bold" "$LAB" "$plain"
seaway lab up --name "$LAB" >/dev/null
seaway lab ls --name "$LAB"

say "Two containers with published ports. (host1# CMD is short for: seaway lab exec --name $LAB host1 CMD)"
on host1 seaway run -d -p 8080:80 --name my-web-server nginx
on host1 seaway run -d -p 8081:6379 --name cache redis

say "A network of its own for a third one, which also has another name there, db."
on host1 seaway network create --subnet 10.10.0.0/24 --gateway 10.10.0.1 --ip-range 10.10.0.128/25 backend
on host1 seaway run -itd --name my-container --network backend --network-alias db busybox

say "The web server joins that network while it runs. Now they know each other by name and by alias."
on host1 seaway network connect --alias web backend my-web-server
see 'Welcome to nginx!' host1 seaway exec my-container wget -qO- http://my-web-server/
see 'Welcome to nginx!' host1 seaway exec my-container wget -qO- http://web/
see 'Address: 10.10.0.128' host1 seaway exec my-container nslookup -type=a db 10.10.0.1

say "Any network reaches published ports, here by the host's own address."
see 'Welcome to nginx!' host1 seaway exec my-container wget -qO- "http://$HOST:8080/"

say "And so does the world."
read -ra client < <(fetch)
see 'Welcome to nginx!' outside "${client[@]}" "http://$HOST:8080/"
see '+PONG' outside bash -c "exec 3<>/dev/tcp/$HOST/8081; echo PING >&3; head -1 <&3"

say "nginx has seen who asked: $(seaway lab ls --name $LAB --format '{{.Machine}} {{.IPv4}}' | grep outside)."
for _ in {1..50}; do # it writes its log when it has a moment
  seaway lab exec --name "$LAB" host1 seaway logs my-web-server 2>/dev/null | grep -q '^192.0.2.200' && break
  sleep 0.1
done
see '192.0.2.200' host1 bash -c 'seaway logs my-web-server 2>/dev/null | tail -n 1'

say "What there is now:"
on host1 seaway ps
on host1 seaway network ls
see 'healthy' host1 seaway status

cat <<END

${bold}That is it.${plain} The lab is still up. As root, with ${PWD}/.venv/bin on the PATH, try:
  seaway lab exec --name $LAB host1 bash            # a shell on the host; seaway there talks to its agent
  seaway lab exec --name $LAB host1 seaway plan     # what Seaway would change in the kernel: nothing
  seaway lab kill --name $LAB host1                 # kill the agent; the containers do not notice
  seaway lab start --name $LAB host1                # it takes up what is there
Remove everything:
  seaway lab down --name $LAB
END
