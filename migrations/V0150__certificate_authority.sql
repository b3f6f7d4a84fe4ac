-- The authority that signs sensors' certificates, and those before it that are still trusted.

CREATE TABLE certificate_authority (
    ca_id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- X.509 in DER.
    certificate    bytea NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    -- Known to all instances before it signs; the one before is followed then.
    signs_from     timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    -- The end of the last certificate that it signed: one that was followed is trusted until then.
    trusted_until  timestamptz NOT NULL DEFAULT '-infinity'
);

-- Apart, so that nobody who reads authorities reads keys; gone as soon as the authority was followed.
CREATE TABLE certificate_authority_key (
    ca_id  integer PRIMARY KEY REFERENCES certificate_authority ON DELETE CASCADE,
    -- PKCS#8.
    key    bytea NOT NULL
);

-- Since when the sensor shows a certificate with this credential: until then it may ask for one without.
ALTER TABLE sensor_credential ADD certified_at timestamptz;
