-- Who runs which background job, when it is due, and what its last runs came to.

-- All times are this server's, so instances whose clocks differ still agree on what is due.
CREATE TABLE job (
    name            text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9-]{0,62}$'),
    next_at         timestamptz NOT NULL DEFAULT now(),
    -- Goes up with every run; whoever holds an older number has lost the job.
    fence           bigint NOT NULL DEFAULT 0,
    -- The instance that runs it, and until when it is believed to live. Both null: nobody runs it.
    holder          uuid,
    held_until      timestamptz,
    -- A run that somebody asked for stays asked for until it ended.
    requested_at    timestamptz,
    -- Runs in a row that failed.
    failures        integer NOT NULL DEFAULT 0,
    last_done_at    timestamptz,
    CHECK ((holder IS NULL) = (held_until IS NULL))
) WITH (fillfactor = 50);

-- The last runs of each job; a take deletes what is beyond the bound.
CREATE TABLE job_run (
    name        text NOT NULL REFERENCES job,
    fence       bigint NOT NULL,
    holder      uuid NOT NULL,
    requested   boolean NOT NULL,
    started_at  timestamptz NOT NULL,
    ended_at    timestamptz,
    -- Null while it runs.
    outcome     text CHECK (outcome IN ('done', 'failed', 'overran', 'stopped', 'lost')),
    error       text,
    PRIMARY KEY (name, fence),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
);
