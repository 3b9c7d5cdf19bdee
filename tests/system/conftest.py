"""Run the longest files first, so that two workers finish at nearly the same time.

A worker is given its next file while two tests of the one before are left, so the files at the end
must be short. The second file needs the engine and no guest: where nothing is cached, one worker
builds the engine while the other builds what the guests boot.
"""

import pytest

LONG = (
    *("test_operations", "test_engine", "test_sequence", "test_service", "test_recover"),
    *("test_mishaps", "test_kills", "test_boot", "test_delivery", "test_boot_options"),
    *("test_readme_deploy", "test_readme", "test_guest", "test_browser"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; tests of one file stay together and in order."""
    rank = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))
