-- Devices that are erased: what is looked for, and what keeps it from coming back
-- (docs/decisions/0160-erasing-a-device.md).

-- Numbers of devices that were joined to another one: the log and events know it by these, too.
CREATE TABLE device_former (
    former_id  bigint PRIMARY KEY,
    device_id  bigint NOT NULL REFERENCES device ON DELETE CASCADE
);
CREATE INDEX device_former_by_device ON device_former (device_id);
INSERT INTO device_former (former_id, device_id)
SELECT DISTINCT ON (1) (before->1->>'id')::bigint, device_id
FROM audit JOIN device ON audit.subject_id = device_id::text
WHERE action = 'device.merge' AND subject_kind = 'device' AND before->1->>'id' IS NOT NULL
ORDER BY 1, device_id
ON CONFLICT DO NOTHING;

-- What an erasure of a device looks for; gone when it is done.
CREATE TABLE erasure_trace (
    erasure_id  integer NOT NULL REFERENCES erasure,
    -- `id`: of the device and those that were joined to it; `sensor`: one that may have seen it
    kind        text NOT NULL CHECK (kind IN ('id', 'sensor', 'key', 'address')),
    value       text COLLATE "C" NOT NULL,
    -- When an address was the device's.
    held_from   timestamptz,
    held_until  timestamptz,
    PRIMARY KEY (erasure_id, kind, value),
    CHECK (kind <> 'address' OR held_from <= held_until)
);

-- What batches that come late may not say: hashes of keys and addresses with the time for which it holds.
CREATE TABLE device_tombstone (
    tombstone_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    erasure_id    integer NOT NULL REFERENCES erasure,
    scope         text COLLATE "C" NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('key', 'address')),
    sha256        bytea NOT NULL CHECK (octet_length(sha256) = 32),
    held_from     timestamptz NOT NULL,
    -- Of a key: when the device was erased.
    held_until    timestamptz NOT NULL,
    CHECK (held_from <= held_until)
);
CREATE INDEX device_tombstone_by_hash ON device_tombstone (scope, sha256);
CREATE INDEX device_tombstone_by_end ON device_tombstone (scope, held_until);

-- Goes before what is hashed, so that no table of hashes made elsewhere fits.
CREATE TABLE device_tombstone_salt (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    salt  text NOT NULL
);
INSERT INTO device_tombstone_salt (salt) VALUES (gen_random_uuid()::text || gen_random_uuid()::text);
