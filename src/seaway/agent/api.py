"""The HTTP API: one table of routes, one table of errors."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as HttpRoute

from seaway import __version__, errors
from seaway.agent import networks, nodes, sandboxes
from seaway.agent.agent import Agent
from seaway.agent.requests import (
    ConnectRequest,
    DisconnectRequest,
    DrainRequest,
    EndpointRequest,
    InitRequest,
    JoinClusterRequest,
    LeaveRequest,
    NetworkRequest,
    SandboxRequest,
    StartedRequest,
)
from seaway.agent.views import network_view, ports_view, sandbox_view

STATUS: dict[type[errors.SeawayError], HTTPStatus] = {
    errors.InvalidSpec: HTTPStatus.BAD_REQUEST,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.Exhausted: HTTPStatus.CONFLICT,
    errors.Unsupported: HTTPStatus.NOT_IMPLEMENTED,
    errors.StoreError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.KernelBusy: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.SeawayError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""Error class -> HTTP status; the nearest base class counts."""

BODY_MAX = 4 << 20
"""Bytes of a request body; 1,000 published ports are about 20 KiB."""

Handler = Callable[[Agent, Request, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row of the API: where, what it takes, what it does."""

    method: str
    path: str
    handler: Handler
    summary: str
    body: type[msgspec.Struct] | None = None


# -- handlers ---------------------------------------------------------------------------------


async def _list_networks(agent: Agent, _request: Request, _body: None) -> Any:
    found = sorted(agent.core.state.networks.values(), key=lambda n: n.name)
    return await _with_members(agent, [network_view(agent.core, n) for n in found])


async def _create_network(agent: Agent, _request: Request, body: NetworkRequest) -> Any:
    return network_view(agent.core, await networks.create(agent.core, body))


async def _network(agent: Agent, request: Request, _body: None) -> Any:
    name = request.path_params["name"]
    await nodes.know_networks(agent.core, [name])
    found = network_view(agent.core, agent.core.state.network(name))
    return (await _with_members(agent, [found]))[0]


async def _with_members(agent: Agent, views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    await nodes.add_members(agent.core.cluster, views)
    return views


async def _remove_network(agent: Agent, request: Request, _body: None) -> Any:
    name = request.path_params["name"]
    await nodes.know_networks(agent.core, [name])
    return {"removed": (await networks.remove(agent.core, name)).name}


async def _prune_networks(agent: Agent, _request: Request, _body: None) -> Any:
    return {"removed": await networks.prune(agent.core)}


async def _connect(agent: Agent, request: Request, body: ConnectRequest) -> Any:
    body.endpoint.network = request.path_params["name"]
    await nodes.know_networks(agent.core, [body.endpoint.network])
    await sandboxes.connect(agent.core, body.sandbox, body.endpoint)
    return sandbox_view(agent.core, agent.core.state.sandbox(body.sandbox))


async def _disconnect(agent: Agent, request: Request, body: DisconnectRequest) -> Any:
    try:
        await sandboxes.disconnect(agent.core, body.sandbox, request.path_params["name"])
    except errors.NotFound:
        if not body.force:
            raise
    return {}


async def _list_sandboxes(agent: Agent, _request: Request, _body: None) -> Any:
    found = sorted(agent.core.state.sandboxes.values(), key=lambda s: -s.created)
    return [sandbox_view(agent.core, s) for s in found]


async def _create_sandbox(agent: Agent, _request: Request, body: SandboxRequest) -> Any:
    await nodes.know_networks(agent.core, [r.network for r in body.networks])
    sandbox = await sandboxes.create(agent.core, body)
    agent.watch.follow(sandbox)
    # Whoever makes a sandbox is about to run something in it: spare them a question.
    return sandbox_view(agent.core, sandbox) | {"engine": _engine_view(agent)}


async def _sandbox(agent: Agent, request: Request, _body: None) -> Any:
    sandbox = agent.core.state.sandbox(request.path_params["name"])
    return sandbox_view(agent.core, sandbox) | ports_view(sandbox)


async def _remove_sandbox(agent: Agent, request: Request, _body: None) -> Any:
    return {"removed": (await sandboxes.remove(agent.core, request.path_params["name"])).name}


async def _up(agent: Agent, request: Request, _body: None) -> Any:
    return sandbox_view(agent.core, await sandboxes.up(agent.core, request.path_params["name"]))


async def _started(agent: Agent, request: Request, body: StartedRequest) -> Any:
    sandbox = agent.core.state.sandbox(request.path_params["name"])
    found = await agent.watch.appeared(sandbox.id, body.container, body.pid)
    return sandbox_view(agent.core, found)


async def _stopped(agent: Agent, request: Request, _body: None) -> Any:
    await sandboxes.stopped(agent.core, request.path_params["name"])
    return {}


async def _status(agent: Agent, _request: Request, _body: None) -> Any:
    return agent.status()


# -- clusters


async def _cluster(agent: Agent, _request: Request, _body: None) -> Any:
    return await nodes.cluster_view(agent.core.cluster)


async def _init_cluster(agent: Agent, _request: Request, body: InitRequest) -> Any:
    ship = await agent.cluster.init(body)
    made = {"cluster": ship.member.cluster, "host": ship.member.name}
    return made | await nodes.token(ship)


async def _join_cluster(agent: Agent, _request: Request, body: JoinClusterRequest) -> Any:
    ship = await agent.cluster.join(body)
    return {
        "cluster": ship.member.cluster,
        "host": ship.member.name,
        "number": ship.member.number,
        "hosts": len(ship.commons.hosts),
    }


async def _leave_cluster(agent: Agent, _request: Request, body: LeaveRequest) -> Any:
    return {"cluster": await agent.cluster.leave(force=body.force)}


async def _token(agent: Agent, _request: Request, _body: None) -> Any:
    return await nodes.token(nodes.require_member(agent.core))


async def _rotate_token(agent: Agent, _request: Request, _body: None) -> Any:
    return await nodes.rotate_token(nodes.require_member(agent.core))


async def _rotate_keys(agent: Agent, _request: Request, _body: None) -> Any:
    return {"generation": await nodes.rotate_keys(nodes.require_member(agent.core))}


async def _nodes(agent: Agent, _request: Request, _body: None) -> Any:
    return await nodes.nodes_view(nodes.require_member(agent.core))


async def _node(agent: Agent, request: Request, _body: None) -> Any:
    ship = nodes.require_member(agent.core)
    return await nodes.node_view(ship, request.path_params["name"])


async def _drain(agent: Agent, request: Request, body: DrainRequest) -> Any:
    ship = nodes.require_member(agent.core)
    return {"name": (await nodes.drain(ship, request.path_params["name"], undo=body.undo)).name}


async def _remove_node(agent: Agent, request: Request, _body: None) -> Any:
    ship = nodes.require_member(agent.core)
    force = request.query_params.get("force") == "true"
    host = await nodes.remove(ship, request.path_params["name"], force=force)
    return {"removed": host.name, "note": nodes.what_remains(ship, host)}


async def _paths(agent: Agent, _request: Request, _body: None) -> Any:
    ship = agent.core.cluster
    return [proof.view() for proof in await ship.probes.prove_all()] if ship is not None else []


async def _plan(agent: Agent, _request: Request, _body: None) -> Any:
    return {"lines": (await agent.core.kernel.look_aside()).lines()}


async def _engine(agent: Agent, _request: Request, _body: None) -> Any:
    return _engine_view(agent)


def _engine_view(agent: Agent) -> dict[str, Any]:
    engine = agent.engine
    return {
        "argv": engine.argv(),
        "run_flags": engine.run_flags,
        "environment": engine.environment,
    }


async def _events(agent: Agent, request: Request, _body: None) -> Any:
    follow = request.query_params.get("follow") == "true"
    moment = request.query_params.get("since", "0") or "0"
    try:
        since = float(moment)
    except ValueError:
        since = math.nan
    if math.isnan(since):
        raise errors.InvalidSpec(f"since={moment!r} is not a number of seconds") from None
    return StreamingResponse(_event_lines(agent, since, follow=follow), media_type=_NDJSON)


_NDJSON = "application/x-ndjson"


async def _event_lines(agent: Agent, since: float, *, follow: bool) -> AsyncIterator[bytes]:
    for event in agent.core.events.since(since):
        yield json.dumps(asdict(event)).encode() + b"\n"
    if follow:
        async for event in agent.core.events.follow():
            yield json.dumps(asdict(event)).encode() + b"\n"


async def _metrics(agent: Agent, _request: Request, _body: None) -> Any:
    return Response(agent.metrics(), media_type=CONTENT_TYPE_LATEST)


async def _openapi(_agent: Agent, _request: Request, _body: None) -> Any:
    return document(ROUTES)


ROUTES: tuple[Endpoint, ...] = (
    Endpoint("GET", "/v1/networks", _list_networks, "List networks"),
    Endpoint("POST", "/v1/networks", _create_network, "Create a network", NetworkRequest),
    Endpoint("POST", "/v1/networks/prune", _prune_networks, "Remove networks nobody is on"),
    Endpoint("GET", "/v1/networks/{name}", _network, "Describe a network"),
    Endpoint("DELETE", "/v1/networks/{name}", _remove_network, "Remove a network"),
    Endpoint(
        "POST", "/v1/networks/{name}/connect", _connect, "Attach a sandbox to it", ConnectRequest
    ),
    Endpoint(
        *("POST", "/v1/networks/{name}/disconnect", _disconnect),
        *("Detach a sandbox from it", DisconnectRequest),
    ),
    Endpoint("GET", "/v1/sandboxes", _list_sandboxes, "List sandboxes"),
    Endpoint("POST", "/v1/sandboxes", _create_sandbox, "Attach a sandbox", SandboxRequest),
    Endpoint("GET", "/v1/sandboxes/{name}", _sandbox, "Describe a sandbox"),
    Endpoint("DELETE", "/v1/sandboxes/{name}", _remove_sandbox, "Detach and forget a sandbox"),
    Endpoint("POST", "/v1/sandboxes/{name}/up", _up, "Get ready to be started again"),
    Endpoint("POST", "/v1/sandboxes/{name}/started", _started, "Its process runs", StartedRequest),
    Endpoint("POST", "/v1/sandboxes/{name}/stopped", _stopped, "Its process has ended"),
    Endpoint("GET", "/v1/cluster", _cluster, "Describe the cluster as this host sees it"),
    Endpoint("POST", "/v1/cluster", _init_cluster, "Make a cluster of this host", InitRequest),
    Endpoint("POST", "/v1/cluster/join", _join_cluster, "Join a cluster", JoinClusterRequest),
    Endpoint("POST", "/v1/cluster/leave", _leave_cluster, "Leave the cluster", LeaveRequest),
    Endpoint("GET", "/v1/cluster/token", _token, "Return the join token"),
    Endpoint("POST", "/v1/cluster/token/rotate", _rotate_token, "Replace the join token"),
    Endpoint("POST", "/v1/cluster/keys/rotate", _rotate_keys, "Have all hosts make new keys"),
    Endpoint("GET", "/v1/nodes", _nodes, "List the cluster's hosts"),
    Endpoint("GET", "/v1/nodes/{name}", _node, "Describe a host"),
    Endpoint("POST", "/v1/nodes/{name}/drain", _drain, "Drain a host", DrainRequest),
    Endpoint("DELETE", "/v1/nodes/{name}", _remove_node, "Remove a host; ?force=true if it lives"),
    Endpoint("GET", "/v1/paths", _paths, "Prove the ways to other hosts, in full size"),
    Endpoint("GET", "/v1/status", _status, "What is applied, what failed and why"),
    Endpoint("GET", "/v1/plan", _plan, "What would change in the kernel, and why"),
    Endpoint("GET", "/v1/events", _events, "What happened; ?follow=true streams, ?since=SECONDS"),
    Endpoint("GET", "/v1/engine", _engine, "How to call the container engine"),
    Endpoint("GET", "/metrics", _metrics, "Prometheus metrics"),
    Endpoint("GET", "/openapi.json", _openapi, "This API, described"),
)

# -- plumbing ---------------------------------------------------------------------------------


def application(agent: Agent) -> Starlette:
    """Build the ASGI application for *agent*."""
    return Starlette(
        routes=[HttpRoute(row.path, _bound(agent, row), methods=[row.method]) for row in ROUTES]
    )


def _bound(agent: Agent, row: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    decoder = msgspec.json.Decoder(row.body) if row.body else None

    async def handle(request: Request) -> Response:
        try:
            body = await _body(request, decoder)
            found = await row.handler(agent, request, body)
        except errors.SeawayError as err:
            return failure(err)
        except OSError as err:  # no descriptor, no room: what the caller can read and act upon
            return failure(_refusal(row, err))
        if isinstance(found, Response):
            return found
        return Response(msgspec.json.encode(found), media_type="application/json")

    return handle


def _refusal(row: Endpoint, err: OSError) -> errors.KernelError:
    where = f"{err.filename}: " if err.filename else ""
    detail = f"{where}{err.strerror or err}"
    return errors.from_errno(row.method, row.path, err.errno or errno.EIO, detail)


async def _body(request: Request, decoder: msgspec.json.Decoder[Any] | None) -> Any:
    if decoder is None:
        return None
    raw, size = bytearray(), 0
    async for piece in request.stream():
        size += len(piece)
        if size <= BODY_MAX:  # what is more is read, so that the answer arrives, and not kept
            raw += piece
    if size > BODY_MAX:
        raise errors.InvalidSpec(f"the request has {size} bytes: at most {BODY_MAX} are taken")
    try:
        return decoder.decode(raw or b"{}")
    except msgspec.MsgspecError as err:
        raise errors.InvalidSpec(f"the request is not understood: {err}") from None


def failure(err: errors.SeawayError) -> Response:
    """Render an error: its class by name, its message, the status of the table."""
    status = next(STATUS[kind] for kind in type(err).__mro__ if kind in STATUS)
    # A client knows those of errors.py, and none that modules have made of them.
    known = next(kind for kind in type(err).__mro__ if kind.__module__ == errors.__name__)
    body = {"error": known.__name__, "message": str(err)}
    return Response(msgspec.json.encode(body), status_code=status, media_type="application/json")


def document(rows: tuple[Endpoint, ...]) -> dict[str, Any]:
    """Describe *rows* as OpenAPI 3.1."""
    bodies = [row.body for row in rows if row.body]
    _, schemas = msgspec.json.schema_components(
        [*bodies, EndpointRequest], ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        operation: dict[str, Any] = {
            "summary": row.summary,
            "operationId": row.handler.__name__.strip("_"),
            "responses": {
                "200": {"description": "Done"},
                "default": {"description": 'Refused: {"error": class, "message": one line}'},
            },
        }
        if "{name}" in row.path:
            parameter = {"name": "name", "in": "path", "required": True}
            operation["parameters"] = [{**parameter, "schema": {"type": "string"}}]
        if row.body:
            schema = {"$ref": f"#/components/schemas/{row.body.__name__}"}
            operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
        paths.setdefault(row.path, {})[row.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Seaway agent", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }
