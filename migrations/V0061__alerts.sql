-- What is watched for, what was found, who is told of it, and what was told.

CREATE TABLE alert_receiver (
    receiver_id  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL UNIQUE,
    -- Where and how; a secret is in it by the name of its file only.
    target       json NOT NULL,
    repeat_s     integer NOT NULL CHECK (repeat_s BETWEEN 10 AND 604800),
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- Deliveries in a row that failed; while it is open nothing is sent but a probe at its end.
    failures     integer NOT NULL DEFAULT 0,
    open_until   timestamptz
);

CREATE TABLE alert_rule (
    rule_id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL UNIQUE,
    condition     json NOT NULL,
    for_s         integer NOT NULL CHECK (for_s BETWEEN 0 AND 86400),
    severity      text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    labels        json NOT NULL,
    summary       text NOT NULL,
    enabled       boolean NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- What a change makes anew; whoever evaluated the rule before it writes nothing.
    revision      bigint NOT NULL DEFAULT 1,
    evaluated_at  timestamptz,
    error         text
);

CREATE TABLE alert_route (
    rule_id      integer NOT NULL REFERENCES alert_rule ON DELETE CASCADE,
    receiver_id  integer NOT NULL REFERENCES alert_receiver ON DELETE CASCADE,
    PRIMARY KEY (rule_id, receiver_id)
);
CREATE INDEX alert_route_by_receiver ON alert_route (receiver_id);

-- One rule held for one group, from when it began to hold. The rule's words are copied: an alert outlives it.
CREATE TABLE alert (
    alert_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule_id      integer REFERENCES alert_rule ON DELETE SET NULL,
    rule         text NOT NULL,
    severity     text NOT NULL,
    summary      text NOT NULL,
    -- The rule's own, its name and severity, and the group's.
    labels       json NOT NULL,
    group_key    text NOT NULL,
    state        text NOT NULL CHECK (state IN ('pending', 'firing', 'resolved')),
    value        double precision NOT NULL,
    pending_at   timestamptz NOT NULL DEFAULT now(),
    firing_at    timestamptz,
    resolved_at  timestamptz,
    last_at      timestamptz NOT NULL DEFAULT now(),
    CHECK ((state = 'resolved') = (resolved_at IS NOT NULL) AND (state = 'pending' OR firing_at IS NOT NULL))
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX alert_open ON alert (rule_id, group_key) WHERE state <> 'resolved';
CREATE INDEX alert_by_state ON alert (state, alert_id);

-- What a receiver was told last of an alert; goes with the word that it is resolved.
CREATE TABLE alert_notice (
    alert_id     bigint NOT NULL REFERENCES alert ON DELETE CASCADE,
    receiver_id  integer NOT NULL REFERENCES alert_receiver ON DELETE CASCADE,
    told_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (alert_id, receiver_id)
);
CREATE INDEX alert_notice_by_receiver ON alert_notice (receiver_id);

-- The queue of what is to be said, and the log of what was.
CREATE TABLE alert_delivery (
    delivery_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The same in every attempt, for receivers that drop what they had.
    key          uuid NOT NULL DEFAULT gen_random_uuid(),
    receiver_id  integer NOT NULL REFERENCES alert_receiver ON DELETE CASCADE,
    rule         text NOT NULL,
    status       text NOT NULL CHECK (status IN ('firing', 'resolved')),
    alerts       json NOT NULL,
    state        text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'given_up')),
    attempts     integer NOT NULL DEFAULT 0,
    next_at      timestamptz NOT NULL DEFAULT now(),
    created_at   timestamptz NOT NULL DEFAULT now(),
    ended_at     timestamptz,
    last_error   text,
    CHECK ((state = 'waiting') = (ended_at IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX alert_delivery_waiting ON alert_delivery (receiver_id, delivery_id) WHERE state = 'waiting';
CREATE INDEX alert_delivery_by_receiver ON alert_delivery (receiver_id, delivery_id);

-- Alerts that nobody is told of for a time: because somebody said so, or since work was planned.
CREATE TABLE alert_silence (
    silence_id  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('silence', 'maintenance')),
    matchers    json NOT NULL,
    starts_at   timestamptz NOT NULL,
    ends_at     timestamptz NOT NULL CHECK (ends_at > starts_at),
    author      text NOT NULL,
    comment     text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX alert_silence_by_end ON alert_silence (ends_at);
