-- Whose the local ends of flows are, as the sensors learned it.

-- Like `domain`: written before the batch that uses it, deleted once nothing that is kept can refer to it.
CREATE TABLE process (
    process_id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Each is empty where it is not known; nothing in them that a terminal or a page would obey.
    name           text COLLATE "C" NOT NULL,
    executable     text COLLATE "C" NOT NULL,
    container      text COLLATE "C" NOT NULL,
    unit           text COLLATE "C" NOT NULL,
    first_seen_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_used      date NOT NULL,
    UNIQUE (name, executable, container, unit)
);

CREATE INDEX process_by_last_used ON process (last_used);

ALTER TABLE flow
    -- Null where it is not known. No foreign key: it would cost a look at `process` for each row.
    ADD src_process_id integer,
    ADD dst_process_id integer;
