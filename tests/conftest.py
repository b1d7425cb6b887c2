"""What holds for all tests: the marker needs_kernel, and that nothing is skipped in the VM."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support import kernel


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    about = "needs_kernel(*kinds): skip where the kernel lacks one of these kinds of links"
    config.addinivalue_line("markers", about)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that this kernel cannot run."""
    kinds = {str(kind) for mark in item.iter_markers("needs_kernel") for kind in mark.args}
    if missing := sorted(kind for kind in kinds if not kernel.has_link(kind)):
        pytest.skip(f"this kernel has no {', '.join(missing)}; make test-vm has")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In the VM a skipped test has failed: what it is for is not tested there either."""
    report = yield
    if kernel.IN_THE_VM and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"not to be skipped in the VM: {call.excinfo and call.excinfo.value}"
    return report
