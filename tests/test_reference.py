"""Documentation that can be checked, is."""

import inspect
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from seaway import errors
from seaway.agent.metrics import Collector
from seaway.dns.server import Counters
from seaway.plan.ruleset import DROPS, chain_names

DOCS = Path(__file__).parents[1] / "docs"
GENERATED = runpy.run_path(str(DOCS / "generate.py"))["MADE"]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def text(path: str) -> str:
    return (DOCS / path).read_text()


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_the_generated_reference_is_up_to_date(name):
    """What docs/generate.py makes from the code is what is committed; 'make docs' mends it."""
    assert text(f"reference/{name}") == GENERATED[name](), "run 'make docs' and commit"


def test_every_error_is_explained():
    """docs/reference/errors.md has a heading for each class of seaway.errors."""
    kinds = [v.__name__ for v in vars(errors).values() if inspect.isclass(v)]

    assert [] == [k for k in kinds if f"## {k}\n" not in text("reference/errors.md")]


def test_every_metric_is_explained():
    """docs/reference/metrics.md has a heading for each name that a scrape shows."""
    source = SimpleNamespace(
        sizes=dict, drops=dict, dns_counters=Counters, repairs=lambda: (0, True)
    )
    names = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in Collector(source).collect()
    }

    assert [] == [n for n in sorted(names) if f"## {n}\n" not in text("reference/metrics.md")]


def test_every_drop_and_chain_is_explained():
    """docs/internals/nftables.md names each drop counter and each chain of the table."""
    words = [*DROPS, *chain_names()]

    assert [] == [w for w in words if f"`{w}`" not in text("internals/nftables.md")]


def test_links_between_documents_lead_somewhere():
    """Every relative link in a document of ours is to a file that exists."""
    root = DOCS.parent
    pages = [*root.glob("*.md"), *DOCS.rglob("*.md")]
    links = [(page, target) for page in pages for target in LINK.findall(page.read_text())]

    assert [] == [
        f"{page.relative_to(root)}: {target}"
        for page, target in links
        if "://" not in target and not (page.parent / target).exists()
    ]
