"""The numbers of Celonis, Parquet and HTTP that the rest of the code obeys, with their sources.

Hides nothing: it is the one place to look when a tenant turns out to differ. Must not know: any
other module.

Sources: GS = developer.celonis.com, Data Push API, "Getting started"; ENG = docs.celonis.com,
"Engine limitations"; "observed" = what Celonis' own clients are seen to send or to expect.
"""

from __future__ import annotations

SUBMITS_PER_SECOND = 10
"""Executes of push jobs a second and team (GS)."""

CHUNK_LIMIT_BYTES = 950_000_000
"""No chunk is ever larger. Celonis takes 1 GB (GS), which may mean 10**9 bytes."""

STRING_LENGTHS = (255, 1_000, 4_000, 16_250)
"""Lengths, in characters, that a STRING column is made with. The largest is 65 000 octets (the
limit of VARCHAR in the database) at four octets a character, the factor of the column listing."""

LONGEST_STRING = STRING_LENGTHS[-1]
"""Longest text, in characters, that a column surely holds."""

LONGEST_DECLARED_STRING = 65_000
"""Longest length that may be declared: what Celonis' own Kafka connector allows (observed). Whether
so many characters fit is not known."""

LISTED_OCTETS_PER_CHARACTER = 4
"""The column listing shows four times the length that a column was made with (observed)."""

IDENTIFIER_BYTES = 128
"""Longest table or column name, in UTF-8 bytes, of the database."""

ENGINE_FIRST_YEAR = 1400
"""Timestamps before this year become NULL in a data model (ENG)."""

RESERVED_COLUMN = "_CELONIS_CHANGE_DATE"
"""Written by Celonis itself; never pushed, ignored in comparisons."""

DATA_PUSH_PREFIXES = ("/data-ingestion", "/integration")
"""Paths under which the Data Push API is found, the current one first (GS; older documents)."""

CONFLICT_WAIT_SECONDS = 30.0
"""Pause after a 409 on execute when no job of ours explains it; what an integrator was told."""

POLL_FIRST_SECONDS = 0.1
POLL_LONGEST_SECONDS = 15.0
"""Waits between two looks at a push job: the first, and the longest that they grow to."""

RATE_LIMIT_WAITS_SECONDS = (1.0, 2.0, 4.0)
"""Waits after a 429 that names none; then until the next full UTC hour, when the count starts
anew (GS)."""

RATE_LIMIT_TRIES = 20
"""Answers 429 in a row after which a request is given up."""

RATE_LIMIT_LONGEST_SECONDS = 3_700.0
"""Waits for such answers in sum: the hour after which counts begin anew, and a little."""

PUSH_TRIES = 3
"""Times that a job whose uploads are in doubt is made anew, an upload sent again, or an execute
whose answer was lost repeated, before the outcome is called unknown."""

DOUBT_SECONDS = 2.0
"""Wait before a job whose execute was not answered is looked at again."""

BLIND_SECONDS = 900.0
"""How long a job that was executed is looked for when nothing of use is answered."""

CONNECT_TIMEOUT_SECONDS = 10.0
READ_TIMEOUT_SECONDS = 120.0
"""No answer after this long counts as no answer."""

ANSWER_SECONDS = 300.0
"""From a request that was sent to the last byte of its answer. One that comes in drips, each within
the time above, counts as none when this has passed."""

RETRY_TRIES = 6
RETRY_LONGEST_SECONDS = 30.0
"""Tries of a request that may be repeated, and the longest pause between two."""

STOPPING_TRIES = 3
"""Tries after a signal: who sent it will not wait for long."""

ANSWER_LIMIT_BYTES = 32_000_000
"""More than this of an answer is not read."""
