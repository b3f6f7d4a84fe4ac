-- A sensor keeps its newest credential that is valid, else its newest.
ALTER TABLE sensor ADD token_sha256 bytea CHECK (octet_length(token_sha256) = 32);
UPDATE sensor s SET token_sha256 = (
    SELECT token_sha256 FROM sensor_credential c WHERE c.sensor_id = s.sensor_id
    ORDER BY revoked_at IS NULL DESC, first_used_at IS NOT NULL DESC, credential_id DESC LIMIT 1);
ALTER TABLE sensor ALTER token_sha256 SET NOT NULL, ADD UNIQUE (token_sha256);
ALTER TABLE sensor_gone ADD token_sha256 bytea CHECK (octet_length(token_sha256) = 32);
UPDATE sensor_gone g SET token_sha256 = (
    SELECT token_sha256 FROM sensor_credential c WHERE c.sensor_id = g.sensor_id
    ORDER BY credential_id DESC LIMIT 1);
ALTER TABLE sensor_gone ALTER token_sha256 SET NOT NULL, ADD UNIQUE (token_sha256);
DROP TABLE enrollment;
DROP TABLE sensor_credential;
DROP INDEX sensor_by_group;
ALTER TABLE sensor DROP site, DROP group_name, DROP labels;
