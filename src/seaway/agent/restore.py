"""Take up what was there before the agent started."""

from __future__ import annotations

from dataclasses import replace

import structlog

from seaway.agent.core import Core, serves
from seaway.agent.state import Change
from seaway.errors import SeawayError
from seaway.model.sandbox import Sandbox

log = structlog.get_logger()


async def restore(core: Core) -> None:
    """Bind the published ports again.

    A port that somebody took while the agent was away is reported by status()
    and withdrawn, so that packets for it go to whoever has it now.
    """
    for sandbox in list(core.state.sandboxes.values()):
        if serves(sandbox) and sandbox.asked:
            await _bind(core, sandbox)


async def _bind(core: Core, sandbox: Sandbox) -> None:
    try:
        before = sandbox.published or sandbox.earlier
        published = core.bindings.bind(sandbox.id, sandbox.name, sandbox.asked, before)
        core.failures.pop(sandbox.id, None)
    except SeawayError as err:
        core.failures[sandbox.id] = str(err)
        log.warning("port_lost", sandbox=sandbox.name, error=str(err))
        published = ()
    if published != sandbox.published:
        earlier = sandbox.published or sandbox.earlier
        changed = replace(sandbox, published=published, earlier=earlier)
        await core.state.commit(Change(put=[changed]))
