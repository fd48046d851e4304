"""Requests to Celonis that end in one of three ways: done, refused, or not known.

Hides the session, connection pooling, retries and their waits. Guarantees: GET and DELETE are
repeated, a POST only after 429 or when the connection was never made; a body is rewound first; a
POST whose answer was lost, or is a web page of something in between, raises
``OutcomeUnknownError``; redirects are not followed, so that the key reaches no other host; cookies
are not kept; what is waited for is logged once for each path and reason, and counted. Must not
know: which paths there are, or what a body means.
"""

from __future__ import annotations

import errno
import logging
import ssl
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self
from urllib.parse import urlsplit

import backoff
import requests
import urllib3.exceptions

from target_celonis import limits
from target_celonis.answers import Answer, read_answer
from target_celonis.clock import Clock, StoppedError
from target_celonis.config import is_loopback
from target_celonis.errors import AccessError, OutcomeUnknownError, RemoteError
from target_celonis.patience import NotConnectedError, PatientAdapter, causes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from target_celonis.config import Secret
    from target_celonis.multipart import FilePart
    from target_celonis.waits import Waits

logger = logging.getLogger("target-celonis")

_SECONDS_OF_HOUR = 3600.0
_NETWORK = "network"
_RATE_LIMIT = "rate limit (429)"
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)


class _Session(requests.Session):
    """A session that does not look at redirects; it would read their bodies without bounds."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """There is none."""


class Signature(Protocol):
    """Signs requests."""

    @property
    def kind(self) -> str:
        """What the log calls it."""
        ...

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the header."""
        ...

    def renew(self) -> bool:
        """Prepare for another try after a 401; return whether that makes sense."""
        ...

    def lacks_scope(self) -> bool:
        """Return whether it is known that pushing is outside of what was granted."""
        ...


class Http:
    """A session with one Celonis team.

    Args:
        base_url: Scheme and host.
        clock: For the waits between tries.
        parallel: Connections that are kept open.
        ca_bundle: Certificate authorities to trust; None for the usual ones.
        proxy: Proxy for all requests; None for what the environment says.
        waits: Takes the pauses between tries.
    """

    def __init__(
        self,
        base_url: str,
        clock: Clock,
        parallel: int,
        ca_bundle: Path | None = None,
        proxy: Secret | None = None,
        *,
        waits: Waits | None = None,
    ) -> None:
        self.base_url = base_url
        self._clock = clock
        self._waits = waits
        self._session = _Session()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers["User-Agent"] = "target-celonis"
        self._session.headers["Accept-Encoding"] = "identity"  # what is small stays what it is
        if proxy is not None:
            self._session.trust_env = False  # a proxy that is named goes before the environment
            self._session.proxies = {"http": proxy.reveal(), "https": proxy.reveal()}
        elif is_loopback(urlsplit(base_url).hostname or ""):
            self._session.trust_env = False  # no proxy stands between this machine and itself
        self._verify = True if ca_bundle is None else str(ca_bundle)
        self._signature: Signature | None = None
        adapter = PatientAdapter(pool_connections=2, pool_maxsize=parallel + 4)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)
        self._said: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Return the session, to be closed behind."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self._session.close()

    def authorize(self, signature: Signature) -> None:
        """Sign every request from now on; also keeps ``.netrc`` from doing so."""
        self._signature = signature

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        """GET, repeated as need be; any other answer is returned, good or not."""
        return self._send(_Request("GET", path, params, repeatable=True))

    def delete(self, path: str) -> Answer:
        """DELETE, repeated as need be; any other answer is returned, good or not."""
        return self._send(_Request("DELETE", path, repeatable=True))

    def post(
        self,
        path: str,
        *,
        json: Any = None,
        file: FilePart | None = None,
        retry_rate_limit: bool = True,
    ) -> Answer:
        """POST, repeated only where it surely was not done.

        Args:
            path: Path on the host.
            json: Body as JSON.
            file: Or a file.
            retry_rate_limit: Whether to wait after 429; else that answer is returned.

        Raises:
            OutcomeUnknownError: The request was sent and no usable answer came.
        """
        return self._send(
            _Request("POST", path, json=json, file=file, retry_rate_limit=retry_rate_limit)
        )

    def post_form(
        self, path: str, form: Mapping[str, str], basic: tuple[str, str] | None
    ) -> Answer:
        """POST a form that may be sent any number of times, signed by ``basic`` or not at all."""
        return self._send(_Request("POST", path, form=form, basic=basic, repeatable=True))

    def _send(self, request: _Request) -> Answer:
        """Send until there is an answer to return."""
        attempts = _Attempts(request, self._clock)
        renewed = request.form is not None
        while True:
            try:
                answer = self._once(request)
            except requests.RequestException as error:
                retry = attempts.after_no_answer(error)
                if retry is None:
                    raise self._unreachable(error) from None
            else:
                if answer.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
                    raise _proxy_refuses(answer.status)
                if not renewed and self._renews(answer):
                    renewed = True
                    continue
                retry = attempts.after_answer(answer)
                if retry is None:
                    if answer.ok and answer.is_page:
                        raise _page(self.base_url)
                    return answer
            self._say(request, retry)
            self._pause(request, retry)

    def _pause(self, request: _Request, retry: _Retry) -> None:
        """Wait, or give up on a request when the run is to stop; but what is to go, goes."""
        began = self._clock.monotonic()
        try:
            if self._clock.wait(retry.pause_seconds):
                if request.method != "DELETE":
                    raise StoppedError
                self._clock.sleep(min(retry.pause_seconds, 1.0))
        finally:
            if self._waits is not None:
                self._waits.add(retry.cause, self._clock.monotonic() - began)

    def _renews(self, answer: Answer) -> bool:
        """Return whether another signature may help; a 401 came before anything was done."""
        unauthorized = answer.status == HTTPStatus.UNAUTHORIZED
        return unauthorized and self._signature is not None and self._signature.renew()

    def _once(self, request: _Request) -> Answer:
        """Send once."""
        body = request.file.open(self._clock) if request.file else None
        headers = {"Content-Type": request.file.content_type} if request.file else {}
        try:
            with self._session.request(
                request.method,
                self.base_url + request.path,
                params=request.params,
                data=body or request.form,
                auth=self._signature_of(request),
                verify=self._verify,
                json=request.json,
                headers=headers,
                timeout=(limits.CONNECT_TIMEOUT_SECONDS, limits.READ_TIMEOUT_SECONDS),
                allow_redirects=False,
                stream=True,
            ) as response:
                pieces = response.raw.stream(1 << 16, decode_content=False)
                now = self._clock.now()
                return read_answer(response.status_code, response.headers, pieces, now)
        except urllib3.exceptions.HTTPError as error:  # from the body
            raise requests.ConnectionError(error) from error
        finally:
            if body:
                body.close()

    def _signature_of(self, request: _Request) -> Any:
        if request.form is None:
            return self._signature
        return request.basic or _unsigned

    def _say(self, request: _Request, retry: _Retry) -> None:
        """Log a wait: for one path and reason as a warning once, then for the curious."""
        with self._lock:
            key = (str(request), retry.reason)
            said = key in self._said
            self._said.add(key)
        logger.log(
            logging.DEBUG if said else logging.WARNING,
            "%s: %s, trying again in %.1f s.",
            str(request),
            retry.reason,
            retry.pause_seconds,
        )

    def _unreachable(self, error: requests.RequestException) -> RemoteError:
        found = list(causes(error))
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in found):
            return RemoteError(
                "TC-REMOTE-01",
                f"The certificate of {self.base_url} cannot be verified.",
                "If your network has a certificate authority of its own, name its file as "
                "`ca_bundle`.",
            )
        if any(isinstance(cause, OSError) and cause.errno in _TOO_MANY_FILES for cause in found):
            return RemoteError(
                "TC-REMOTE-01",
                f"Too many files are open on this machine to connect to {self.base_url}.",
                "Raise the limit of open files (`ulimit -n`), or end what holds so many.",
            )
        for cause in found:
            if isinstance(cause, NotConnectedError) and cause.by_proxy:
                return _proxy_refuses(cause.tunnel_status)
        return RemoteError(
            "TC-REMOTE-01",
            f"Nothing answers at {self.base_url} after {limits.RETRY_TRIES} tries.",
            "Check `base_url`, the network and its proxy.",
        )


@dataclass(frozen=True)
class _Request:
    """One request, ready to be sent any number of times."""

    method: str
    path: str
    params: Mapping[str, str] | None = None
    json: Any = None
    file: FilePart | None = None
    form: Mapping[str, str] | None = field(default=None, repr=False)  # may hold a secret
    basic: tuple[str, str] | None = field(default=None, repr=False)
    retry_rate_limit: bool = True
    repeatable: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def _unsigned(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leave a request as it is; given instead of nothing, so that ``.netrc`` is not looked at."""
    return request


class _Retry(NamedTuple):
    """Another try: after what pause, why, and how the report names what is waited for."""

    pause_seconds: float
    reason: str
    cause: str = _NETWORK


class _Attempts:
    """Says after each try of a request whether to try again, when, and why.

    Args:
        request: The request.
        clock: For the time until the next full hour.
    """

    def __init__(self, request: _Request, clock: Clock) -> None:
        self._request = request
        self._clock = clock
        self._pauses = backoff.expo(base=2, factor=0.5, max_value=limits.RETRY_LONGEST_SECONDS)
        next(self._pauses)  # the generator yields nothing of use first
        self._tries = 0
        self._rate_limited = 0
        self._rate_limit_seconds = 0.0

    def _next(self, reason: str) -> _Retry | None:
        self._tries += 1
        tries = limits.STOPPING_TRIES if self._clock.stopped else limits.RETRY_TRIES
        if self._tries >= tries:
            return None
        return _Retry(backoff.full_jitter(next(self._pauses)), reason)

    def after_no_answer(self, error: requests.RequestException) -> _Retry | None:
        """Return the next try; None when there is none.

        Raises:
            OutcomeUnknownError: It may have been done, and must not be done twice.
        """
        if any(isinstance(cause, NotConnectedError) for cause in causes(error)):
            return None if _final(error) else self._next("no connection")
        if self._request.repeatable:
            return self._next("no answer")
        raise _unknown(self._request)

    def after_answer(self, answer: Answer) -> _Retry | None:
        """Return the next try; None when the answer is the last.

        Raises:
            OutcomeUnknownError: The answer does not say whether it was done.
        """
        status = answer.status
        if status == HTTPStatus.TOO_MANY_REQUESTS and self._request.retry_rate_limit:
            self._rate_limited += 1
            if self._rate_limited > limits.RATE_LIMIT_TRIES:
                return None
            pause = rate_limit_pause(answer, self._rate_limited, self._clock.now())
            self._rate_limit_seconds += pause
            if self._rate_limit_seconds > limits.RATE_LIMIT_LONGEST_SECONDS:
                return None
            return _Retry(pause, "too many requests (429)", _RATE_LIMIT)
        is_page = answer.ok and answer.is_page
        if self._request.repeatable:
            if is_page:
                return self._next("a web page in place of an answer")
            return self._next(f"status {status}") if _is_fault(status) else None
        # A 500 that names a reference is Celonis' own answer: it looked, and said no.
        refused = status == HTTPStatus.INTERNAL_SERVER_ERROR and b'"reference"' in answer.body
        if is_page or (_is_fault(status) and not refused):
            raise _unknown(self._request)
        return None


def _is_fault(status: int) -> bool:
    """Return whether it may come from something before Celonis that did not see the end."""
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT


def rate_limit_pause(answer: Answer, times: int, now: float) -> float:
    """Return what to wait after 429: as told, else shortly, else until the next full UTC hour.

    Args:
        answer: The 429.
        times: How many there were in a row, this one included.
        now: Seconds since the epoch.
    """
    if answer.told_pause_seconds is not None:
        return answer.told_pause_seconds
    if times <= len(limits.RATE_LIMIT_WAITS_SECONDS):
        return limits.RATE_LIMIT_WAITS_SECONDS[times - 1]
    return _SECONDS_OF_HOUR - now % _SECONDS_OF_HOUR + 1.0


def _final(error: requests.RequestException) -> bool:
    """Return whether the next try would end no better."""
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        if isinstance(cause, NotConnectedError) and cause.tunnel_status is not None:
            return cause.tunnel_status < HTTPStatus.INTERNAL_SERVER_ERROR
    return False


def _proxy_refuses(status: int | None) -> RemoteError:
    said = "" if status is None else f" (status {status})"
    return RemoteError(
        "TC-REMOTE-06",
        f"The proxy refuses the connection{said}, or cannot be reached.",
        "Check `proxy` or the variable HTTPS_PROXY, with user and password if it asks for them.",
    )


def _page(base_url: str) -> RemoteError:
    return RemoteError(
        "TC-REMOTE-05",
        f"Something between this machine and {base_url} answers with a web page in place of "
        "Celonis.",
        "Check `base_url`, and whether the network or its proxy asks for a log-in.",
    )


def _unknown(request: _Request) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        "TC-REMOTE-03",
        f"{request} was sent, and it is not known whether Celonis carried it out.",
        "Run the pipeline again with the last state; look at the table first if it is appended to.",
    )


def expect(answer: Answer, doing: str) -> Answer:
    """Return a good answer.

    Args:
        answer: Any answer.
        doing: What was asked for, to follow "Celonis refused to".

    Raises:
        AccessError: 401 or 403.
        RemoteError: Any other status that is not good.
    """
    if answer.ok:
        return answer
    said = answer.explanation()
    tail = f" It says: {said}" if said else ""
    if answer.status == HTTPStatus.UNAUTHORIZED:
        raise AccessError(
            "TC-ACCESS-01",
            f"Celonis does not accept the key (status 401), when asked to {doing}.",
            "Check `api_key` and `auth_method`; keys can be revoked and expire.",
        )
    if answer.status == HTTPStatus.FORBIDDEN:
        raise AccessError(
            "TC-ACCESS-02",
            f"The key may not {doing} (status 403).{tail}",
            "Give it the permission Data Push API on the data pool.",
        )
    raise RemoteError("TC-REMOTE-02", f"Celonis refused to {doing} (status {answer.status}).{tail}")
