"""What the commands about containers do: the agent gives them a network, Podman runs them."""

from __future__ import annotations

import os
import sys

from seaway.cli.client import Client, segment
from seaway.cli.endpoints import endpoints, pairs, sandbox
from seaway.cli.flags import UsageError
from seaway.cli.lean_json import loads
from seaway.errors import Conflict, EngineError, NotFound, SeawayError

TYPE_CHECKING = False  # a type checker takes it for True; typing itself is slow to import
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from seaway.cli.parse import Parsed

_LABEL = "seaway"  # on every container that we started, so that ps finds it
_ENGINE_FAILED = 125  # podman-run(1): Podman itself failed, the container never ran


class Engine:
    """Podman, called as the agent says it must be called here.

    Args:
        told: What the agent answers to ``GET /v1/engine``.

    Raises:
        EngineError: We are not root, and Podman would look for containers of our own.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        _require_root()
        self._argv: list[str] = told["argv"]
        self.run_flags: list[str] = told["run_flags"]
        self._environment = {**os.environ, **told["environment"]}

    def spawn(self, words: Sequence[str], *, stdout: int | None = None) -> int:
        """Start Podman and return its process number.

        It gets no files of ours: the container's monitor would keep them open for
        as long as the container lives, and whoever reads from them would wait.
        """
        argv = [*self._argv, *words]
        actions: list[tuple[int, ...]] = []
        if stdout is not None:
            actions.append((os.POSIX_SPAWN_DUP2, stdout, 1))
        if not any(word.startswith("--preserve-fd") for word in words):
            ours = map(int, os.listdir("/proc/self/fd"))  # noqa: PTH208 - pathlib costs 5 ms
            actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in ours if fd > 2]
        try:
            return os.posix_spawnp(argv[0], argv, self._environment, file_actions=actions)
        except FileNotFoundError:
            raise EngineError("Podman is not installed: apt-get install podman") from None

    def read(self, words: Sequence[str]) -> tuple[int, str]:
        """Run Podman; return its exit status and what it printed."""
        ours, theirs = os.pipe()
        try:
            pid = self.spawn(words, stdout=theirs)
        finally:
            os.close(theirs)
        with os.fdopen(ours) as pipe:
            text = pipe.read()
        return _wait(pid), text

    def become(self, words: Sequence[str]) -> int:
        """Turn into Podman, for commands that end with it."""
        argv = [*self._argv, *words]
        sys.stdout.flush()
        try:
            os.execvpe(argv[0], argv, self._environment)  # noqa: S606
        except FileNotFoundError:
            raise EngineError("Podman is not installed: apt-get install podman") from None


def _engine(client: Client) -> Engine:
    told: Any = client.request("GET", "/v1/engine")
    return Engine(told)


def _is_root() -> bool:
    return os.geteuid() == 0


def _require_root() -> None:
    if not _is_root():
        raise EngineError("containers are run by root: use sudo (the group seaway is for networks)")


def _wait(pid: int) -> int:
    while True:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except KeyboardInterrupt:
            continue  # the terminal told Podman too, and Podman decides what it means


# -- run ---------------------------------------------------------------------------------------


def run(parsed: Parsed, _words: object) -> int:
    """Run a container; returns its exit status, or 0 once it runs in the background."""
    client = Client()
    networks = parsed.flag("network").list
    shared = [n for n in networks if n in ("host", "none") or n.startswith("container:")]
    if shared:
        return _run_without_network(client, parsed, shared, networks)
    request = sandbox(parsed, endpoints(parsed, "bridge"))
    request["auto_remove"] = parsed.flag("rm").on
    request["image"] = parsed.argument("IMAGE").value
    request["sysctls"] = {k: v for k, v in pairs(parsed, "sysctl").items() if k.startswith("net.")}
    request["creator"] = os.getpid()
    _require_root()
    if request["publish_all"]:
        request["expose"] += _exposed(_engine(client), request["image"])
    made: Any = client.request("POST", "/v1/sandboxes", request)
    try:
        return _start(client, Engine(made["engine"]), parsed, made)
    except BaseException:
        _forget(client, made["id"])
        raise


def _start(client: Client, engine: Engine, parsed: Parsed, made: Mapping[str, Any]) -> int:
    words = ["run", *engine.run_flags, *_podman_flags(parsed, made)]
    words += [*parsed.passed, *_image_and_command(parsed)]
    if not parsed.flag("detach").on:
        status = _foreground(engine, words)
        if parsed.flag("rm").on:
            _forget(client, made["id"])
        elif not os.path.exists(made["pid_file"]):  # noqa: PTH110 - pathlib costs 5 ms
            _undo(client, engine, made)
        return status
    status, printed = engine.read(words)
    if status != 0:
        _undo(client, engine, made)
        return status
    _tell(client, made["id"], "started", {"container": printed.strip()})
    print(printed, end="")
    return 0


def _undo(client: Client, engine: Engine, made: Mapping[str, Any]) -> None:
    """Leave nothing of a container whose process never started, neither its name nor its ports."""
    if os.path.exists(made["cid_file"]):  # noqa: PTH110 - so Podman has made it
        engine.read(["rm", "-f", "--ignore", made["name"]])
    _forget(client, made["id"])


def _foreground(engine: Engine, words: Sequence[str]) -> int:
    pid = engine.spawn(words)
    import signal  # noqa: PLC0415 - its enums take 1 ms, which only waiting pays

    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    return _wait(pid)


def _forget(client: Client, sandbox_id: str) -> None:
    """Undo the attachment of a container that did not come to be, or is gone."""
    try:
        client.request("DELETE", f"/v1/sandboxes/{sandbox_id}")
    except SeawayError:
        return  # gone already, or the agent is away and will notice by itself


def _podman_flags(parsed: Parsed, made: Mapping[str, Any]) -> list[str]:
    words = ["--name", made["name"], "--network", f"ns:{made['netns']}"]
    words += ["--label", f"{_LABEL}={made['id']}"]
    words += [w for flag in ("label", "sysctl") for w in _same(parsed, flag)]
    words += _files(parsed, made)
    words += _resolver(made)
    words += _hosts(parsed, made)
    words += ["-d"] if parsed.flag("detach").on else []
    words += ["--rm"] if parsed.flag("rm").on else []
    return words


def _resolver(made: Mapping[str, Any]) -> list[str]:
    if not made["resolver"]:
        return []
    options = made["dns"]["options"]
    if not any(option.startswith("ndots") for option in options):
        options = ["ndots:0", *options]  # names of ours have no dots: ask for them first
    return [
        *("--dns", made["resolver"]),
        *(word for d in made["dns"]["search"] for word in ("--dns-search", d)),
        *(word for option in options for word in ("--dns-opt", option)),  # Podman 3 knows it too
    ]


def _files(parsed: Parsed, made: Mapping[str, Any]) -> list[str]:
    """Podman writes into our run folder; files the user wants are links to those."""
    for flag, target in (("cidfile", made["cid_file"]), ("pidfile", made["pid_file"])):
        if wanted := parsed.flag(flag).value:
            try:
                os.symlink(target, wanted)  # noqa: PTH211 - pathlib costs 5 ms
            except OSError as err:
                raise UsageError(f"--{flag} {wanted}: {err.strerror}") from None
    return ["--cidfile", made["cid_file"], "--pidfile", made["pid_file"]]


def _hosts(parsed: Parsed, made: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    if hostname := parsed.flag("hostname").value:
        words += ["--hostname", hostname]
        address = next((n["ipv4"] or n["ipv6"] for n in made["networks"]), "")
        words += ["--add-host", f"{hostname}:{address}"] if address else []
    gateway = next((n["gateway4"] or n["gateway6"] for n in made["networks"]), "")
    for text in parsed.flag("add-host").list:
        name, _, address = text.replace("=", ":", 1).partition(":")
        address = gateway if address == "host-gateway" else address.strip("[]")
        words += ["--add-host", f"{name}:{address}"]
    return words


def _image_and_command(parsed: Parsed) -> list[str]:
    return [parsed.argument("IMAGE").value or "", *parsed.argument("COMMAND").list]


def _exposed(engine: Engine, image: str) -> list[str]:
    """Return the ports an image exposes, pulling it if it is not here."""
    words = ["image", "inspect", "--format", "{{json .Config.ExposedPorts}}", image]
    if engine.read(["image", "exists", image])[0] != 0 and engine.read(["pull", image])[0] != 0:
        raise EngineError(f"no image {image!r}: check its name")
    _, text = engine.read(words)
    return list(loads(text or "null") or {})


def _run_without_network(
    client: Client, parsed: Parsed, shared: Sequence[str], networks: Sequence[str]
) -> int:
    """The host's network, another container's, or none: nothing for Seaway to do."""
    (kind, *more) = shared
    if more or len(networks) > 1:
        raise UsageError(f"--network {kind} cannot be combined with another network")
    for flag in ("publish", "publish-all", "ip", "ip6", "mac-address", "network-alias"):
        if parsed.flag(flag).given:
            raise UsageError(f"--{flag} has no meaning with --network {kind}: drop one")
    if kind.startswith("container:"):
        found: Any = client.request("GET", f"/v1/sandboxes/{segment(kind.partition(':')[2])}")
        # Through its namespace, so that whatever is attached can be joined, not only containers.
        kind = f"ns:{found['netns']}"
        joined = _resolver(found)
    else:
        joined = []
    engine = _engine(client)
    words = ["run", *engine.run_flags, "--network", kind, "--label", f"{_LABEL}={shared[0]}"]
    words += joined
    for flag in ("name", "cidfile", "pidfile"):
        value = parsed.flag(flag).value
        words += [f"--{flag}", value] if value else []
    if kind != "none" and not kind.startswith("ns:"):
        words += [w for flag in ("dns", "dns-search", "dns-opt") for w in _same(parsed, flag)]
    words += [w for flag in ("label", "add-host", "sysctl") for w in _same(parsed, flag)]
    if hostname := parsed.flag("hostname").value:
        words += ["--hostname", hostname]
    words += ["-d"] if parsed.flag("detach").on else []
    words += ["--rm"] if parsed.flag("rm").on else []
    return engine.become([*words, *parsed.passed, *_image_and_command(parsed)])


def _same(parsed: Parsed, flag: str) -> list[str]:
    given = parsed.flag("dns-option" if flag == "dns-opt" else flag)
    return [word for text in given.list for word in (f"--{flag}", text)]


# -- life --------------------------------------------------------------------------------------


def _sandbox(client: Client, name: str) -> dict[str, Any] | None:
    """Ask the agent about a container; None if it has no network of ours."""
    try:
        found: Any = client.request("GET", f"/v1/sandboxes/{segment(name)}")
    except NotFound:
        return None
    if found["attached"]:
        raise UsageError(f"{name!r} is attached, not a container: see 'seaway detach'")
    return dict(found)


def _container(client: Client, engine: Engine, name: str) -> dict[str, Any] | None:
    """Like _sandbox(), but one that Podman does not know either is an error."""
    found = _sandbox(client, name)
    if not found and engine.read(["container", "exists", name])[0] != 0:
        raise NotFound(f"no container called {name!r}: 'seaway ps -a' shows those there are")
    return found


def _stop(client: Client, engine: Engine, name: str, seconds: str) -> int:
    found = _container(client, engine, name)
    target = found["name"] if found else name
    status, _ = engine.read(["stop", "-t", seconds, target])
    if status == 0 and found:
        _tell(client, found["id"], "stopped")
    return status


def _tell(
    client: Client, sandbox_id: str, what: str, facts: Mapping[str, str] | None = None
) -> None:
    try:
        client.request("POST", f"/v1/sandboxes/{sandbox_id}/{what}", facts or {})
    except NotFound:
        return  # it was to be removed at its end


def _start_again(client: Client, engine: Engine, name: str) -> int:
    found = _container(client, engine, name)
    if found:
        client.request("POST", f"/v1/sandboxes/{found['id']}/up")
    status, _ = engine.read(["start", found["name"] if found else name])
    if found:
        _tell(client, found["id"], "started" if status == 0 else "stopped")
    return status


def _each(parsed: Parsed, work: Any) -> int:
    """Do *work* for every container; go on after a failure, and report it in the end."""
    from seaway.cli.output import Progress  # noqa: PLC0415 - run does not need it

    client = Client()
    engine = _engine(client)
    worst = 0
    for name in parsed.argument("CONTAINER").list:
        try:
            with Progress(f"Working on {name}"):
                status = work(client, engine, name)
        except SeawayError as err:
            print(f"seaway: {err}", file=sys.stderr)
            status = 1
        if status == 0:
            print(name)
        worst = worst or status
    return worst


def stop(parsed: Parsed, _words: object) -> int:
    """Stop containers and print their names."""
    seconds = parsed.flag("time").value or "10"
    return _each(parsed, lambda client, engine, name: _stop(client, engine, name, seconds))


def start(parsed: Parsed, _words: object) -> int:
    """Start stopped containers and print their names."""
    return _each(parsed, _start_again)


def restart(parsed: Parsed, _words: object) -> int:
    """Stop and start containers and print their names."""
    seconds = parsed.flag("time").value or "10"

    def both(client: Client, engine: Engine, name: str) -> int:
        return _stop(client, engine, name, seconds) or _start_again(client, engine, name)

    return _each(parsed, both)


def rm(parsed: Parsed, _words: object) -> int:
    """Remove containers and print their names."""
    flags = ["-f", "-t", "0"] if parsed.flag("force").on else []
    flags += ["-v"] if parsed.flag("volumes").on else []

    def remove(client: Client, engine: Engine, name: str) -> int:
        found = _sandbox(client, name)
        if found and found["phase"] == "running" and not parsed.flag("force").on:
            raise Conflict(f"{name!r} is running: stop it first, or use 'seaway rm -f {name}'")
        there = engine.read(["container", "exists", found["name"] if found else name])[0] == 0
        if not there and not found:
            raise NotFound(f"no container called {name!r}: 'seaway ps -a' shows those there are")
        status = 0
        if there:
            status, _ = engine.read(["rm", *flags, found["name"] if found else name])
        if status == 0 and found:
            _forget(client, found["id"])
        return status

    return _each(parsed, remove)


def logs(_parsed: Parsed, words: Sequence[str]) -> int:
    """Become ``podman logs``."""
    return _engine(Client()).become(["logs", *words])


def exec_(_parsed: Parsed, words: Sequence[str]) -> int:
    """Become ``podman exec``."""
    return _engine(Client()).become(["exec", *words])


# -- looking -----------------------------------------------------------------------------------

_COLUMNS = {
    "CONTAINER ID": "ID",
    "IMAGE": "Image",
    "STATUS": "Status",
    "PORTS": "Ports",
    "NETWORKS": "Networks",
    "NAMES": "Names",
}


def ps(parsed: Parsed, _words: object) -> int:
    """List what is attached, and containers without a network of ours."""
    from seaway.cli.filters import SANDBOX, select  # noqa: PLC0415 - run does not need it
    from seaway.cli.output import listing  # noqa: PLC0415

    client = Client()
    filters = parsed.flag("filter").list
    sandboxes: Any = client.request("GET", "/v1/sandboxes")
    podman = _podman_containers(_engine(client)) if _is_root() else {}
    rows = [
        _attached_row(s, podman.get(s["container"])) for s in select(sandboxes, filters, SANDBOX)
    ]
    # Containers on the host's network, or none, are Podman's alone: no filter of ours fits them.
    known = {s["container"] for s in sandboxes}
    rows += [_foreign_row(c) for i, c in podman.items() if i not in known and not filters]
    if not parsed.flag("all").on and not any(f.startswith("status=") for f in filters):
        rows = [row for row in rows if row["State"] == "running"]
    quiet = "ID" if parsed.flag("quiet").on else ""
    print(listing(rows, _COLUMNS, style=parsed.flag("format").value or "", quiet=quiet), end="")
    return 0


def _podman_containers(engine: Engine) -> dict[str, Any]:
    """Return what Podman says of every container that we started, by id."""
    status, text = engine.read(["ps", "-a", "--format", "json", "--filter", f"label={_LABEL}"])
    return {c["Id"]: c for c in loads(text or "[]")} if status == 0 else {}


def _attached_row(found: Mapping[str, Any], container: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "ID": found["container"][:12] or found["id"],
        "Image": found["image"] or "-",
        "Status": _status(container, found["error"]) if container else found["phase"],
        "State": found["phase"],
        "Ports": ", ".join(found["ports"]),
        "Networks": ",".join(n["network"] for n in found["networks"]),
        "Names": found["name"],
        "Addresses": ", ".join(a for n in found["networks"] for a in (n["ipv4"], n["ipv6"]) if a),
        "Error": found["error"],
    }


def _status(container: Mapping[str, Any], error: str = "") -> str:
    """Podman 4 says "Up 3 minutes ago", which is not what it means.

    Args:
        error: What is wrong with a running container's network, which Podman knows nothing of.
    """
    text = str(container["Status"])
    if not text.startswith("Up "):
        return text
    return text.removesuffix(" ago") + (" (network trouble: see inspect)" if error else "")


def _foreign_row(container: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ID": container["Id"][:12],
        "Image": container["Image"],
        "Status": _status(container),
        "State": "running" if container["State"] == "running" else "stopped",
        "Ports": "",
        "Networks": container["Labels"].get(_LABEL, ""),
        "Names": container["Names"][0],
        "Addresses": "",
        "Error": "",
    }


def port(parsed: Parsed, _words: object) -> int:
    """Show where ports are published, Docker's way."""
    name = parsed.argument("CONTAINER").value or ""
    found: Any = Client().request("GET", f"/v1/sandboxes/{segment(name)}")
    wanted = parsed.argument("PORT").value
    if not wanted:
        print("".join(f"{line}\n" for line in found["port_lines"]), end="")
        return 0
    key = wanted if "/" in wanted else f"{wanted}/tcp"
    hits = [line.partition(" -> ")[2] for line in found["port_lines"] if line.startswith(f"{key} ")]
    if not hits:
        raise NotFound(
            f"{name!r} publishes no port {key}: 'seaway port {name}' shows those it does"
        )
    print("\n".join(hits))
    return 0


def inspect(parsed: Parsed, _words: object) -> int:
    """Show containers, or networks of that name, in full."""
    from seaway.cli.output import inspection  # noqa: PLC0415 - run does not need it

    client = Client()
    found = [_described(client, name) for name in parsed.argument("NAME").list]
    print(inspection(found, style=parsed.flag("format").value or ""), end="")
    return 0


def _described(client: Client, name: str) -> dict[str, Any]:
    """Describe what has a network of ours, a network, or a container without one."""
    try:
        item: Any = client.request("GET", f"/v1/sandboxes/{segment(name)}")
    except NotFound as err:
        try:
            network: Any = client.request("GET", f"/v1/networks/{segment(name)}")
        except NotFound:
            engine = _engine(client) if _is_root() else None
            if engine is None or engine.read(["container", "exists", name])[0] != 0:
                raise err from None
            return {"name": name, "networks": [], "engine": _by_engine(engine, name)}
        return dict(network)
    if item["container"] and _is_root():
        item["engine"] = _by_engine(_engine(client), item["container"])
    return dict(item)


def _by_engine(engine: Engine, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = loads(engine.read(["inspect", name])[1] or "[]")
    return found[0] if found else {}


COMMANDS = {
    "run": run,
    "ps": ps,
    "stop": stop,
    "start": start,
    "restart": restart,
    "rm": rm,
    "logs": logs,
    "exec": exec_,
    "port": port,
    "inspect": inspect,
}
