-- What sensors say is a problem. A batch adds to the detection that is open for its kind and subject.

CREATE TABLE detection (
    detection_id  bigint GENERATED ALWAYS AS IDENTITY,
    sensor_id     integer NOT NULL REFERENCES sensor,
    -- A newer sensor knows kinds that this version does not.
    kind          text NOT NULL CHECK (kind ~ '^[a-z][a-z0-9_]{0,31}$'),
    -- 0 info, 1 low, 2 medium, 3 high, 4 critical; never less than it was.
    severity      smallint NOT NULL CHECK (severity BETWEEN 0 AND 4),
    -- From a sensor's bytes: cleaned and bounded before it comes here.
    subject       text NOT NULL CHECK (octet_length(subject) BETWEEN 1 AND 1024),
    address       inet,
    technique     text NOT NULL,
    source        text NOT NULL,
    first_seen    timestamptz NOT NULL,
    last_seen     timestamptz NOT NULL,
    count         bigint NOT NULL CHECK (count >= 0),
    -- Names with their values, of the last epoch that told any.
    evidence      jsonb NOT NULL,
    state         text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'acknowledged', 'dismissed')),
    state_at      timestamptz,
    state_by      text,
    reason        text CHECK (octet_length(reason) <= 2048),
    -- Set when it came back after a long silence: that is another row, and this one is added to no more.
    ended_at      timestamptz,
    PRIMARY KEY (sensor_id, detection_id)
);
CREATE UNIQUE INDEX detection_open ON detection (sensor_id, kind, subject) WHERE ended_at IS NULL;
CREATE INDEX detection_by_id ON detection (detection_id);
CREATE INDEX detection_active ON detection (detection_id) WHERE state = 'active';
CREATE INDEX detection_by_address ON detection (address, detection_id);
CREATE INDEX detection_by_kind ON detection (kind, detection_id);
CREATE INDEX detection_by_last_seen ON detection (last_seen);

-- The receipt of an erased sensor counts them.
ALTER TABLE sensor ADD erased_detections bigint NOT NULL DEFAULT 0;
ALTER TABLE sensor_gone ADD detections bigint NOT NULL DEFAULT 0;
