-- Settings that are pushed to sensors: every version of each sensor's and each group's, and what became of them.

CREATE TABLE sensor_configuration (
    -- Of the one or of the other.
    sensor_id   integer REFERENCES sensor ON DELETE CASCADE,
    group_name  text CHECK (octet_length(group_name) BETWEEN 1 AND 63),
    version     integer NOT NULL CHECK (version > 0),
    -- The whole, not what changed: an object of settings by key.
    settings    json NOT NULL,
    author      text NOT NULL,
    comment     text NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- It is that version again.
    restores    integer,
    CHECK ((sensor_id IS NULL) <> (group_name IS NULL))
);
CREATE UNIQUE INDEX sensor_configuration_of_sensor ON sensor_configuration (sensor_id, version)
    WHERE sensor_id IS NOT NULL;
CREATE UNIQUE INDEX sensor_configuration_of_group ON sensor_configuration (group_name, version)
    WHERE group_name IS NOT NULL;

-- What a sensor says of the settings that were pushed to it, as it said last.
CREATE TABLE sensor_configuration_report (
    sensor_id    integer PRIMARY KEY REFERENCES sensor ON DELETE CASCADE,
    -- In force; null: none that was pushed.
    in_force     text,
    -- On trial: in force until it is known whether the sensor is well with it.
    trial        text,
    refused      text,
    reason       text,
    reported_at  timestamptz NOT NULL DEFAULT now(),
    CHECK ((refused IS NULL) = (reason IS NULL))
);
