"""Flags of ``podman run`` and ``podman create``: which take a value, which do not.

``seaway run`` hands every flag that is not about the network to Podman
unread.  To find the image among the words it must only know where a flag's
value ends.  A flag that is missing here is refused, not guessed.

Source:
    ``podman run --help`` and ``podman create --help`` of Podman 4.3.1; the later
    flags and the aliases from the flag definitions of Podman 6.0.
"""

from __future__ import annotations

from seaway.cli.flags import PassThrough

_BOOLEAN = """
    detach disable-content-trust env-host http-proxy init interactive no-healthcheck no-hosts
    oom-kill-disable passwd privileged publish-all quiet read-only read-only-tmpfs replace rm rmi
    rootfs sig-proxy tls-verify tty unsetenv-all
"""

_BOOLEAN_SINCE_5 = """
    no-hostname
"""

_VALUE = """
    add-host annotation arch attach authfile blkio-weight blkio-weight-device cap-add cap-drop
    cgroup-conf cgroup-parent cgroupns cgroups chrootdirs cidfile conmon-pidfile cpu-period
    cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems detach-keys
    device device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops
    dns dns-option dns-search entrypoint env env-file env-merge expose gidmap group-add health-cmd
    health-interval health-on-failure health-retries health-start-period health-timeout hostname
    hostuser image-volume init-ctr init-path ip ip6 ipc label label-file log-driver log-opt
    mac-address memory memory-reservation memory-swap memory-swappiness mount name network
    network-alias oom-score-adj os passwd-entry personality pid pidfile pids-limit platform pod
    pod-id-file preserve-fds publish pull requires restart sdnotify seccomp-policy secret
    security-opt shm-size stop-signal stop-timeout subgidname subuidname sysctl systemd timeout
    tmpfs tz uidmap ulimit umask unsetenv user userns uts variant volume volumes-from workdir
"""

_VALUE_SINCE_4_4 = """
    cert-dir creds decryption-key gpus group-entry health-log-destination health-max-log-count
    health-max-log-size health-startup-cmd health-startup-interval health-startup-retries
    health-startup-success health-startup-timeout hosts-file preserve-fd rdt-class retry
    retry-delay shm-size-systemd
"""

_VALUE_ALIASES = """
    dns-opt healthcheck-command healthcheck-interval healthcheck-retries healthcheck-start-period
    healthcheck-timeout net override-arch override-os override-variant
"""

_VALUE_UNLISTED = """
    kernel-memory signature-policy
"""

PODMAN_RUN = PassThrough(
    program="podman run",
    booleans=frozenset((_BOOLEAN + _BOOLEAN_SINCE_5).split()),
    values=frozenset((_VALUE + _VALUE_SINCE_4_4 + _VALUE_ALIASES + _VALUE_UNLISTED).split()),
    shorts={
        "a": "attach",
        "c": "cpu-shares",
        "d": "detach",
        "e": "env",
        "h": "hostname",
        "i": "interactive",
        "l": "label",
        "m": "memory",
        "p": "publish",
        "P": "publish-all",
        "q": "quiet",
        "t": "tty",
        "u": "user",
        "v": "volume",
        "w": "workdir",
    },
)
"""Everything the two commands take, except ``--help``, which is ours to answer."""
