-- Sums of `flow` by minute and by hour, kept by the transaction that stores the rows, so they are never
-- behind and never count twice.
--
-- A bucket holds, for each sensor, the same packets five times, once per dimension:
--   1 source       src
--   2 destination  dst
--   3 pair         src, dst
--   4 service      protocol, port (the responder's)
--   5 protocol     protocol
-- A column that a dimension does not use holds "any": '::/0' for an address, -1 for a number. In
-- dimensions 1 to 4 a batch names only its largest keys (see ingest/rollup.rs) and adds the rest to the
-- row whose columns are all "any", so that the sum over each dimension is exact. When a bucket is over, a
-- job trims it in the same way: what all its batches named together is often ten times as much.
-- Dimension 5 is complete.

CREATE TABLE rollup_1m (
    bucket           timestamptz NOT NULL,
    flows            bigint NOT NULL,
    packets          bigint NOT NULL,
    octets           bigint NOT NULL,
    reverse_packets  bigint NOT NULL,
    reverse_octets   bigint NOT NULL,
    sensor_id        integer NOT NULL,
    port             integer NOT NULL,
    dimension        smallint NOT NULL,
    protocol         smallint NOT NULL,
    src              inet NOT NULL,
    dst              inet NOT NULL,
    PRIMARY KEY (dimension, bucket, sensor_id, src, dst, protocol, port)
) PARTITION BY RANGE (bucket);

CREATE TABLE rollup_1h (
    bucket           timestamptz NOT NULL,
    flows            bigint NOT NULL,
    packets          bigint NOT NULL,
    octets           bigint NOT NULL,
    reverse_packets  bigint NOT NULL,
    reverse_octets   bigint NOT NULL,
    sensor_id        integer NOT NULL,
    port             integer NOT NULL,
    dimension        smallint NOT NULL,
    protocol         smallint NOT NULL,
    src              inet NOT NULL,
    dst              inet NOT NULL,
    PRIMARY KEY (dimension, bucket, sensor_id, src, dst, protocol, port)
) PARTITION BY RANGE (bucket);
