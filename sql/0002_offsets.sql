-- How far each partition of each log is applied, and what could not be applied as it stood.

-- Rows move only in the transaction that applies the events between the old and the new values.
CREATE TABLE partition_offsets (
    log_id text COLLATE "C" NOT NULL,
    partition text COLLATE "C" NOT NULL,
    bytes bigint NOT NULL,
    lines bigint NOT NULL,
    done boolean NOT NULL,
    PRIMARY KEY (log_id, partition)
);

-- A start reads the few partitions that are not done, however many are.
CREATE INDEX partition_offsets_undone ON partition_offsets (log_id, partition) WHERE NOT done;

-- Lines of the log that are not events; `line` counts from 1 in its partition.
CREATE TABLE dead_letters (
    log_id text COLLATE "C" NOT NULL,
    partition text COLLATE "C" NOT NULL,
    line bigint NOT NULL,
    reason text NOT NULL,
    text bytea NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (log_id, partition, line)
);

-- Revenue that waits for its user's row; the true total is users_revenue plus all of these. Rows are
-- only added and taken away, so that no lock on one of them holds up a commit.
CREATE TABLE deferred_revenue (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id varchar(255) COLLATE "C" NOT NULL,
    delta numeric NOT NULL,
    reason text NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX deferred_revenue_user ON deferred_revenue (user_id);
