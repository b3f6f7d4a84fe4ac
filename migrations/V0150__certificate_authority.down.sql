ALTER TABLE sensor_credential DROP certified_at;
DROP TABLE certificate_authority_key;
DROP TABLE certificate_authority;
