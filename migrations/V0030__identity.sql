-- Who may ask: people, their sessions, machines' tokens; who tried to; and who changed what.

CREATE TABLE account (
    user_id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Never only digits, so that a path can name a user by id or by name. Small letters only: no two
    -- names that look the same.
    name                 text NOT NULL UNIQUE
                         CHECK (name ~ '^[a-z0-9][a-z0-9._@-]{0,62}$' AND name !~ '^[0-9]+$'),
    role                 text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    -- Argon2id as a PHC string.
    password_hash        text NOT NULL,
    created_at           timestamptz NOT NULL DEFAULT now(),
    password_changed_at  timestamptz NOT NULL DEFAULT now(),
    disabled_at          timestamptz,
    last_active_at       timestamptz
);

-- One login and all refresh tokens that came of it: the family that ends together.
CREATE TABLE session (
    session_id      uuid PRIMARY KEY,
    user_id         integer NOT NULL REFERENCES account,
    created_at      timestamptz NOT NULL DEFAULT now(),
    -- Whatever is refreshed, it ends here.
    expires_at      timestamptz NOT NULL,
    ended_at        timestamptz,
    ended_because   text,
    last_active_at  timestamptz NOT NULL DEFAULT now(),
    address         text NOT NULL,
    user_agent      text NOT NULL
);
CREATE INDEX session_by_user ON session (user_id);
CREATE INDEX session_by_expiry ON session (expires_at);

-- A used one stays until its session goes: whoever shows it again has stolen it, or was stolen from.
CREATE TABLE refresh_token (
    token_sha256  bytea PRIMARY KEY CHECK (octet_length(token_sha256) = 32),
    session_id    uuid NOT NULL REFERENCES session ON DELETE CASCADE,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    used_at       timestamptz
);
CREATE INDEX refresh_token_by_session ON refresh_token (session_id);

-- For machines. Its role is never more than its owner's at the time of use.
CREATE TABLE api_token (
    api_token_id  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 63),
    -- NULL: made with the admin token of the configuration.
    user_id       integer REFERENCES account,
    token_sha256  bytea NOT NULL UNIQUE CHECK (octet_length(token_sha256) = 32),
    role          text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    scopes        text[] NOT NULL CHECK (cardinality(scopes) > 0),
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz,
    revoked_at    timestamptz,
    last_used_at  timestamptz
);
CREATE INDEX api_token_by_user ON api_token (user_id);

-- Failed logins by account (kind 0), by name that no account has (1), by address (2). Names and addresses
-- of strangers are keyed hashes in a fixed number of buckets, so nobody can fill the table.
CREATE TABLE login_throttle (
    kind           smallint NOT NULL CHECK (kind BETWEEN 0 AND 2),
    bucket         integer NOT NULL,
    failures       integer NOT NULL,
    last_at        timestamptz NOT NULL,
    blocked_until  timestamptz NOT NULL,
    PRIMARY KEY (kind, bucket)
) WITH (fillfactor = 50);

-- One use each; only the hash is kept.
CREATE TABLE setup_link (
    token_sha256  bytea PRIMARY KEY CHECK (octet_length(token_sha256) = 32),
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL
);

-- Ed25519 keys that sign access tokens. The newest whose `signs_from` has come signs; the others verify
-- what they signed.
CREATE TABLE signing_key (
    kid         text PRIMARY KEY,
    seed        bytea NOT NULL CHECK (octet_length(seed) = 32),
    created_at  timestamptz NOT NULL DEFAULT now(),
    signs_from  timestamptz NOT NULL
);

-- What all instances must have the same: the key of continuation tokens and of the buckets above.
CREATE TABLE server_secret (
    name   text PRIMARY KEY,
    value  bytea NOT NULL CHECK (octet_length(value) = 32)
);

-- Append-only. The actor's name is text, so the row outlives the actor.
CREATE TABLE audit (
    audit_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor_kind  text NOT NULL,
    actor_id    text,
    actor_name  text NOT NULL,
    action      text NOT NULL,
    subject_kind text NOT NULL,
    subject_id  text,
    subject_name text,
    before      jsonb,
    after       jsonb,
    address     text,
    request_id  text
);

CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only';
END $$;
CREATE TRIGGER audit_rows_stay BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER audit_table_stays BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
