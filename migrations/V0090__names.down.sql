-- The extension stays: others may use it.
ALTER TABLE flow
    DROP domain_id, DROP name_source, DROP src_country, DROP dst_country, DROP src_asn, DROP dst_asn;
DROP TABLE autonomous_system;
DROP TABLE domain;
