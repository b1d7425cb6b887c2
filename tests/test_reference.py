"""The generated part of docs/reference is what the code says today."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
GENERATED = runpy.run_path(str(DOCS / "generate.py"))["MADE"]


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_the_generated_reference_is_up_to_date(name):
    """What docs/generate.py makes from the code is what is committed; 'make docs' mends it."""
    committed = (DOCS / "reference" / name).read_text()

    assert committed == GENERATED[name](), "run 'make docs' and commit"
