-- One more dimension of the rollups (see V0004 and V0091): whose flows they were.
--   9 process       number = process_id: the initiator's where it is known, else the responder's
-- It holds what is known, as the dimensions 6 to 8 do. Buckets from before this version have none.

-- Processes of the flows that an erasure of a device has hidden: the sums by them follow. Gone when it is done.
CREATE TABLE erasure_process (
    erasure_id  integer NOT NULL REFERENCES erasure,
    process_id  integer NOT NULL,
    PRIMARY KEY (erasure_id, process_id)
);
