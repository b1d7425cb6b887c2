"""A reboot takes every namespace, and an agent's start brings ours back."""

from __future__ import annotations

import os

import pytest

from seaway.errors import Conflict
from seaway.kernel import netns
from tests.support.agent import agent_on
from tests.support.netns import namespaces


def test_a_namespace_made_anew_is_attached_once():
    """It is known to be some container's, as it was before."""
    with namespaces("host") as (host,), agent_on(host) as agent:
        body = {"networks": [{"network": "bridge"}], "creator": os.getpid()}
        made = agent.post("sandboxes", {"name": "web"} | body)
        agent.kill()
        netns.remove(made["netns"])
        agent.start()

        assert netns.exists(made["netns"])
        with pytest.raises(Conflict, match="attached already, as 'web'"):
            agent.post("sandboxes", {"name": "db", "netns": made["netns"], "networks": []})
