-- One row is one connection's traffic in one epoch (a biflow, RFC 5103), the initiator's side first.
--
-- Times of packets are nanoseconds since the Unix epoch, which timestamptz cannot hold; `window_start`
-- (microseconds, rounded down) is what the table is partitioned and searched by. Columns go from wide
-- to narrow, so that no byte of a row is padding.

CREATE TABLE flow (
    window_start       timestamptz NOT NULL,
    -- batch_id << 16 | position in the batch: unique without a sequence per row.
    flow_id            bigint NOT NULL,
    start_ns           bigint NOT NULL,
    first_ns           bigint NOT NULL,
    last_ns            bigint NOT NULL,
    packets            bigint NOT NULL,
    octets             bigint NOT NULL,
    reverse_packets    bigint NOT NULL,
    reverse_octets     bigint NOT NULL,
    sensor_id          integer NOT NULL,
    point_id           integer NOT NULL,
    src_port           integer NOT NULL,
    dst_port           integer NOT NULL,
    handshake_rtt_us   integer,
    sampling_interval  integer NOT NULL,
    retransmits        integer NOT NULL,
    protocol           smallint NOT NULL,
    tcp_flags          smallint NOT NULL,
    reverse_tcp_flags  smallint NOT NULL,
    tcp_state          smallint NOT NULL,
    end_reason         smallint NOT NULL,
    icmp_type          smallint NOT NULL,
    icmp_code          smallint NOT NULL,
    fragment           boolean NOT NULL,
    src                inet NOT NULL,
    dst                inet NOT NULL,
    -- Headers between Ethernet and IP, outermost first; null for a bare frame.
    link               integer[],
    -- Further observation points that the packets crossed, in order of time; null for none.
    path               integer[]
) PARTITION BY RANGE (window_start);

-- Pages through time. Rows of a batch share the first two columns and come in order of the third, so
-- an insert always appends to the same few leaf pages.
CREATE INDEX flow_by_window ON flow (window_start, sensor_id, flow_id);

-- Finds an address among many millions of rows for less than two hundredths of the table's size and
-- nearly nothing at insert: page ranges enter the index when maintenance summarises them, not row by row.
-- 1 in 1,000 ranges (of some 1,500 rows, up to 1,100 addresses) is read in vain.
CREATE INDEX flow_by_address ON flow USING brin (
    window_start,
    src inet_bloom_ops (n_distinct_per_range = -0.12, false_positive_rate = 0.001),
    dst inet_bloom_ops (n_distinct_per_range = -0.12, false_positive_rate = 0.001)
) WITH (pages_per_range = 32);
