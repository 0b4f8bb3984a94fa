"""The population is seeded, plausible and consistent with itself."""

from __future__ import annotations

import numpy as np
import pytest

from app.domain.pix_keys import deduce_key_type, is_tax_id
from ops.traffic.population import Population

START_MS = 1_790_000_000_000
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def population() -> Population:
    """Return a town."""
    return Population(5, START_MS, people=4_000, companies=300)


def test_the_same_seed_gives_the_same_people(population: Population) -> None:
    """Two populations of one seed agree, one of another seed does not."""
    again, other = Population(5, START_MS, 4_000, 300), Population(6, START_MS, 4_000, 300)
    assert np.array_equal(population.document, again.document)
    assert np.array_equal(population.friends, again.friends)
    assert not np.array_equal(population.document, other.document)


def test_identities_are_valid_and_distinct(population: Population) -> None:
    """Documents pass their check digits, keys have the form of their type, nobody shares an account."""
    entities = range(population.size)
    documents = [population.tax_id(entity) for entity in entities]
    assert all(is_tax_id(document) for document in documents)
    assert all(deduce_key_type(population.key_of(entity)) == population.key_type_of(entity) for entity in entities)
    for identifiers in (documents, [population.account(each) for each in entities], map(population.key_of, entities)):
        assert len(set(identifiers)) == population.size
    assert any(not document.isdigit() for document in documents)


def test_keys_are_no_older_than_their_accounts_and_pix(population: Population) -> None:
    """An owner holds a key since its creation at the earliest, and created it when the account existed."""
    assert (population.key_owned_since >= population.key_created_at).all()
    assert (population.key_created_at >= population.account_opened_at - 1).all()
    assert (population.key_created_at >= 1_604_361_600_000).all()
    assert (population.key_created_at <= START_MS).all()


def test_activity_is_concentrated(population: Population) -> None:
    """A tenth of the companies makes more than a third of the payments, as a power law does."""
    shares = np.sort(population.company_activity)[::-1]
    assert shares[: population.companies // 10].sum() > 1 / 3
    assert shares.sum() == pytest.approx(1.0)


def test_few_honest_receivers_are_under_report() -> None:
    """Weighed by what they receive, less than a tenth; of people, about one in a thousand; of crooks, one in five."""
    population = Population(5, START_MS, people=60_000, companies=3_000)
    crooks = np.isin(np.arange(population.size), list(population.crooks))
    reported = population.open_reports > 0
    is_person = np.arange(population.size) < population.people
    assert 0.0001 < reported[~crooks & is_person].mean() < 0.002
    # A busy company has some open at any time; what counts is their share of what it settles.
    assert (population.open_reports > population.settlements_per_day * 0.9)[~crooks].mean() < 0.002
    assert 0.1 < reported[crooks].mean() < 0.4


def test_a_young_company_is_small_and_a_false_one_young() -> None:
    """Trade grows over the first year, and a shop that defrauds is burnt within weeks and has no trade of its own."""
    population = Population(5, START_MS, people=60_000, companies=3_000)
    age_days = (START_MS - population.account_opened_at[population.people :]) / DAY_MS
    activity = population.company_activity
    assert activity[age_days < 30].mean() < 0.2 * activity[age_days > 365].mean()
    shops = population.fake_shops - population.people
    assert activity[shops].max() < np.median(activity)
    assert (age_days[shops] < 90).mean() > 0.6
    assert (age_days < 90).mean() < 0.2


def test_counterparties_are_of_the_right_kind(population: Population) -> None:
    """Friends and staff are people, shops and suppliers companies, and nobody is their own."""
    assert (population.friends < population.people).all()
    assert (population.staff < population.people).all()
    assert (population.shops >= population.people).all()
    assert (population.suppliers >= population.people).all()
    own = population.people + np.arange(population.companies)[:, None]
    assert not (population.suppliers == own).any()


def test_crooks_are_not_told_by_one_attribute() -> None:
    """Mules have young accounts and markers more often than others, but most have neither."""
    population = Population(5, START_MS, people=60_000, companies=600)
    mules = population.mules
    young = population.account_opened_at > START_MS - 60 * DAY_MS
    assert young[: population.people].mean() < young[mules].mean() < 0.6
    assert population.markers[: population.people].mean() < population.markers[mules].mean() < 0.5


def test_a_population_too_small_for_a_cast_is_refused() -> None:
    """The error says what was expected and what came."""
    with pytest.raises(ValueError, match="at least 50 people and 10 companies, got 3 and 10"):
        Population(1, START_MS, 3, 10)
