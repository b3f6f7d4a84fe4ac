-- Who is on the networks that sensors watch: one row a device and site, with what each sensor told of it
-- (docs/decisions/0110-devices.md).

-- Here and not only with the names: search needs it for devices, too.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

CREATE TABLE device (
    device_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- A site's name; of a sensor without a site `#` and its id, which no site is called.
    scope       text COLLATE "C" NOT NULL,
    first_seen  timestamptz NOT NULL,
    last_seen   timestamptz NOT NULL,
    -- What follows from `device_fact`, so that lists need not look there.
    vendor      text,
    told_name   text,
    told_type   text,
    told_score  integer,
    -- What operators said; it is final.
    name        text CHECK (octet_length(name) BETWEEN 1 AND 256),
    type        text CHECK (type ~ '^[a-z_]{1,32}$'),
    notes       text CHECK (octet_length(notes) <= 16384),
    owner       text CHECK (octet_length(owner) BETWEEN 1 AND 512)
);
CREATE UNIQUE INDEX device_by_name ON device (scope, lower(name)) WHERE name IS NOT NULL;
CREATE INDEX device_by_scope ON device (scope, device_id);
CREATE INDEX device_by_last_seen ON device (last_seen);
CREATE INDEX device_by_trigram ON device USING gin (
    lower(coalesce(name, '') || ' ' || coalesce(told_name, '') || ' ' || coalesce(vendor, '') || ' '
          || coalesce(owner, '')) gin_trgm_ops);

-- What a device is known by: each key leads to one device of a site.
CREATE TABLE device_key (
    scope      text COLLATE "C" NOT NULL,
    kind       text NOT NULL CHECK (kind ~ '^[a-z][a-z0-9_]{0,31}$'),
    value      text COLLATE "C" NOT NULL CHECK (octet_length(value) BETWEEN 1 AND 288),
    device_id  bigint NOT NULL REFERENCES device ON DELETE CASCADE,
    PRIMARY KEY (scope, kind, value)
);
CREATE INDEX device_key_by_device ON device_key (device_id);

-- What sensors told, each fact with its time. Joining is least and greatest: the same in any order, any number of
-- times.
CREATE TABLE device_fact (
    device_id   bigint NOT NULL REFERENCES device ON DELETE CASCADE,
    sensor_id   integer NOT NULL REFERENCES sensor,
    -- `seen` (that it was there), `key`, `address`, `name`, `reason` (for its type), `vendor`
    kind        text NOT NULL CHECK (kind IN ('seen', 'key', 'address', 'name', 'reason', 'vendor')),
    -- The kind of a key, who told a name, the rule of a reason; else empty.
    source      text NOT NULL,
    -- The key, the address, the name, the type, the vendor; else empty.
    value       text COLLATE "C" NOT NULL,
    address     inet,
    weight      integer,
    detail      text,
    first_seen  timestamptz NOT NULL,
    last_seen   timestamptz NOT NULL,
    PRIMARY KEY (device_id, sensor_id, kind, source, value)
);
CREATE INDEX device_fact_by_sensor ON device_fact (sensor_id);
CREATE INDEX device_fact_by_address ON device_fact USING gist (address inet_ops) WHERE address IS NOT NULL;
CREATE INDEX device_fact_by_trigram ON device_fact USING gin (lower(value) gin_trgm_ops)
    WHERE kind IN ('name', 'key');
