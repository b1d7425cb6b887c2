#!/usr/bin/env bash
# Puts the busybox, nginx and redis images into image stores that many Podman roots can share:
#
#   packaging/images.sh [STORE...]              (no argument: /var/lib/seaway/images)
#   podman --storage-opt additionalimagestore=STORE run nginx
#
# Images come from the registry where one answers. Otherwise they are built from this
# distribution's own packages, so that everything runs with no registry within reach. Built images
# carry the label seaway.recipe and are built again when the recipe below changes; pulled ones stay.
#
# SEAWAY_IMAGES=pull or =build allows only the one way. Needs root; installs nothing on the host.
set -euo pipefail
umask 022

readonly IMAGES=(busybox nginx redis)
readonly NAMES=docker.io/library
readonly CACHE=/var/cache/seaway
readonly FIRST_PULL=20 NEXT_PULL=180 # seconds; the first also finds out whether a registry answers
readonly NGINX_ID=101 REDIS_ID=999   # as in the images of the same names on Docker Hub
RECIPE=$(sed -n '/^# --- from packages/,/^# --- main/p' "$0" | sha256sum | cut -c -12)
readonly RECIPE
export PODMAN_IGNORE_CGROUPSV1_WARNING=1 # it would come with every call, and is the owner's matter

say() { echo "images: $*" >&2; }
die() {
  say "$*"
  exit 1
}

# --- the store ------------------------------------------------------------------------------------

store_podman() { # STORE ARGUMENT...: neither uses nor changes the machine's own Podman storage
  local run
  run=/run/seaway-images/$(sha256sum <<<"$1" | cut -c -12)
  timeout "${limit:-600}" podman --root "$1" --runroot "$run" --tmpdir "$run/tmp" \
    --storage-driver overlay --events-backend file "${@:2}"
}

missing_images() { # STORE: the images it lacks or has from an older recipe, one a line
  local image there="" line
  [ ! -d "$1" ] || there=$(store_podman "$1" images --format '{{.Repository}}:{{.Tag}} {{.Labels}}')
  for image in "${IMAGES[@]}"; do
    line=$(grep "^$NAMES/$image:latest " <<<"$there" || true)
    case $line in
      *seaway.recipe:"$RECIPE"*) ;;
      "" | *seaway.recipe:*) echo "$image" ;;
    esac
  done
}

patience=$FIRST_PULL
pull() { # STORE IMAGE: fails if no registry has answered so far
  [ "${SEAWAY_IMAGES:-}" != build ] && [ "$patience" != 0 ] || return 1
  say "pulling $2"
  local answer
  if answer=$(limit=$patience store_podman "$1" pull --quiet "$NAMES/$2:latest" 2>&1); then
    patience=$NEXT_PULL
  else
    say "no registry gives us $2 (${answer##*: })"
    patience=0
    return 1
  fi
}

import() { # STORE IMAGE
  local change changes=()
  while IFS= read -r change; do changes+=(--change "$change"); done < <("describe_$2")
  store_podman "$1" import --quiet "${changes[@]}" --change "LABEL seaway.recipe=$RECIPE" \
    "$CACHE/$2-$RECIPE.tar" "$NAMES/$2:latest" >/dev/null
}

# --- from packages to a root folder ---------------------------------------------------------------

apt_get() { # as if nothing were installed here, so that it finds whole dependency trees
  apt-get -qq -o Dir::State::status="$work/nothing-installed" -o Debug::NoLocking=1 \
    -o APT::Sandbox::User="$sandbox_user" "$@"
}

tree_of() { # PACKAGE: it and the libraries it needs, one a line
  apt_get --simulate install --no-install-recommends "$1" |
    sed -n 's/^Inst \([^ ]*\).*/\1/p' | grep -E '^(busybox|nginx|redis|lib|zlib|lua-)'
}

download() { # PACKAGE: into the current folder, with its libraries
  local packages
  packages=$(tree_of "$1") || return 1
  # shellcheck disable=SC2086 # one word a package
  apt_get download $packages >/dev/null
}

new_root() { # FOLDER: the folders and links that every package expects
  mkdir -p "$1"/usr/{bin,sbin,lib,lib64} "$1"/{dev,etc,home,proc,root,run,sys,tmp,var/log,var/tmp}
  ln -s usr/bin usr/sbin usr/lib usr/lib64 "$1"
  chmod 1777 "$1/tmp" "$1/var/tmp"
  chmod 700 "$1/root"
}

unpack() { # PACKAGE: into a folder of that name, with its libraries; none of its scripts run
  local deb
  mkdir "$work/debs-$1" && chown "$sandbox_user" "$work/debs-$1" && cd "$work/debs-$1"
  if ! download "$1"; then
    say "reading the package lists"
    apt-get -qq update >&2 || true # one bad source is no reason to stop
    download "$1" || die "apt-get cannot download $1: is the package archive within reach?"
  fi
  new_root "$work/$1"
  for deb in *.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$work/$1"
  done
  cd "$work"
}

copy_program() { # FROM-ROOT TO-ROOT PATH: the program and the libraries its loader names
  local file loader
  loader=$(compgen -G "$1/lib*/ld-linux*.so*" | head -n 1)
  for file in "$3" $(chroot "$1" "${loader#"$1"}" --list "$3" | grep -o '/[^ ]*'); do
    install -D -m 755 "$1$file" "$2$file" # follows links: one file under the name that is asked for
  done
}

image_root() { # FOLDER: what all three images share; busybox gives them a shell and wget
  new_root "$1"
  cp "$work/busybox-static/bin/busybox" "$1/bin/busybox"
  chroot "$1" /bin/busybox --install -s /bin
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$1/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$1/etc/group"
  echo 'hosts: files dns' >"$1/etc/nsswitch.conf"
}

add_user() { # ROOT NAME ID
  echo "$2:x:$3:$3:$2:/nonexistent:/bin/false" >>"$1/etc/passwd"
  echo "$2:x:$3:" >>"$1/etc/group"
}

# --- the images -----------------------------------------------------------------------------------

describe_busybox() { echo 'CMD ["sh"]'; }
build_busybox() { image_root "$1"; }

describe_nginx() {
  cat <<'END'
ENTRYPOINT ["/docker-entrypoint.sh"]
CMD ["nginx", "-g", "daemon off;"]
EXPOSE 80/tcp
STOPSIGNAL SIGQUIT
END
}
build_nginx() {
  unpack nginx-light
  image_root "$1"
  add_user "$1" nginx $NGINX_ID
  copy_program "$work/nginx-light" "$1" /usr/sbin/nginx
  mkdir -p "$1"/etc/nginx/conf.d "$1"/usr/share/nginx/html "$1"/var/{lib,log}/nginx
  cp "$work/nginx-light/etc/nginx/mime.types" "$1/etc/nginx/"
  ln -s /dev/stdout "$1/var/log/nginx/access.log"
  ln -s /dev/stderr "$1/var/log/nginx/error.log"
  cat >"$1/etc/nginx/nginx.conf" <<'END'
user nginx;
worker_processes auto;
error_log /var/log/nginx/error.log notice;
pid /run/nginx.pid;
events {
    worker_connections 1024;
}
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /var/log/nginx/access.log combined;
    sendfile on;
    keepalive_timeout 65;
    include /etc/nginx/conf.d/*.conf;
}
END
  cat >"$1/etc/nginx/conf.d/default.conf" <<'END'
server {
    listen 80;
    listen [::]:80;
    server_name localhost;
    location / {
        root /usr/share/nginx/html;
        index index.html;
    }
}
END
  cat >"$1/docker-entrypoint.sh" <<'END'
#!/bin/sh
# A kernel without IPv6 cannot listen on [::].
[ -e /proc/net/if_inet6 ] || sed -i '/listen \[::\]:80;/d' /etc/nginx/conf.d/default.conf
exec "$@"
END
  cat >"$1/usr/share/nginx/html/index.html" <<'END'
<!DOCTYPE html>
<html>
<head><title>Welcome to nginx!</title></head>
<body>
<h1>Welcome to nginx!</h1>
<p>This nginx comes from the packages of the host's distribution.</p>
</body>
</html>
END
  chmod 755 "$1/docker-entrypoint.sh"
}

describe_redis() {
  cat <<'END'
ENTRYPOINT ["/docker-entrypoint.sh"]
CMD ["redis-server"]
EXPOSE 6379/tcp
WORKDIR /data
END
}
build_redis() {
  unpack redis-server
  image_root "$1"
  add_user "$1" redis $REDIS_ID
  copy_program "$work/redis-server" "$1" /usr/bin/redis-server
  copy_program "$work/redis-server" "$1" /usr/bin/redis-cli
  mkdir "$1/data"
  chown $REDIS_ID:$REDIS_ID "$1/data"
  cat >"$1/docker-entrypoint.sh" <<'END'
#!/bin/sh
# Without a configuration file, redis-server would refuse clients from other machines.
case "$1:$2" in
  redis-server:-[hv] | redis-server:--help | redis-server:--version | redis-server:--test-memory) ;;
  redis-server: | redis-server:-*)
    shift
    set -- redis-server --protected-mode no "$@"
    ;;
esac
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
  chown redis:redis . && exec su -s /bin/sh -- redis -c 'exec "$@"' sh "$@"
fi
exec "$@"
END
  chmod 755 "$1/docker-entrypoint.sh"
}

build() { # IMAGE: leaves its tar file in the cache
  say "building $1 from packages"
  [ -d "$work/busybox-static" ] || unpack busybox-static
  "build_$1" "$work/image-$1"
  tar -c --sort=name --numeric-owner --mtime=2024-01-01T00:00:00Z -C "$work/image-$1" . \
    >"$work/$1.tar"
  rm -f "$CACHE/$1"-*.tar
  mv "$work/$1.tar" "$CACHE/$1-$RECIPE.tar"
}

# --- main -----------------------------------------------------------------------------------------

provide() { # STORE IMAGE
  pull "$1" "$2" && return
  [ "${SEAWAY_IMAGES:-}" != pull ] || die "no registry gave us $2 and SEAWAY_IMAGES allows no other way"
  [ -e "$CACHE/$2-$RECIPE.tar" ] || build "$2"
  import "$1" "$2"
}

prepare() { # the cache, and a work folder that goes away again
  mkdir -p "$CACHE"
  exec 9>"$CACHE/lock" && flock 9 # two at once would only do the work twice
  work=$(mktemp -d "$CACHE/work.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  chmod 711 "$work"
  : >"$work/nothing-installed"
  sandbox_user=root
  if id _apt >/dev/null 2>&1; then sandbox_user=_apt; fi
}

[ "$(id -u)" = 0 ] || die "this needs root: run it through sudo"
command -v podman >/dev/null || die "Podman is not installed: run packaging/setup.sh packages"
[ $# -gt 0 ] || set -- /var/lib/seaway/images
work=""
for store in "$@"; do
  [ -n "$(missing_images "$store")" ] || continue
  [ -n "$work" ] || prepare
  for image in $(missing_images "$store"); do # asked again: another run may have made them
    provide "$store" "$image"
  done
done
