"""The longest come first: two workers then end at nearly the same time."""

import pytest

LONG = ("test_operations", "test_sequence", "test_mishaps", "test_kills", "test_readme_deploy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; tests of one file stay together and in their order."""
    rank = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))
