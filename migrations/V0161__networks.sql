-- Networks that operators named. Flows have addresses alone: which network those are of is found when they are asked
-- for (docs/decisions/0161-names-at-query-time.md).

CREATE TABLE network (
    network_id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text COLLATE "C" NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    -- The only sensor that sees it under these addresses; null: any.
    sensor_id    integer REFERENCES sensor ON DELETE CASCADE,
    prefixes     cidr[] NOT NULL CHECK (cardinality(prefixes) BETWEEN 1 AND 64),
    -- Its addresses are ours.
    internal     boolean NOT NULL,
    description  text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX network_by_sensor ON network (sensor_id) WHERE sensor_id IS NOT NULL;
