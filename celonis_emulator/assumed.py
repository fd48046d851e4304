"""The answers that rest on inference: no public source states them.

Hides: nothing. Guarantees: each such answer is named once, here, with a sentence that says what
the emulator does; documentation is generated from this table. A name never changes its meaning.
Must not know: any other module.
"""

from __future__ import annotations

from typing import Final

ASSUMED: Final[dict[str, str]] = {
    "file_type_default": "A job created without fileType takes Parquet chunks.",
    "write_answers_200": (
        "Chunk upload, execute, cancel and delete answer 200 with an empty body."
    ),
    "created_status": "Create answers 200 with the job (switch: created-status).",
    "unknown_fields": (
        "Fields of a create body that are not known are ignored (switch: unknown-fields)."
    ),
    "server_made_fields": (
        "id, status, lastModified, lastPing and logs in a create body are known and ignored."
    ),
    "fields_without_effect": (
        "targetSchema, allowDuplicate, foreignKeys, postExecutionQuery, mirrorTargetNames, "
        "changeDate, and decimals and pkField of a column, are taken, shown and have no effect."
    ),
    "other_pool": "A dataPoolId other than the one in the path answers 400.",
    "unknown_connection": "A connectionId that is no data connection of the pool answers 404.",
    "schema_table_name": "A tableName in tableSchema that differs from targetName is ignored.",
    "long_lengths": "A fieldLength or fallbackVarcharLength above 65000 answers 400.",
    "cancel_path": (
        "A job is cancelled by POST .../jobs/{id}/cancel; a job that has ended answers 400 "
        "(switch: cancel)."
    ),
    "failed_jobs": (
        "A job that ends ERROR or CANCELED, also by a cancel while RUNNING, leaves its table as it "
        "was (switch: failed-jobs)."
    ),
    "failed_jobs_kept_chunks": (
        "Where first chunks of such a job stay, they are whole chunks: those before the failing "
        "one, or the first half if no chunk fails; a REPLACE has replaced the table then, unless "
        "none stays."
    ),
    "delete_of_a_live_job": "DELETE of a job that is QUEUED or RUNNING answers 400.",
    "execute_not_new": ("Execute of a job that is not NEW answers 400 (switch: execute-not-new)."),
    "chunk_not_new": "A chunk for a job that is not NEW answers 400.",
    "conflict_scope": (
        "Execute answers 409 while another job of the team is QUEUED or RUNNING "
        "(switch: conflict-scope)."
    ),
    "refused_submits_are_free": (
        "Only accepted executes count against the limits; answers 400, 404, 409 and 429 do not."
    ),
    "limits_on_execute_only": (
        "Create, chunk uploads, status calls and listings do not count against the limits."
    ),
    "rate_limit_headers": (
        "Execute answers, 429 or not, carry the x-ratelimit headers; reset counts seconds "
        "(switch: rate-limit-headers)."
    ),
    "missing_multipart": "A chunk upload that is not multipart or has no part `file` answers 400.",
    "missing_key_column": (
        "A chunk that lacks a key column answers 500 with a text about validating the Parquet, "
        "CSV chunks too."
    ),
    "unreadable_parquet": "A chunk that is no readable file of the job's type answers 400.",
    "untyped_columns": "A Parquet column of type null, or a nested one, answers 400 at upload.",
    "duplicate_columns": "Column names that differ by case only answer 400 at upload.",
    "mixed_chunks": "One job takes upserted and deleted chunks (switch: mixed-chunks).",
    "key_only_deletes": (
        "A deleted chunk may hold the key columns alone (switch: key-only-deletes)."
    ),
    "deleted_chunk_job": (
        "A deleted chunk for a job that is a REPLACE or has no keys answers 400."
    ),
    "long_names": "Names longer than 128 bytes answer 400 (switch: max-name-bytes).",
    "checksum": "A chunk's checksum is the MD5 of its bytes, in hexadecimal.",
    "chunk_order": "Chunks are applied in the order in which their uploads ended.",
    "replace_atomic": "A REPLACE swaps the table in one transaction, at the end of the job.",
    "replace_empty": (
        "A REPLACE without chunks makes an empty table from tableSchema; without a tableSchema "
        "the job ends ERROR."
    ),
    "replace_keys": (
        "In a REPLACE, keys are checked at upload, but merge rows only with duplicateRemovalColumn."
    ),
    "delta_missing_table": (
        "A DELTA with upserted chunks creates a missing table (switch: delta-missing-table)."
    ),
    "delta_deletes_missing_table": "Deletes from a table that does not exist change nothing.",
    "partial_table_schema": (
        "A column that tableSchema does not name gets its type from the Parquet file."
    ),
    "extra_column": (
        "A DELTA file with a column that the table lacks ends the job with ERROR, unless "
        "upsertStrategy is UPSERT_WITH_NULLIFICATION: then the column is added."
    ),
    "missing_column": (
        "A column of the table that a DELTA file lacks becomes NULL in the rows of that file "
        "(switch: strict-metadata)."
    ),
    "changed_type": (
        "A DELTA column declared with another type than the table's, or whose file type does not "
        "fit it, ends the job with ERROR."
    ),
    "replace_declared_type": (
        "In a REPLACE, a column declared with a type that its file type does not fit ends the job "
        "with ERROR."
    ),
    "cut_in_characters": (
        "A text is cut at the table's length in characters, whatever the job declares "
        "(switch: oversize)."
    ),
    "undeclared_length": (
        "A text column without a declared length gets fallbackVarcharLength, else 80."
    ),
    "duplicate_keys": (
        "Of several rows with one key in a job, the last one stays (switch: duplicate-keys)."
    ),
    "duplicate_removal": (
        "With duplicateRemovalColumn, the row with the greatest value in that column stays, over "
        "neighbouring upserted chunks of the job; at equal values the last one."
    ),
    "duplicate_removal_needs_keys": (
        "duplicateRemovalColumn is ignored in a job without keys, and when it is empty."
    ),
    "null_keys": "A NULL in a key column matches nothing: such rows are appended each time.",
    "timestamps_in_utc": (
        "Timestamps are stored in UTC without a zone, with microseconds; one that carries a zone "
        "is converted."
    ),
    "listed_types": (
        "The column listing shows BOOLEAN as INTEGER, and DATE, DATETIME and TIME as DATE; only "
        "text columns have a length."
    ),
    "unknown_table_columns": "The column listing of an unknown table is an empty list.",
    "listing_permission": (
        "Who may push into a pool may list its tables and columns (switch: listing-permission)."
    ),
    "lacking_permission": (
        "A call on a pool for which the caller lacks the permission answers 403; no permission "
        "includes another."
    ),
    "hidden_pools": (
        "A pool on which the caller has no permission at all answers 403 (switch: hidden-pools)."
    ),
    "listed_pools": "The list of pools shows those that the caller may read.",
    "calls_of_the_team": "The calls about user and team answer every valid key.",
    "shown_permissions": (
        "The caller's permissions are shown for one service, `integration`: those that it has on "
        "one pool or another."
    ),
    "error_bodies": (
        "Refusals come as JSON: of the service for 409 and 500, with `errors` for 400, of the "
        "gateway else (switch: error-bodies)."
    ),
    "unreadable_json": (
        "A JSON body that cannot be read, or with half a surrogate pair in a text, answers 400 "
        "with `errors`; one of more than 64 MB answers 413."
    ),
    "change_date": "A push adds no _CELONIS_CHANGE_DATE column.",
    "pool_shapes": "Pools, connections, the team and the user are shown with few fields.",
    "oauth_errors": (
        "A token request is refused with the errors of RFC 6749: 401 for invalid_client, else 400."
    ),
    "oauth_default_scope": "A token request without a scope gets all scopes of its client.",
    "oauth_exact_scope": (
        "A client may ask for the very scopes that it has; one that has integration.data-pools "
        "may not ask for integration.data-pools:data_push."
    ),
    "oauth_tokens_die": "An expired token answers 401, as does every token after a restart.",
    "scope_refused": (
        "A token without a scope for what it asks answers 403 and names the scopes that would do."
    ),
    "push_only_scope": (
        "A token with integration.data-pools:data_push alone answers 403 everywhere outside of "
        "Data Push, /api/cloud included."
    ),
    "model_shapes": (
        "Data models and their tables are shown with few fields; tableName in the status of a load "
        "is the alias, else the name; averageLoadTime has a mean for each type of load."
    ),
    "last_load": "last-load answers what currentComputeLoad shows; {} when never loaded.",
    "load_copies_what_has_no_copy": (
        "A partial load, and a reload with forceComplete=false, also copy the tables of the data "
        "model that were never copied."
    ),
    "load_from_cache": "A reload with forceComplete=false keeps the copies that there are.",
    "load_full_reload": "fullReload changes nothing in a partial load.",
    "load_unknown_table": "A partial load with an unknown table id answers 400 and starts nothing.",
    "load_missing_table": (
        "A load ends ERROR when the pool lacks one of its tables; the data model shows what it "
        "showed before."
    ),
    "load_lost_dates": (
        "A load that made NULL of dates outside 1400 to 9999 ends WARNING and counts them "
        "(switch: lost-dates-status)."
    ),
    "load_status_at_once": (
        "load-info-sync shows a load as RUNNING as soon as its trigger was answered "
        "(switch: stale-load-answers)."
    ),
    "second_load": (
        "A load of a data model that is being loaded answers 409 (switch: second-load)."
    ),
    "second_execution": (
        "An execute of a data job that is QUEUED or RUNNING answers 409 (switch: second-execution)."
    ),
    "data_job_never_run": (
        "logs/status lists a data job that never ran, with status null (switch: unrun-jobs-listed)."
    ),
    "data_job_execute_answers_200": (
        "Execute and cancel of a data job, and the triggers of a load, answer 200 with an empty "
        "body; v1 and v2 of execute are the same."
    ),
    "data_job_cancel": "Cancelling a data job that is not at work answers 400.",
    "data_job_statements": (
        "Each statement of a data job commits itself: BEGIN, COMMIT and ROLLBACK do nothing."
    ),
    "data_job_failure": (
        "The first transformation that fails ends its data job: the ones after it are SKIPPED, no "
        "data model is loaded, and what was done stays."
    ),
    "data_job_logs": (
        "The log of an execution item shows errors first, then the rest in the order of time; the "
        "first page is 0."
    ),
    "data_job_loads": (
        "A data job starts the loads of its data models after its last transformation and does not "
        "wait for them; dataModelExecutionId is the id of the data model."
    ),
    "sql_lengths": (
        "VARCHAR(n) in a CREATE TABLE of a data job declares n octets, n/4 characters; SQL itself "
        "cuts nothing."
    ),
    "sql_texts": (
        "A text column that a data job makes without a length, as by CREATE TABLE AS, has 16250 "
        "characters."
    ),
    "sql_numbers": (
        "In SQL of data jobs INT and its kin have 64 bits, FLOAT and REAL are doubles, NUMERIC "
        "without digits is NUMERIC(37, 15)."
    ),
    "sql_schemas": (
        "A data job names the schemas of its own pool only, and creates, drops and alters tables "
        "and views only."
    ),
    "interrupted_loads": (
        "After a death of the server a load that was RUNNING is ERROR, an execution FAIL."
    ),
    "interrupted_jobs": "A job that was QUEUED or RUNNING when the server died ends ERROR.",
    "csv_empty_is_null": "An empty CSV field is NULL; a CSV chunk has a header line.",
    "csv_types": "A CSV column that tableSchema does not name is a STRING.",
    "csv_line_ending": "lineEnding is taken and ignored: CSV lines end by LF, CRLF or CR.",
    "csv_date_formats": (
        "A dateFormat with letters or signs of Java that are not understood answers 400 at create; "
        "numbers may lack their leading zeros."
    ),
}
