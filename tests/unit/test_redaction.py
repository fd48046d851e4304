"""A secret is in no line, whoever logs it and however it is spelled."""

from __future__ import annotations

import base64
import copy
import io
import json
import logging
import logging.config
import pickle
import traceback
from dataclasses import asdict
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st
from singer_sdk.logging import StructuredFormatter

from target_celonis.config import Secret, parse
from target_celonis.redaction import MASK, Redaction

if TYPE_CHECKING:
    from collections.abc import Iterator

PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
HARD = 's3cret:with+signs/%41 "quotes"\\and=more&'
a_secret = st.text(PRINTABLE, min_size=4, max_size=60).filter(
    lambda text: len(text.strip()) >= 4 and not set(text) <= set("*% \\")
)


def hiding(*secrets: str) -> Redaction:
    redaction = Redaction()
    for secret in secrets:
        redaction.add(secret)
    return redaction


def basic(secret: str, client: str) -> str:
    return base64.b64encode(f"{client}:{secret}".encode()).decode()


SPELLINGS = {
    "plain": str,
    "in an address": lambda secret: quote(secret, safe=""),
    "in a path": quote,
    "in a form": quote_plus,
    "in an address, small": lambda secret: quote(secret, safe="").replace("%2F", "%2f"),
    "quoted twice": lambda secret: quote(quote(secret, safe=""), safe=""),
    "JSON": lambda secret: json.dumps({"key": secret}),
    "JSON in JSON": lambda secret: json.dumps(json.dumps({"key": secret})),
    "repr": lambda secret: repr([secret]),
    "repr of bytes": lambda secret: repr(secret.encode()),
    "Basic": lambda secret: basic(secret, "a"),
    "Basic, one more": lambda secret: basic(secret, "ab"),
    "Basic, two more": lambda secret: basic(secret, "abc"),
    "Base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "Base64 of addresses": lambda secret: base64.urlsafe_b64encode(b"x" + secret.encode()).decode(),
}


# Letters around the secret: quotes and names, or those of the client's id alone.
AROUND = {
    "JSON": 12,
    "JSON in JSON": 20,
    "repr": 4,
    "repr of bytes": 3,
    "Basic": 2,
    "Basic, one more": 4,
    "Basic, two more": 5,
    "Base64 of addresses": 1,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(secret=a_secret)
@example(secret=HARD)
@example(secret="AAAA")
@settings(max_examples=25, deadline=None)
def test_every_spelling(spelling: str, secret: str) -> None:
    spelled = SPELLINGS[spelling](secret)
    shown = hiding(secret).text(f"before {spelled} after")
    assert MASK in shown
    assert spelled not in shown
    rest = shown.removeprefix("before ").removesuffix(" after").replace(MASK, "")
    assert len(rest.rstrip("=")) <= AROUND.get(spelling, 0)


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_a_text_without_secrets_stays(text: str) -> None:
    assert hiding("bmV2ZXIgc2hvd24", "another-secret").text(text) == text
    assert Redaction().text(text) == text


def test_short_secrets_are_let_be() -> None:
    assert hiding("", "a", "abc").text("abc abcd") == "abc abcd"
    assert hiding("abcd").text("abc abcd") == f"abc {MASK}"


def test_a_secret_that_is_part_of_another() -> None:
    assert hiding("secret", "secret-and-more").text("x secret-and-more") == f"x {MASK}"
    assert hiding("secret-and-more", "secret").text("x secret.") == f"x {MASK}."


@pytest.mark.parametrize(
    ("address", "secret"),
    [
        ("http://user:pass%40word@proxy:8080", "pass@word"),
        ("user:password@proxy:8080", "password"),
        ("http://user:p%ZZword@proxy", "p%ZZword"),
    ],
)
def test_the_password_of_an_address(address: str, secret: str) -> None:
    redaction = Redaction()
    redaction.add_address(address)
    for text in (address, secret, quote(secret)):
        assert MASK in redaction.text(text)
        assert secret not in redaction.text(text)
    assert "proxy" in redaction.text(address)


@pytest.mark.parametrize("address", ["", "http://proxy:8080", "http://[", "proxy", "u@proxy"])
def test_an_address_without_a_password(address: str) -> None:
    redaction = Redaction()
    redaction.add_address(address)
    assert redaction.text(f"{address} proxy") == f"{address} proxy"


# --- logging


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def handler(stream: io.StringIO) -> Iterator[logging.Handler]:
    """A handler of the root logger, as the SDK makes it, at the finest level."""
    root = logging.getLogger()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("{levelname} {name} {message}", style="{"))
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)


@pytest.mark.usefixtures("handler")
def test_lines_of_any_logger(stream: io.StringIO) -> None:
    with hiding(HARD).installed():
        for name in ("target-celonis", "urllib3.connectionpool", "requests", "any.thing"):
            logging.getLogger(name).info("%s and %r", HARD, {"key": HARD})
        logging.getLogger("x").info("%s", basic(HARD, "client"))
    lines = stream.getvalue().splitlines()
    assert lines[0] == f"INFO target-celonis {MASK} and {{'key': '{MASK}'}}"
    assert len(lines) == 5
    for line in lines:
        assert MASK in line
        assert "s3cret" not in line
        assert "czNjcmV0" not in line


@pytest.mark.usefixtures("handler")
def test_exceptions_and_their_causes(stream: io.StringIO) -> None:
    redaction = hiding(HARD)
    with redaction.installed():
        try:
            try:
                raise ValueError(HARD)
            except ValueError as error:
                raise requests.ConnectionError(f"to {quote(HARD)}", {"key": HARD}) from error
        except requests.ConnectionError:
            logging.getLogger("target-celonis").debug("Unexpected.", exc_info=True)
    shown = stream.getvalue()
    assert shown.count("Traceback") == 2
    assert shown.count(MASK) >= 3
    assert "s3cret" not in shown


def test_structured_lines_stay_json(stream: io.StringIO, handler: logging.Handler) -> None:
    handler.setFormatter(StructuredFormatter())
    with hiding(HARD).installed():
        try:
            raise ValueError(HARD)
        except ValueError:
            logging.getLogger("target-celonis").exception("with %s", HARD)
    shown = json.loads(stream.getvalue())
    assert shown["message"] == f"with {MASK}"
    assert shown["exception"]["message"] == MASK
    assert "s3cret" not in stream.getvalue()


def test_loggers_withhandlers_of_their_own(stream: io.StringIO) -> None:
    logger = logging.getLogger("test-redaction.own")
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(stream))
    with hiding(HARD).installed():
        logger.warning("%s", HARD)
    logger.handlers.clear()
    assert stream.getvalue() == f"{MASK}\n"


@pytest.mark.usefixtures("handler")
def test_a_secret_that_becomes_known_later(stream: io.StringIO) -> None:
    redaction = Redaction()
    with redaction.installed():
        redaction.add("a-token-of-later")
        logging.getLogger("x").info("a-token-of-later")
    assert stream.getvalue() == f"INFO x {MASK}\n"


def test_it_is_taken_off_again(stream: io.StringIO, handler: logging.Handler) -> None:
    formatter = handler.formatter
    with pytest.raises(KeyError), hiding(HARD).installed():  # noqa: PT012 - both blocks end
        assert handler.formatter is not formatter
        raise KeyError
    assert handler.formatter is formatter
    logging.getLogger("x").info("harmless")
    assert stream.getvalue() == "INFO x harmless\n"


@pytest.mark.usefixtures("handler")
def test_inside_of_itself(stream: io.StringIO) -> None:
    with hiding("the-first").installed():
        with hiding("the-second").installed():
            logging.getLogger("x").info("the-first the-second")
        logging.getLogger("x").info("the-first the-second")
    assert stream.getvalue() == f"INFO x {MASK} {MASK}\nINFO x {MASK} the-second\n"


# --- settings that hold secrets


SETTINGS = {
    "base_url": "https://team.eu-1.celonis.cloud",
    "data_pool_id": "pool",
    "proxy": f"http://user:{HARD}@proxy:1",
    "oauth_client_id": "client",
    "oauth_client_secret": HARD,
    "auth_method": "oauth",
    "api_key": HARD,
}


def test_settings_show_no_secret() -> None:
    config = parse(SETTINGS, {})
    assert config.oauth is not None
    for value in (config, config.oauth, config.api_key, [config.proxy], {"key": config.api_key}):
        for shown in (repr(value), str(value), f"{value}", format(value), "%s %r" % (value, value)):  # noqa: UP031
            assert "s3cret" not in shown
            assert "***" in shown


def test_a_secret_is_not_copied_out() -> None:
    config = parse(SETTINGS, {})
    for value in (config.api_key, config.oauth, config):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises((TypeError, pickle.PicklingError)):
                pickle.dumps(value, protocol)
        with pytest.raises(TypeError):
            copy.deepcopy(value)
    for way in (copy.copy, vars, json.dumps, bytes, len):
        with pytest.raises(TypeError):
            way(config.api_key)  # type: ignore[operator]
    with pytest.raises(TypeError):
        asdict(config)


def test_a_traceback_with_the_values_of_a_frame() -> None:
    def fail(config: object, secret: Secret) -> None:  # noqa: ARG001 - they are in the frame
        raise KeyError

    config = parse(SETTINGS, {})
    assert config.api_key is not None
    try:
        fail(config, config.api_key)
    except KeyError as error:
        lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
        # The last frame is the one above; this test's own holds the settings as they are given.
        shown = "".join(lines).rpartition("in fail")[2]
    assert "config = Config(" in shown
    assert "s3cret" not in shown
