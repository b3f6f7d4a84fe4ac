-- For clients that cannot send a header: one stream, once, within seconds. Goes with what it stands for.

CREATE TABLE stream_ticket (
    ticket_sha256  bytea PRIMARY KEY CHECK (octet_length(ticket_sha256) = 32),
    -- Neither: the admin token of the configuration.
    session_id     uuid REFERENCES session ON DELETE CASCADE,
    api_token_id   integer REFERENCES api_token ON DELETE CASCADE,
    -- Of the access token that it was made with.
    valid_until    timestamptz,
    expires_at     timestamptz NOT NULL,
    CHECK (session_id IS NULL OR api_token_id IS NULL)
);
CREATE INDEX stream_ticket_by_session ON stream_ticket (session_id);
CREATE INDEX stream_ticket_by_api_token ON stream_ticket (api_token_id);
