"""Names for containers that were given none: two words that people can say and remember."""

from __future__ import annotations

from collections.abc import Container

from seaway.model.names import digest

_HOW_WORDS = """
    amber ample bold brave breezy bright calm clear coastal crisp deep distant eager early
    even fair fast fine foggy fresh gentle golden grand handy high keen kind late level
    light lively long loyal lucky mellow merry mild misty neat new noble north open outer
    patient plain proud quick quiet rapid ready rising safe salty sharp silent silver smooth
    snug solid south steady still strong sunny sure swift tidal trim true upper vast warm
    west wide wild windy wise
"""
_HOW = _HOW_WORDS.split()
_WHAT_WORDS = """
    anchor bay beacon berth boat bow breeze brig buoy cape captain channel cliff coast
    compass coral cove crane crew current deck delta dock dolphin estuary ferry fjord fleet
    galley gull harbor haven heron hull inlet island jetty keel kelp lagoon lantern
    lighthouse marina mast mooring navigator oar ocean otter pelican pier pilot port puffin
    quay reef rigging river rudder sail sailor schooner seal shore sloop spray strait surf
    swell tern tide trawler vessel wave wharf whistle yacht
"""
_WHAT = _WHAT_WORDS.split()


def nickname(identity: str, taken: Container[str]) -> str:
    """Return a name that is not *taken*, e.g. ``quiet-harbor``.

    Args:
        identity: Decides the words, so that the same thing is called the same.
    """
    number = 0
    while True:
        seed = digest("nickname", identity, str(number))
        how = _HOW[int.from_bytes(seed[:4]) % len(_HOW)]
        what = _WHAT[int.from_bytes(seed[4:8]) % len(_WHAT)]
        name = f"{how}-{what}" if number < len(_HOW) else f"{how}-{what}-{number}"
        if name not in taken:
            return name
        number += 1
