import pytest

from dataset_rules.rules.rules import Rules
from tests.goldens import assert_golden


@pytest.mark.golden
def test_published_schema_of_the_rules() -> None:
    assert_golden("rules.schema.json", Rules.model_json_schema(by_alias=True))
