-- Three more dimensions of the rollups (see V0004): whom flows were with.
--   6 domain        number = domain_id
--   7 country       number = the responder's country, 256 * its first letter + its second (ASCII)
--   8 system        number = the responder's autonomous system, its 32 bits as an integer
-- They hold what is known: the sum over one is that of the flows with a name, a country, a system.

ALTER TABLE rollup_1m RENAME port TO number;
ALTER TABLE rollup_1h RENAME port TO number;
