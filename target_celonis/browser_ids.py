"""Ids that are given as the address the browser shows.

Hides what these addresses look like. Guarantees: a text without a slash is an id already; of an
address, the id that it names is returned, and never that of something else. Must not know: the
settings, and what an id is for.

Such addresses are ``/integration/ui/pools/POOL``, and behind that
``/data-configuration/process-data-models/MODEL`` and ``/data-configuration/data-jobs?jobId=JOB``.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from target_celonis.errors import SettingsError


@dataclass(frozen=True)
class Page:
    """A kind of thing that the browser shows.

    Attributes:
        name: What it is called.
        folders: Parts of a path, each followed by the id.
        parameters: Or parameters of the address that hold it.
    """

    name: str
    folders: tuple[str, ...]
    parameters: tuple[str, ...] = ()


POOL = Page("data pool", ("pools", "data-pools"))
DATA_MODEL = Page(
    "data model", ("process-data-models", "data-models", "data-model"), ("dataModelId", "modelId")
)
DATA_JOB = Page("data job", ("data-jobs", "jobs"), ("jobId", "dataJobId"))


def id_of(text: str, page: Page, where: str) -> str:
    """Return the id out of an id or an address.

    Args:
        text: Either.
        page: What the id is of.
        where: What an error calls the place, at the beginning of a sentence.

    Raises:
        SettingsError: It is an address without such an id.
    """
    text = text.strip()
    found = text if "/" not in text else _in_address(text, page)
    if found:
        return found
    raise SettingsError(
        "TC-SETTINGS-03",
        f"{where} holds an address without a {page.name}'s id.",
        f"Open the {page.name} in Celonis and copy the address, or the id that stands in it.",
    )


def pool_of(text: str) -> str | None:
    """Return the id of the data pool that an address names; None where it names none."""
    return _in_address(text.strip(), POOL) if "/" in text else None


def _in_address(address: str, page: Page) -> str | None:
    parts = urlsplit(address if "://" in address else f"https://{address}")
    # Some pages keep their place behind the #, which a browser does not send.
    for path, query in ((parts.path, parts.query), _split_fragment(parts.fragment)):
        folders = [unquote(part) for part in path.split("/") if part]
        for folder, following in itertools.pairwise(folders):
            if folder in page.folders:
                return following
        values = parse_qs(query)
        for parameter in page.parameters:
            if parameter in values:
                return values[parameter][0]
    return None


def _split_fragment(fragment: str) -> tuple[str, str]:
    path, _, query = fragment.partition("?")
    return path, query
