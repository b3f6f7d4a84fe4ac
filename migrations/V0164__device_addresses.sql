-- Whose an address was, for a page of flows: some hundred addresses at once, each exactly.
CREATE INDEX device_fact_by_exact_address ON device_fact (address, device_id) WHERE kind = 'address';
