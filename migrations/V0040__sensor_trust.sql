-- Sensors' credentials, the tokens that enrol them, and where they belong.

ALTER TABLE sensor
    ADD site        text CHECK (octet_length(site) BETWEEN 1 AND 63),
    ADD group_name  text CHECK (octet_length(group_name) BETWEEN 1 AND 63),
    -- An object of texts.
    ADD labels      jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(labels) = 'object');
CREATE INDEX sensor_by_group ON sensor (group_name) WHERE group_name IS NOT NULL;

-- Outlives its sensor, so that whoever still sends is told that it is gone; hence no reference.
CREATE TABLE sensor_credential (
    credential_id  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sensor_id      integer NOT NULL,
    token_sha256   bytea NOT NULL UNIQUE CHECK (octet_length(token_sha256) = 32),
    -- The sensor asked for it, with the one that it had.
    by_sensor      boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT now(),
    -- By itself, or because a later one was made.
    expires_at     timestamptz,
    revoked_at     timestamptz,
    -- Older ones are void from then on.
    first_used_at  timestamptz
);
CREATE INDEX sensor_credential_by_sensor ON sensor_credential (sensor_id, credential_id);
INSERT INTO sensor_credential (sensor_id, token_sha256, created_at, first_used_at)
SELECT sensor_id, token_sha256, created_at, (SELECT last_seen_at FROM sensor_status t WHERE t.sensor_id = s.sensor_id)
FROM sensor s;
INSERT INTO sensor_credential (sensor_id, token_sha256, created_at, first_used_at)
SELECT sensor_id, token_sha256, deleted_at, deleted_at FROM sensor_gone;
ALTER TABLE sensor DROP token_sha256;
ALTER TABLE sensor_gone DROP token_sha256;

-- One use each; only the hash is kept. Rows stay, for the list and for the answer to a second use.
CREATE TABLE enrollment (
    enrollment_id  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    token_sha256   bytea NOT NULL UNIQUE CHECK (octet_length(token_sha256) = 32),
    -- The sensor's name; where there is none, the sensor says its own.
    name           text,
    site           text,
    group_name     text,
    labels         jsonb NOT NULL DEFAULT '{}',
    created_by     text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    expires_at     timestamptz NOT NULL,
    revoked_at     timestamptz,
    used_at        timestamptz,
    -- Whom it made.
    sensor_id      integer
);
