"""Certificates whose time is over."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from seaway.agent.member import MemberFolder
from seaway.cluster.credentials import write_file
from seaway.cluster.pki import Holder
from tests.support.site import Site


def expire(site: Site, *, by: Site | None = None) -> None:
    """Let a host whose agent does not run have a certificate of two days ago.

    Args:
        by: A host that has the authority's key, if this one has not.
    """
    folder = MemberFolder(site.machine.state_dir)
    authority = MemberFolder((by or site).machine.state_dir).credentials.authority()
    member = folder.load()
    assert member is not None
    holder = Holder(id=member.host, name=member.name, addresses=(site.machine.v4.ip,))
    request = folder.credentials.request(member.name)
    then = datetime.now(UTC) - timedelta(days=2)
    write_file(folder.credentials.certificate, authority.sign(request, holder, now=then))
    assert folder.credentials.validity().ends < time.time()
