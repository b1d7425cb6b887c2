"""The HTTP API, called as a server would call it, on an agent without a kernel."""

from __future__ import annotations

import asyncio
import errno
import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

from seaway import errors
from seaway.agent import networks
from seaway.agent.api import BODY_MAX, ROUTES, STATUS, application, document, failure
from seaway.agent.session import Taken
from seaway.engine.podman import Podman
from tests.support.core import MemoryStore, bare_core


@dataclass
class Answer:
    """What came back."""

    status: int
    kind: str
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Watch:
    """Follows nobody."""

    def follow(self, sandbox):
        """Nothing to do."""


class Stub:
    """As much of an agent as the routes need."""

    def __init__(self):
        self.core = bare_core(MemoryStore())
        self.watch = Watch()
        self.engine = Podman(environment={})

    def status(self):
        """All is well."""
        return {"healthy": True}

    def metrics(self):
        """One line."""
        return b"x 1\n"


class Api:
    """One application, asked request by request."""

    def __init__(self) -> None:
        self.agent: Any = Stub()
        self._app = application(self.agent)

    def __call__(self, method: str, path: str, body: Any = None, pieces: Any = None) -> Answer:
        """Ask; *pieces* are sent as they are, one by one."""
        content = b"" if body is None else json.dumps(body).encode()
        return asyncio.run(self._ask(method, path, list(pieces or [content])))

    async def _ask(self, method: str, path: str, pieces: list[bytes]) -> Answer:
        where, _, query = path.partition("?")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": where,
            "query_string": query.encode(),
            "headers": [],
            "root_path": "",
            "scheme": "http",
        }
        sent: list[Any] = []

        async def receive() -> Any:
            if not pieces:
                await asyncio.Event().wait()
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        kind = dict(sent[0]["headers"]).get(b"content-type", b"").decode()
        return Answer(sent[0]["status"], kind, b"".join(m.get("body", b"") for m in sent[1:]))


@pytest.fixture
def api():
    """An application on a new state."""
    return Api()


KINDS = [
    k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.SeawayError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_its_status(kind):
    """The nearest base class's; the client finds the class by its name."""
    words = ("create link", "swv-a", 16) if issubclass(kind, errors.KernelError) else ("why",)
    answer = failure(kind(*words))
    expected = {
        errors.InvalidSpec: 400,
        errors.NotFound: 404,
        errors.Conflict: 409,
        errors.Exhausted: 409,
        errors.Unsupported: 501,
        errors.StoreError: 503,
        errors.KernelBusy: 503,
    }.get(kind, 500)

    assert expected == answer.status_code
    assert kind.__name__ == json.loads(answer.body)["error"]
    assert json.loads(answer.body)["message"]


def test_an_error_of_one_module_has_the_name_of_its_base():
    """A client knows the classes of errors.py, and none that were made of them elsewhere."""
    answer = failure(Taken("the name web is held by web on host2", "/seaway/v1/names/n/web"))

    assert "Conflict" == json.loads(answer.body)["error"]
    assert 409 == answer.status_code


def test_the_table_of_errors_covers_the_tree():
    """Whatever is raised on purpose has a status."""
    assert errors.SeawayError in STATUS


def test_a_network_s_life(api):
    """Created, listed, described, found by name and id, removed."""
    made = api("POST", "/v1/networks", {"name": "front", "subnets": ["10.77.1.0/24"]})

    assert 200 == made.status
    assert "10.77.1.1" == made.json["subnets"][0]["gateway"]
    assert ["front"] == [n["name"] for n in api("GET", "/v1/networks").json]
    assert made.json == api("GET", f"/v1/networks/{made.json['id']}").json
    assert {"removed": "front"} == api("DELETE", "/v1/networks/front").json
    assert 404 == api("GET", "/v1/networks/front").status


def test_a_sandbox_s_life(api):
    """Created, connected, disconnected, started, stopped, removed."""
    for name in ("front", "back"):
        api("POST", "/v1/networks", {"name": name})
    made = api("POST", "/v1/sandboxes", {"name": "web", "networks": [{"network": "front"}]}).json

    assert "created" == made["phase"]
    joined = api(
        *("POST", "/v1/networks/back/connect"), {"sandbox": "web", "endpoint": {"network": "back"}}
    ).json
    assert ["front", "back"] == [n["network"] for n in joined["networks"]]
    assert {} == api("POST", "/v1/networks/back/disconnect", {"sandbox": "web"}).json
    assert 404 == api("POST", "/v1/networks/back/disconnect", {"sandbox": "web"}).status
    forced = {"sandbox": "web", "force": True}
    assert {} == api("POST", "/v1/networks/back/disconnect", forced).json
    assert {} == api("POST", "/v1/sandboxes/web/stopped").json
    assert "stopped" == api("GET", "/v1/sandboxes/web").json["phase"]
    assert "created" == api("POST", "/v1/sandboxes/web/up").json["phase"]
    assert 409 == api("DELETE", "/v1/networks/front").status
    assert {"removed": "web"} == api("DELETE", "/v1/sandboxes/web").json
    assert ["back", "front"] == api("POST", "/v1/networks/prune").json["removed"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/v1/networks", {"name": "front", "typo": 1}, 400, "typo"),
        ("POST", "/v1/networks", {}, 400, "name"),
        ("POST", "/v1/networks", {"name": 7}, 400, "not understood"),
        ("POST", "/v1/networks", {"name": "host"}, 409, "exists already"),
        ("POST", "/v1/networks", {"name": "x", "driver": "host"}, 400, "one host network"),
        ("POST", "/v1/networks", {"name": "x", "subnets": ["10.0.0.1/24"]}, 400, "host bits"),
        ("GET", "/v1/networks/nowhere", None, 404, "no network"),
        ("DELETE", "/v1/networks/host", None, 409, "always there"),
        ("GET", "/v1/sandboxes/nowhere", None, 404, "no container"),
        ("POST", "/v1/sandboxes", {"netns": "/x", "pid": 1}, 400, "not both"),
        ("POST", "/v1/sandboxes", {"publish": ["80"]}, 400, "no network"),
        ("GET", "/v1/events?since=yesterday", None, 400, "yesterday"),
        ("GET", "/v1/events?since=nan", None, 400, "not a number of seconds"),
    ],
)
def test_a_wrong_request_is_answered_with_one_line(api, method, path, body, status, words):
    """The class, and what is wrong with it."""
    asyncio.run(networks.ensure_predefined(api.agent.core))
    answer = api(method, path, body)

    assert status == answer.status
    assert words in answer.json["message"]
    assert "\n" not in answer.json["message"]


@pytest.mark.parametrize("content", [b"not json", b"[", b"\xff", b"[]", b'"x"', b"null"])
def test_a_body_that_is_no_request(api, content):
    """Refused as such."""
    answer = api("POST", "/v1/networks", pieces=[content])

    assert 400 == answer.status
    assert "not understood" in answer.json["message"]


def test_a_body_that_is_too_large_is_read_and_refused(api):
    """However it is cut into pieces; one that just fits is taken."""
    piece = b" " * (BODY_MAX // 4)
    fits = [b'{"name":"front"}', *[piece] * 3]

    assert 200 == api("POST", "/v1/networks", pieces=fits).status
    answer = api("POST", "/v1/networks", pieces=[*fits, piece, piece])
    assert 400 == answer.status
    assert "at most" in answer.json["message"]


def test_what_is_not_json(api):
    """Metrics are Prometheus' text, events are lines."""
    assert api("GET", "/metrics").kind.startswith("text/plain")
    api.agent.core.events.add("network_created", "front", driver="bridge")
    api.agent.core.events.add("network_removed", "front")
    answer = api("GET", "/v1/events")

    assert "application/x-ndjson" == answer.kind.partition(";")[0]
    kinds = [json.loads(line)["kind"] for line in answer.body.splitlines()]
    assert ["network_created", "network_removed"] == kinds


def test_unknown_paths_and_methods(api):
    """Not found, and not allowed."""
    assert 404 == api("GET", "/v2").status
    assert 405 == api("PUT", "/v1/networks").status


def test_what_the_system_refuses_is_one_line(api, monkeypatch):
    """No descriptor or no room is an error with a message, not a crash of the request."""

    def touch(_change):
        raise OSError(errno.ENOSPC, "No space left on device", "/run/seaway/netns/x")

    monkeypatch.setattr(api.agent.core.state, "commit", touch)
    answer = api("POST", "/v1/networks", {"name": "front"})

    assert 500 == answer.status
    assert "KernelError" == answer.json["error"]
    assert (
        "POST /v1/networks: /run/seaway/netns/x: No space left on device"
        == (answer.json["message"])
    )


def test_the_document_describes_every_route():
    """Each with its method, a name of its own, its parameter and its body."""
    found = document(ROUTES)
    operations = [op for path in found["paths"].values() for op in path.values()]

    assert "3.1.0" == found["openapi"]
    assert len(ROUTES) == len(operations) == len({op["operationId"] for op in operations})
    for row in ROUTES:
        operation = found["paths"][row.path][row.method.lower()]
        assert ("{name}" in row.path) == ("parameters" in operation)
        assert (row.body is not None) == ("requestBody" in operation)
        assert row.summary == operation["summary"]


def test_the_document_has_no_loose_references():
    """Every $ref leads to a schema, every schema is an object with described fields."""
    found = document(ROUTES)
    text = json.dumps(found)
    schemas = found["components"]["schemas"]

    assert json.loads(text) == found
    for name in re.findall(r'"\$ref": "#/components/schemas/(\w+)"', text):
        assert name in schemas
    for schema in schemas.values():
        assert "object" == schema["type"]
        assert schema["properties"]
        assert schema["description"]
        assert set(schema.get("required", ())) <= schema["properties"].keys()
