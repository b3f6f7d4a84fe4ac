//! The numbers of Weir's advisory locks, all in one place so that no two things share one.
//!
//! Single numbers are for what there is once; "weir" in ASCII, then a count. Classes are the first of two
//! numbers, the second is what the lock is about; Postgres keeps the two kinds apart.

/// Of whoever changes the schema.
pub(super) const MIGRATIONS: i64 = 0x7765_6972_0000_0001;
/// Of whoever makes or drops partitions.
pub(super) const PARTITIONS: i64 = 0x7765_6972_0000_0002;
/// Of whoever adds or drops a signing key.
pub(super) const SIGNING: i64 = 0x7765_6972_0000_0003;
/// Of a change that takes an admin away, so that two cannot each count on the other's admin.
pub(super) const LAST_ADMIN: i64 = 0x7765_6972_0000_0004;

/// Held beside others ([`BESIDE`]) by whoever stores with numbers of names; alone by whoever makes a new edition.
pub(super) const DICTIONARY: i64 = 0x7765_6972_0000_0005;

/// Of whoever makes an authority for sensors' certificates.
pub(super) const AUTHORITY: i64 = 0x7765_6972_0000_0006;
/// Of whoever hides a device in flows: rows with two of them are rewritten one after the other.
pub(super) const HIDING: i64 = 0x7765_6972_0000_0007;

/// Of whoever changes networks: how many there are, and that no two have the same prefix.
pub(super) const NETWORKS: i64 = 0x7765_6972_0000_0008;

/// With a sensor's id. Held shared by each transaction that stores for a sensor ([`SHARED`]). Whoever ends a
/// sensor takes the same lock for itself ([`EXCLUSIVE`]): it waits for what is in flight and, unlike at a lock
/// of the row, stands in a queue, so that a sensor which never pauses cannot put off its own end.
pub(super) const SENSOR: i32 = 0x7765_6972;
/// With a sensor's id: of whoever appends an event of that sensor, until its commit.
pub(super) const EVENTS: i32 = 0x7765_6973;

/// With the hash of a site: of whoever says which device a key leads to, until the transaction ends. Taken after the
/// rows of a batch and before the status of its sensor.
pub(super) const DEVICES: i32 = 0x7765_6974;

/// Takes a lock of a class beside others, until the transaction ends.
pub(super) const SHARED: &str = "SELECT pg_advisory_xact_lock_shared($1, $2)";
/// Takes a lock of a class alone, until the transaction ends.
pub(super) const EXCLUSIVE: &str = "SELECT pg_advisory_xact_lock($1, $2)";
/// Takes a single lock, until the transaction ends.
pub(super) const ALONE: &str = "SELECT pg_advisory_xact_lock($1)";
/// Takes a single lock beside others, until the transaction ends.
pub(super) const BESIDE: &str = "SELECT pg_advisory_xact_lock_shared($1)";
