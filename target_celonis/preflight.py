"""What can be known before the first line is read: that the key, the pool and what is in it fit.

Hides how a kind of key and a path prefix are found out by asking. Guarantees: a run that passes has
a ``Celonis`` that it may push through; one that does not fails with an ``AccessError`` or a
``RemoteError`` before anything was read or written. Must not know: streams and tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from target_celonis import limits
from target_celonis.auth import KeyAuth, OAuth, candidates
from target_celonis.celonis import Celonis, push_jobs_path
from target_celonis.errors import AccessError
from target_celonis.http import Http, Signature, expect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from target_celonis.clock import Clock
    from target_celonis.config import Config, Secret


@dataclass(frozen=True)
class Check:
    """One thing that was looked at and found good.

    Attributes:
        name: What.
        found: How it stands.
    """

    name: str
    found: str


def preflight(
    http: Http, config: Config, key: Secret | None, clock: Clock, checks: list[Check]
) -> Celonis:
    """Find out how to speak to the pool, and whether the key may push into it.

    Args:
        http: Unsigned; signed here.
        config: Settings.
        key: The key; None to log in by OAuth.
        clock: For the age of tokens.
        checks: Takes what was looked at and found good, also when something else is not.

    Returns:
        The pool.

    Raises:
        AccessError: The key is refused, or the pool or the connection is unknown to it.
        RemoteError: Nothing answers, or not as Celonis does.
        SettingsError: A table is named that its data model has not.
    """
    signature, prefix = _find_way_in(http, config, _signatures(http, config, key, clock))
    celonis = Celonis(http, config.data_pool_id, config.connection_id, prefix)
    checks += [
        Check("Celonis answers", http.base_url),
        Check("log-in is accepted", f"as {signature.kind}"),
        Check("data pool can be pushed into", f"{config.data_pool_id}, under {prefix}"),
        Check("push jobs in the data pool", str(len(celonis.list_jobs()))),
    ]
    if config.connection_id is not None:
        checks.append(_check_connection(celonis, config.connection_id))
    check_publishing(celonis, config, checks)
    return celonis


def preflight_to_publish(
    http: Http, config: Config, key: Secret | None, clock: Clock, checks: list[Check]
) -> Celonis:
    """Find out how to speak to the pool, and whether the key may see what is to be published.

    Arguments and faults are those of ``preflight``; the key need not be able to push.
    """
    from target_celonis.publishing_api import Publishing

    api = Publishing(http, config.data_pool_id)
    job_id = next((rule.id for rule in config.data_jobs), None)
    model_id = next((rule.id for rule in config.data_models), None)
    accepted: Signature | None = None
    for signature in _signatures(http, config, key, clock):
        http.authorize(signature)
        status = api.probe(job_id, model_id).status
        if status == HTTPStatus.UNAUTHORIZED:
            continue
        if accepted is None or status != HTTPStatus.FORBIDDEN:
            accepted = signature
        if status != HTTPStatus.FORBIDDEN:
            break
    if accepted is None:
        raise _no_way_in([HTTPStatus.UNAUTHORIZED], config, lacks_scope=False)
    http.authorize(accepted)
    checks += [
        Check("Celonis answers", http.base_url),
        Check("log-in is accepted", f"as {accepted.kind}"),
    ]
    prefix = _prefix(http, config)
    celonis = Celonis(http, config.data_pool_id, config.connection_id, prefix)
    check_publishing(celonis, config, checks)
    return celonis


def _prefix(http: Http, config: Config) -> str:
    """Return the prefix under which there are push jobs, whether the key may list them or not."""
    if config.data_push_prefix is not None:
        return config.data_push_prefix
    for prefix in limits.DATA_PUSH_PREFIXES:
        answer = http.get(push_jobs_path(prefix, config.data_pool_id))
        if answer.status != HTTPStatus.NOT_FOUND:
            return prefix
    return limits.DATA_PUSH_PREFIXES[0]


def check_publishing(celonis: Celonis, config: Config, checks: list[Check]) -> None:
    """Look at the data jobs and data models that are configured.

    Raises:
        AccessError: One is unknown, or the key may not look at it.
        SettingsError: A table is named that its data model has not.
    """
    if not config.publishes:
        return
    from target_celonis.publish_plan import named_tables  # many runs only load
    from target_celonis.publishing_api import Publishing

    api = Publishing(celonis.http, celonis.pool_id)
    for job_rule in config.data_jobs:
        job = api.get_data_job(job_rule.id)
        checks.append(Check("data job", f"{job.name}, mode {job_rule.mode}, {_stands(job.status)}"))
    for rule in config.data_models:
        model = api.get_model(rule.id)
        named_tables(rule, model)
        status = api.load_info(rule.id).status
        found = f"{model.name}, {len(model.tables)} tables, reload {rule.reload}, {_stands(status)}"
        checks.append(Check("data model", found))


def _stands(status: str | None) -> str:
    return "never run" if status is None else f"last run {status}"


def _signatures(http: Http, config: Config, key: Secret | None, clock: Clock) -> list[Signature]:
    """Return the ways to log in that may be the right one."""
    if key is not None:
        method = "auto" if config.embedded else config.auth_method  # its key is none of the user's
        return [KeyAuth(m, key, http.base_url) for m in candidates(method)]
    return [] if config.oauth is None else [OAuth(config.oauth, http, clock)]


def _find_way_in(
    http: Http, config: Config, signatures: Sequence[Signature]
) -> tuple[Signature, str]:
    """Return the first signature and prefix under which the pool's push jobs can be listed.

    A 401 or 403 asks for the other kind of key, a 404 for the other prefix; whatever else comes
    is final.
    """
    given = config.data_push_prefix
    prefixes = limits.DATA_PUSH_PREFIXES if given is None else (given,)
    statuses: list[int] = []
    for signature in signatures:
        http.authorize(signature)
        for prefix in prefixes:
            answer = http.get(push_jobs_path(prefix, config.data_pool_id))
            if answer.ok:
                return signature, prefix
            statuses.append(answer.status)
            if answer.status not in (
                HTTPStatus.UNAUTHORIZED,
                HTTPStatus.FORBIDDEN,
                HTTPStatus.NOT_FOUND,
            ):
                expect(answer, "list the push jobs of the data pool")
            if answer.status != HTTPStatus.NOT_FOUND:
                break
    raise _no_way_in(statuses, config, lacks_scope=any(s.lacks_scope() for s in signatures))


def _no_way_in(statuses: Sequence[int], config: Config, *, lacks_scope: bool) -> AccessError:
    if lacks_scope:
        return AccessError(
            "TC-ACCESS-04",
            "The token of the OAuth client has no scope that lets it push.",
            "Ask for `integration.data-pools` or `integration.data-pools:data_push` in "
            "`oauth_scope`, and give the client that scope in Celonis.",
        )
    if all(status == HTTPStatus.UNAUTHORIZED for status in statuses):
        return AccessError(
            "TC-ACCESS-01",
            "Celonis does not accept the key (status 401).",
            "Check `api_key`, and that `base_url` is the team it was made in.",
        )
    said = sorted({str(status) for status in statuses if status != HTTPStatus.UNAUTHORIZED})
    return AccessError(
        "TC-ACCESS-02",
        f"The data pool {config.data_pool_id} does not exist, or the key may not push into it "
        f"(status {', '.join(said)}).",
        "Check `data_pool_id`, and give the key the permission Data Push API on the data pool.",
    )


def _check_connection(celonis: Celonis, connection_id: str) -> Check:
    answer = celonis.get_connection(connection_id)
    if answer.status == HTTPStatus.FORBIDDEN:
        return Check("data connection", f"{connection_id}, which the key may not look at")
    if answer.status == HTTPStatus.NOT_FOUND:
        raise AccessError(
            "TC-ACCESS-03",
            f"The data connection {connection_id} does not exist in data pool {celonis.pool_id}.",
            "Check `connection_id`, or leave it out to push into the pool's global schema.",
        )
    expect(answer, "show the data connection")
    return Check("data connection", connection_id)
