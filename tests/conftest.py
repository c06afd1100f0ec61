"""Fixtures shared by the tests against a real broker."""

import pathlib
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import harness  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def binary():
    harness.require_binary()
    yield
    for broker in harness.Broker.made:
        if broker.running():
            broker.kill()


@pytest.fixture
def place(request):
    """A directory of the test's own; kept, and named, when the test fails."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="sluice-test-"))
    yield directory
    failed = getattr(request.node, "failed", False)
    if failed:
        print(f"kept for inspection: {directory}")
    else:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        item.failed = True


@pytest.fixture
def broker(place):
    """A broker on defaults, ready."""
    one = harness.Broker(place, settings=["group.initial.rebalance.delay.ms=0"])
    one.start()
    yield one
    if one.running():
        one.kill()


@pytest.fixture(scope="session")
def minio():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="sluice-minio-"))
    server = harness.Minio(directory / "drive")
    yield server
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)
