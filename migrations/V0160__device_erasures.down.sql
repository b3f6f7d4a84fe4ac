DROP TABLE device_tombstone_salt;
DROP TABLE device_tombstone;
DROP TABLE erasure_trace;
DROP TABLE device_former;
-- An older version does not know the kind; what it erased stays erased.
DELETE FROM erasure_domain USING erasure WHERE erasure.erasure_id = erasure_domain.erasure_id AND kind = 'device';
DELETE FROM erasure_place USING erasure WHERE erasure.erasure_id = erasure_place.erasure_id AND kind = 'device';
DELETE FROM erasure WHERE kind = 'device';
DELETE FROM erasure_confirmation WHERE kind = 'device';
