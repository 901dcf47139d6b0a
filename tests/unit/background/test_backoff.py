import pytest

from gateway.background.backoff import early_deaths, restart_delay_s


@pytest.mark.parametrize(
    ("deaths", "delay_s"),
    [
        (0, 0),
        (1, 0),
        (2, 0.5),
        (3, 1),
        (4, 2),
        (5, 4),
        (6, 8),
        (7, 16),
        (8, 30),
        (9, 30),
        (5000, 30),
    ],
)
def test_delays(deaths: int, delay_s: float) -> None:
    """The first restart is immediate; then the delay doubles up to half a minute."""
    assert restart_delay_s(deaths) == delay_s


def test_a_long_life_forgives() -> None:
    """Only deaths of young servers in a row count."""
    assert early_deaths(3, lived_s=1.9) == 4
    assert early_deaths(3, lived_s=2) == 0
