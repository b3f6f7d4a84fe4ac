-- What responders are called and where addresses are, as the sensors learned it.

-- For `name ~ "*.example.org"`, `GET /api/v1/domains?q=` and completion at any number of names.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- Names are written before the batch that uses them, in a transaction of their own, so that two batches
-- with one new name do not wait for each other's rows. A name without flows harms nobody; a job deletes it
-- once `last_used` is older than any flow that is kept.
CREATE TABLE domain (
    domain_id      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Small letters, at most 255 bytes, nothing that a terminal or a page would obey. In the order of bytes,
    -- so that the index also finds what a name begins with.
    name           text COLLATE "C" NOT NULL UNIQUE,
    first_seen_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- To the day, so that it costs a write a day and not one a batch.
    last_used      date NOT NULL
);

CREATE INDEX domain_by_trigram ON domain USING gin (name gin_trgm_ops);
CREATE INDEX domain_by_last_used ON domain (last_used);

CREATE TABLE autonomous_system (
    asn           bigint PRIMARY KEY,
    -- As a sensor's database last had it.
    organisation  text NOT NULL,
    last_used     date NOT NULL
);

ALTER TABLE flow
    -- Null where it is not known. No foreign key: it would cost a look at `domain` for each row.
    ADD domain_id    integer,
    -- weir_wire::NameSource
    ADD name_source  smallint,
    -- ISO 3166-1 alpha-2
    ADD src_country  text,
    ADD dst_country  text,
    ADD src_asn      bigint,
    ADD dst_asn      bigint;
