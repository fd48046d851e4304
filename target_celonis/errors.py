"""Everything that can go wrong, as one tree ordered by who can put it right.

    TargetCelonisError
    ├── SettingsError      exit 2   the configuration
    ├── AccessError        exit 3   the key, its permissions, an id
    ├── InputError         exit 4   what the tap printed
    ├── ContractError      exit 5   the table in Celonis and the stream do not fit
    ├── RemoteError        exit 6   Celonis refused, or its answer is not known
    │   └── OutcomeUnknownError     a write was sent and no answer came
    ├── LimitError         exit 7   a deadline, a budget or the disk
    ├── InternalError      exit 1   a fault of ours
    └── SignalError        exit 130 or 143, a signal

Each error carries a stable code, one plain sentence, and the next step. Codes are listed in
``CATALOGUE``; ``docs/errors.md`` holds the same list and a test compares the two.

Guarantees: a message never holds a secret or a value of a record. Must not know: any other module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path

CATALOGUE: dict[str, str] = {
    "TC-SETTINGS-01": "A configuration file cannot be read or is not a JSON object.",
    "TC-SETTINGS-02": "A setting is unknown; the nearest known name is given.",
    "TC-SETTINGS-03": "A setting has a value of the wrong kind or outside its range.",
    "TC-SETTINGS-04": "A setting that is needed is missing.",
    "TC-SETTINGS-05": "The program was called with an option it does not know.",
    "TC-SETTINGS-06": "The embedded emulator cannot run: its extra is missing or it did not start.",
    "TC-SETTINGS-07": "The database of the embedded emulator is held by another process.",
    "TC-SETTINGS-08": "A stream map cannot be used.",
    "TC-ACCESS-01": "The key is refused (401).",
    "TC-ACCESS-02": "The data pool is unknown, or the key may not push into it.",
    "TC-ACCESS-03": "The data connection is unknown in this data pool.",
    "TC-ACCESS-04": "The OAuth client is refused, or may not have the scope.",
    "TC-ACCESS-05": "A data job is unknown, or the key may not execute it.",
    "TC-ACCESS-06": "A data model is unknown, or the key may not load it.",
    "TC-INPUT-01": "A line is not JSON, or not a JSON object.",
    "TC-INPUT-02": "The input ends in the middle of a line.",
    "TC-INPUT-03": "A message lacks a field, or a field has the wrong form.",
    "TC-INPUT-04": "A message has a type that Singer does not define.",
    "TC-INPUT-05": "A RECORD comes before the SCHEMA of its stream.",
    "TC-INPUT-06": "A SCHEMA has no properties, or a schema that cannot be used.",
    "TC-INPUT-07": "A key property is null or missing in a record.",
    "TC-INPUT-08": "A value does not fit the type that the SCHEMA declares.",
    "TC-INPUT-09": "A line is longer than the memory limit allows.",
    "TC-INPUT-10": "A stream is to replace its table, and nothing proves that all of it was read.",
    "TC-INPUT-11": "A BATCH message is malformed, or names other than local files of JSON lines.",
    "TC-INPUT-12": "A file that a BATCH message names is missing, cannot be read, or is damaged.",
    "TC-CONTRACT-01": "Two streams would load into one table.",
    "TC-CONTRACT-02": "A key property is not among the stream's properties.",
    "TC-CONTRACT-03": "A text is longer than the column in Celonis.",
    "TC-CONTRACT-04": "A column has another type in Celonis than in the stream.",
    "TC-CONTRACT-05": "A text is longer than any column that Celonis can hold.",
    "TC-CONTRACT-06": "A new column did not appear in the table.",
    "TC-CONTRACT-07": "A table would be replaced by one with far fewer rows.",
    "TC-CONTRACT-08": "A push did not widen a column as it was told to.",
    "TC-CONTRACT-09": "The stream and its table differ, and `schema_change` is `freeze`.",
    "TC-CONTRACT-10": "A column name that was chosen in `streams` is taken.",
    "TC-CONTRACT-11": "A row is to be deleted, and its stream has no key.",
    "TC-REMOTE-01": "Nothing answers at the base URL, or every try failed.",
    "TC-REMOTE-02": "Celonis refused a request.",
    "TC-REMOTE-03": "A request was sent and its outcome is not known.",
    "TC-REMOTE-04": "A push job ended in ERROR or CANCELED.",
    "TC-REMOTE-05": "The answer is not what the API describes.",
    "TC-REMOTE-06": "The proxy refuses, or cannot be reached.",
    "TC-REMOTE-08": "A data job ended otherwise than SUCCESS.",
    "TC-REMOTE-09": "The load of a data model failed.",
    "TC-LIMIT-01": "A push job did not end before the deadline.",
    "TC-LIMIT-02": "The spool directory cannot be written.",
    "TC-LIMIT-03": "The standard output is closed, so that a state cannot be written.",
    "TC-LIMIT-04": "Another run on this machine loads the same table.",
    "TC-LIMIT-05": "The spool limit is reached by streams that are pushed only at the end.",
    "TC-LIMIT-06": "The submits of this hour are used up, and `on_submit_limit` is `fail`.",
    "TC-LIMIT-07": "A data job or the load of a data model did not end before the deadline.",
    "TC-LIMIT-08": "Push jobs could not be executed in time: Celonis answers 409 or 429.",
    "TC-LIMIT-09": "A process that converts records ended early; memory may have run out.",
    "TC-INTERNAL-01": "The counts of the run do not add up.",
    "TC-INTERNAL-02": "An unexpected fault of this program.",
    "TC-SIGNAL-01": "The run was ended by a signal.",
}


class TargetCelonisError(Exception):
    """Base of all errors that a user sees.

    Args:
        code: Stable code out of ``CATALOGUE``.
        message: One plain sentence that says what is wrong.
        next_step: What to do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, message: str, next_step: str = "") -> None:
        if code not in CATALOGUE:
            raise AssertionError(code)
        super().__init__(code, message, next_step)
        self.code = code
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        """Return the line that is printed: code, sentence, next step."""
        parts = (f"[{self.code}]", self.message, self.next_step)
        return _one_line(" ".join(part for part in parts if part))


def _one_line(text: str) -> str:
    """Return a text without line ends and the like: names in it may hold anything."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


class SettingsError(TargetCelonisError):
    """The configuration cannot be used."""

    exit_code = 2


class AccessError(TargetCelonisError):
    """The key, its permissions, or an id in the configuration."""

    exit_code = 3


class InputError(TargetCelonisError):
    """The tap's output breaks the Singer specification or its own schema."""

    exit_code = 4


class ContractError(TargetCelonisError):
    """The stream and the table in Celonis do not fit together."""

    exit_code = 5


class RemoteError(TargetCelonisError):
    """Celonis refused, failed, or could not be reached."""

    exit_code = 6


class OutcomeUnknownError(RemoteError):
    """A write was sent and no answer came: it may or may not have happened."""


class LimitError(TargetCelonisError):
    """A deadline, a budget or the disk."""

    exit_code = 7


def unwritable(path: Path, error: OSError) -> LimitError:
    """Return the error for a spool directory that cannot be used."""
    return LimitError(
        "TC-LIMIT-02",
        f"The spool directory {path} cannot be written: {error.strerror or 'unknown reason'}.",
        "Free some space, or name another directory as `spool_dir`.",
    )


class InternalError(TargetCelonisError):
    """A fault of this program."""

    exit_code = 1


class SignalError(TargetCelonisError):
    """The run was ended by SIGTERM or SIGINT.

    Args:
        signal_number: The signal; the exit code is 128 more, as shells have it.
        message: What was left where.
    """

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__("TC-SIGNAL-01", message)
        self.args = (signal_number, message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number  # type: ignore[misc]  # one class, two exit codes


def as_error(error: Exception) -> TargetCelonisError:
    """Return an error as users are to see it; one that is none of these is a fault of ours."""
    if isinstance(error, TargetCelonisError):
        return error
    place = "an unknown place"
    traceback = error.__traceback__
    while traceback is not None:  # the innermost line of ours that it came through
        module = traceback.tb_frame.f_globals.get("__name__", "")
        if module.startswith("target_celonis"):
            place = f"{module}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return InternalError(
        "TC-INTERNAL-02",
        f"An unexpected {type(error).__name__} at {place}.",
        "Please report this as a bug; LOGLEVEL=DEBUG shows more.",
    )
