from infra.config import StackConfig
from infra.prices import estimate


def test_lines_add_up():
    config = StackConfig(stack="dev", size="s-2vcpu-4gb", volume_gib=50, bucket=True)
    assert estimate(config).usd_month == 24 + 50 * 0.10 + 5


def test_prices_of_the_configuration_win():
    config = StackConfig(stack="dev", volume_gib=10, prices={"s-4vcpu-8gb": 1.0, "volume-gib": 2.0})
    assert estimate(config).usd_month == 21


def test_size_without_a_price_is_named_and_not_counted():
    price = estimate(StackConfig(stack="dev", size="new-1", volume_gib=10))
    assert price.unknown == ("droplet new-1",)
    assert "no price known for droplet new-1" in str(price)
    assert price.usd_month == 1


def test_live_prices_win_over_the_table_and_those_of_the_configuration_over_both():
    config = StackConfig(stack="dev", size="s-2vcpu-4gb", volume_gib=10)
    price = estimate(config, live={"s-2vcpu-4gb": 30.0})
    assert price.usd_month == 31
    assert "s-2vcpu-4gb by the live API, else list prices of" in str(price)
    own = StackConfig(stack="dev", size="s-2vcpu-4gb", volume_gib=10, prices={"s-2vcpu-4gb": 2.0})
    assert estimate(own, live={"s-2vcpu-4gb": 30.0}).usd_month == 3
    assert "live API" not in str(estimate(own, live={"s-2vcpu-4gb": 30.0}))
