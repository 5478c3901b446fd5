"""All SQL that is not in `sql/`.

Amounts travel as text (`-1234567e-6`), an array of them cast as a whole: exact at any size, and
no slower than any other form that was measured.
"""

from __future__ import annotations

# Connections

SERVER = """
    SELECT current_setting('fsync') AS fsync,
           current_setting('synchronous_commit') AS synchronous_commit,
           current_setting('server_encoding') AS encoding
"""
SYNCHRONOUS_COMMIT_ON = "SET synchronous_commit = on"
PING = "SELECT 1"

# Schema

# One number for all databases; it only has to differ from those of other programs.
SCHEMA_LOCK = "SELECT pg_advisory_xact_lock(7236834017)"
# Other sessions may hold the tables for a while; waiting longer would only queue others behind us.
SCHEMA_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '5s'"
# Reads the catalogue: `to_regclass` may answer from a cache older than the lock just waited for.
TABLE_EXISTS = """
    SELECT EXISTS (
        SELECT FROM pg_class
        WHERE relname = $1 AND relkind IN ('r', 'p') AND pg_table_is_visible(oid)
    )
"""
SCHEMA_CREATE = """
    CREATE TABLE etl_schema_version (
        version integer PRIMARY KEY,
        file text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""
SCHEMA_VERSIONS = "SELECT version FROM etl_schema_version"
SCHEMA_APPLIED = "INSERT INTO etl_schema_version (version, file) VALUES ($1, $2)"
ORIGINAL_USERS = "SELECT count(*) FROM users_revenue"

# Offsets

OFFSETS_UNDONE = """
    SELECT partition, bytes, lines, done
    FROM partition_offsets
    WHERE log_id = $1 AND NOT done
    ORDER BY partition
"""
OFFSETS_NEWEST = "SELECT max(partition) FROM partition_offsets WHERE log_id = $1"
# All names in one text: to compare it takes a fifth of the time of comparing names.
OFFSETS_WITH_ROW = """
    SELECT coalesce(string_agg(partition, '' ORDER BY partition), '')
    FROM partition_offsets
    WHERE log_id = $1 AND partition BETWEEN $2 AND $3 AND NOT deleted
"""
OFFSETS_WITHOUT_ROW = """
    SELECT partition FROM unnest($2::text[]) AS listed (partition)
    EXCEPT
    SELECT partition FROM partition_offsets
    WHERE log_id = $1 AND partition BETWEEN $3 AND $4 AND NOT deleted
"""
OFFSETS_DONE_NEWEST = """
    SELECT partition, lines
    FROM partition_offsets
    WHERE log_id = $1 AND done AND NOT deleted
    ORDER BY partition DESC
    LIMIT $2
"""
OFFSETS_SUMS = """
    SELECT coalesce(sum(lines) FILTER (WHERE done), 0)::bigint AS done_lines,
           coalesce(sum(bytes) FILTER (WHERE NOT deleted), 0)::bigint AS kept_bytes
    FROM partition_offsets
    WHERE log_id = $1
"""
OFFSETS_DELETED = """
    SELECT partition, bytes, lines FROM partition_offsets WHERE log_id = $1 AND deleted
    ORDER BY partition DESC LIMIT 1
"""
OFFSETS_OLDEST = """
    SELECT partition, bytes, lines, done, extract(epoch FROM now() - moved_at)::float8 AS age_s
    FROM partition_offsets
    WHERE log_id = $1 AND NOT deleted
    ORDER BY partition
    LIMIT $2
"""
OFFSETS_DONE_UPTO = """
    SELECT coalesce(sum(lines), 0)::bigint
    FROM partition_offsets
    WHERE log_id = $1 AND partition <= $2 AND done
"""
# Of two at once the second waits, finds the rows gone, and adds nothing.
OFFSETS_DELETE = """
    WITH gone AS (
        DELETE FROM partition_offsets
        WHERE log_id = $1
          AND done
          AND partition IN (
              SELECT partition FROM partition_offsets WHERE log_id = $1 AND deleted
              UNION ALL
              SELECT unnest($2::text[])
          )
        RETURNING partition, bytes, lines
    )
    INSERT INTO partition_offsets (log_id, partition, bytes, lines, done, deleted)
    SELECT $1, max(partition), sum(bytes), sum(lines), true, true FROM gone HAVING count(*) > 0
"""
# Steps from log to log through the primary key instead of reading every row.
OTHER_LOGS = """
    WITH RECURSIVE logs AS (
        SELECT min(log_id) AS log_id FROM partition_offsets
        UNION ALL
        SELECT (SELECT min(log_id) FROM partition_offsets WHERE log_id > logs.log_id)
        FROM logs WHERE logs.log_id IS NOT NULL
    )
    SELECT log_id FROM logs WHERE log_id <> $1 LIMIT 10
"""
# The guard: a row moves from the values that were last read, or not at all.
OFFSETS_MOVE = """
    UPDATE partition_offsets AS known
    SET bytes = moved.bytes, lines = moved.lines, done = moved.done, moved_at = now()
    FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::boolean[])
        AS moved (partition, bytes_before, lines_before, bytes, lines, done)
    WHERE known.log_id = $1
      AND known.partition = moved.partition
      AND known.bytes = moved.bytes_before
      AND known.lines = moved.lines_before
      AND NOT known.done
    RETURNING known.partition
"""
# DO NOTHING waits for a rival's open transaction, and then leaves the row out of what it returns.
OFFSETS_ADD = """
    INSERT INTO partition_offsets (log_id, partition, bytes, lines, done)
    SELECT $1, partition, bytes, lines, done
    FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::boolean[])
        AS added (partition, bytes, lines, done)
    ORDER BY partition
    ON CONFLICT DO NOTHING
    RETURNING partition
"""

# Revenue

UPSERT_USERS = "SELECT upsert_users_revenue($1::varchar[], $2::text[]::numeric[])"
DEAD_LETTERS_ADD = """
    INSERT INTO dead_letters (log_id, partition, line, reason, text, bytes)
    SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::text[], $5::bytea[], $6::bigint[])
"""
# One statement, so that both parts come from one snapshot; null for an unknown user.
REVENUE = """
    SELECT sum(part)
    FROM (SELECT revenue FROM users_revenue WHERE user_id = $1::varchar
          UNION ALL
          SELECT delta FROM deferred_revenue WHERE user_id = $1::varchar) AS parts (part)
"""

# Users whose row can't be had

TABLE_LOCK = "LOCK TABLE users_revenue IN ROW EXCLUSIVE MODE"
# Rows that are locked are known already here; this bounds the wait for an uncommitted new key.
CAREFUL_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '20ms'"
# Faults that a deferred constraint would only show at COMMIT have to show in a savepoint.
CONSTRAINTS_IMMEDIATE = "SET CONSTRAINTS ALL IMMEDIATE"
USERS_LOCKED = """
    WITH free AS MATERIALIZED (
        SELECT user_id FROM users_revenue WHERE user_id = ANY($1::varchar[])
        FOR NO KEY UPDATE SKIP LOCKED
    )
    SELECT user_id FROM users_revenue WHERE user_id = ANY($1::varchar[])
    EXCEPT
    SELECT user_id FROM free
"""
DEFERRED_ADD = """
    INSERT INTO deferred_revenue (user_id, delta, reason)
    SELECT user_id, trim_scale(delta), reason
    FROM unnest($1::varchar[], $2::text[]::numeric[], $3::text[]) AS added (user_id, delta, reason)
"""
DEFERRED_USERS = """
    SELECT user_id, max(reason) AS reason
    FROM deferred_revenue
    WHERE user_id <> ALL($2::varchar[])
    GROUP BY user_id
    ORDER BY min(since), user_id
    LIMIT $1
"""
# A row that someone else has locked is left for later, and its user is still deferred.
DEFERRED_TAKE = """
    SELECT id, user_id, trunc(delta * 1000000)::text AS millionths
    FROM deferred_revenue
    WHERE user_id = ANY($1::varchar[])
    ORDER BY id
    FOR UPDATE SKIP LOCKED
"""
DEFERRED_REMOVE = "DELETE FROM deferred_revenue WHERE id = ANY($1::bigint[])"
# Many rows of a user that has to wait on become its oldest one.
DEFERRED_GATHER = """
    UPDATE deferred_revenue SET delta = trim_scale(gathered.delta)
    FROM unnest($1::bigint[], $2::text[]::numeric[]) AS gathered (id, delta)
    WHERE deferred_revenue.id = gathered.id
"""
DEFERRED_LEFT = "SELECT DISTINCT user_id FROM deferred_revenue WHERE user_id = ANY($1::varchar[])"
