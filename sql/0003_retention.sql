-- What retention needs: since when an offset has not moved, and which row stands for deleted ones.

-- The time of the last move, so of a done partition when it was done; of those that are there, now.
ALTER TABLE partition_offsets ADD COLUMN moved_at timestamptz NOT NULL DEFAULT now();

-- One row of a log stands for all of its partitions that were deleted: it has the name of the newest
-- of them, and their bytes and lines. So the sum of all lines stays what was ever applied.
ALTER TABLE partition_offsets ADD COLUMN deleted boolean NOT NULL DEFAULT false;

CREATE INDEX partition_offsets_deleted ON partition_offsets (log_id) WHERE deleted;
