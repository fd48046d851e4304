"""`data_jobs` and `data_models` in a configuration."""

from __future__ import annotations

from typing import Any

import pytest

from target_celonis.browser_ids import DATA_JOB, DATA_MODEL, POOL, Page, id_of, pool_of
from target_celonis.config import parse
from target_celonis.errors import SettingsError
from target_celonis.publish_rules import DataJobRule, DataModelRule, JobMode, Reload

TEAM = "https://team.eu-1.celonis.cloud"
IN_POOL = f"{TEAM}/integration/ui/pools/pool-1"
MODEL_PAGE = f"{IN_POOL}/data-configuration/process-data-models/model-1?tab=data-model"
JOB_PAGE = f"{IN_POOL}/data-configuration/data-jobs?jobId=job-1&tab=tasks"


def config(**settings: Any) -> Any:
    remote = {"base_url": TEAM, "data_pool_id": "pool-1", "api_key": "key"}
    return parse(remote | settings, {})


def refused(**settings: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        config(**settings)
    return caught.value


@pytest.mark.parametrize(
    ("address", "page", "found"),
    [
        ("model-1", DATA_MODEL, "model-1"),
        (" model-1\n", DATA_MODEL, "model-1"),
        (MODEL_PAGE, DATA_MODEL, "model-1"),
        (MODEL_PAGE, POOL, "pool-1"),
        (MODEL_PAGE.removeprefix("https://"), DATA_MODEL, "model-1"),
        (f"{IN_POOL}/data-models/model-1", DATA_MODEL, "model-1"),
        (f"{TEAM}/integration/ui/#/pools/pool-1/data-models/m%C3%BC", DATA_MODEL, "mü"),
        (f"{TEAM}/integration/ui/#/pools/pool-1?dataModelId=m", DATA_MODEL, "m"),
        (JOB_PAGE, DATA_JOB, "job-1"),
        (JOB_PAGE, POOL, "pool-1"),
        (f"{IN_POOL}/data-configuration/data-jobs/job-1", DATA_JOB, "job-1"),
        (f"{IN_POOL}/data-configuration/data-jobs/job-1/?tab=tasks", DATA_JOB, "job-1"),
        (MODEL_PAGE, DATA_JOB, None),
        (JOB_PAGE, DATA_MODEL, None),
        (f"{IN_POOL}/data-configuration/data-jobs", DATA_JOB, None),
        (f"{TEAM}/", POOL, None),
        ("", DATA_MODEL, None),
    ],
)
def test_ids_out_of_addresses(address: str, page: Page, found: str | None) -> None:
    if found is not None:
        assert id_of(address, page, "It") == found
    else:
        with pytest.raises(SettingsError, match=f"It holds an address without a {page.name}'s id"):
            id_of(address, page, "It")


def test_the_pool_of_an_address() -> None:
    assert pool_of(JOB_PAGE) == "pool-1"
    assert pool_of("pool-1") is None
    assert pool_of(f"{TEAM}/x") is None


def test_what_entries_become() -> None:
    made = config(
        data_jobs=[{"id": "a"}, {"id": JOB_PAGE, "mode": "FULL"}, {"id": "a", "mode": None}],
        data_models=[
            {"id": MODEL_PAGE},
            {"id": "b", "reload": "complete"},
            {"id": "c", "reload": "partial", "tables": ["T"]},
        ],
    )
    assert made.data_jobs == (
        DataJobRule("a", JobMode.DELTA),
        DataJobRule("job-1", JobMode.FULL),
        DataJobRule("a", JobMode.DELTA),
    )
    assert made.data_models == (
        DataModelRule("model-1", Reload.AUTO),
        DataModelRule("b", Reload.COMPLETE),
        DataModelRule("c", Reload.PARTIAL, ("T",)),
    )
    assert made.publishes
    assert config(data_models=[{"id": "a"}]).publishes
    assert not config().publishes


@pytest.mark.parametrize(
    ("settings", "code", "part"),
    [
        ({"data_jobs": ["a"]}, "03", "`data_jobs[0]` must be an object with an `id`"),
        ({"data_jobs": [{"id": "a"}, {}]}, "03", "`data_jobs[1]` must be"),
        ({"data_jobs": [{"id": 7}]}, "03", "`data_jobs[0]` must be"),
        ({"data_jobs": [{"id": " "}]}, "03", "`id` in `data_jobs[0]` must be a text"),
        ({"data_jobs": [{"id": "a", "mod": "FULL"}]}, "02", "Did you mean `mode`?"),
        ({"data_jobs": [{"id": "a", "mode": "full"}]}, "03", "one of `FULL`, `DELTA`"),
        ({"data_jobs": [{"id": MODEL_PAGE}]}, "03", "without a data job's id"),
        ({"data_models": [{"id": JOB_PAGE}]}, "03", "without a data model's id"),
        ({"data_models": [{"id": "a", "table": []}]}, "02", "Did you mean `tables`?"),
        ({"data_models": [{"id": "a", "reload": "all"}]}, "03", "`auto`, `partial`, `complete`"),
        ({"data_models": [{"id": "a", "tables": "T"}]}, "03", "must be a list of names"),
        ({"data_models": [{"id": "a", "tables": ["T"]}]}, "03", "Set `reload` to `partial`"),
        ({"data_models": [{"id": "a"}, {"id": "a"}]}, "03", "named already"),
        (
            {"data_pool_id": "other", "data_models": [{"id": MODEL_PAGE}]},
            "03",
            "of the data pool pool-1, and `data_pool_id` is other",
        ),
        ({"publish_on": "never"}, "03", "one of `changes`, `always`"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], code: str, part: str) -> None:
    error = refused(**settings)
    assert error.code == f"TC-SETTINGS-{code}"
    assert part in str(error)


def test_the_pool_may_be_given_as_the_address_of_what_is_in_it() -> None:
    assert (
        config(data_pool_id=MODEL_PAGE, data_models=[{"id": MODEL_PAGE}]).data_pool_id == "pool-1"
    )
