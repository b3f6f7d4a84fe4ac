//! One question over devices, their addresses, domains and detections.
//!
//! Each kind is looked for by an index (trigrams of text, addresses by network), gives at most [`CANDIDATES`] of what
//! it finds, and ranks these; so the cost does not grow with what is stored. Ranks are comparable: how much of
//! what was asked stands in a row as a word of its own, 0 to 1; an address that was asked for has 1.

use std::time::SystemTime;

use tokio_postgres::Row;

use super::expression::like;
use super::{Class, Isolation, Pool, StoreError};

/// Rows of a kind that are ranked.
const CANDIDATES: &str = "1000";

/// What can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Device,
    Address,
    Domain,
    Detection,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Device, Self::Address, Self::Domain, Self::Detection];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Address => "address",
            Self::Domain => "domain",
            Self::Detection => "detection",
        }
    }

    /// `$1` the question in small letters, `$2` the same as a pattern, `$3` as a network if it is one, `$4` how many.
    fn sql(self) -> String {
        let text =
            "lower(coalesce(name, '') || ' ' || coalesce(told_name, '') || ' ' || coalesce(vendor, '') || ' '
                          || coalesce(owner, ''))";
        let title = "coalesce(name, told_name, vendor, (
                         SELECT value FROM device_key AS key WHERE key.device_id = device.device_id
                         ORDER BY kind, value LIMIT 1), '')";
        match self {
            Self::Device => format!(
                "SELECT device_id, {title} AS title, coalesce(type, told_type) AS detail, last_seen,
                        greatest(word_similarity($1, {text}), found.score) AS score
                 FROM (
                     (SELECT device_id, 0::real AS score FROM device WHERE {text} LIKE $2 LIMIT {CANDIDATES})
                     UNION ALL
                     (SELECT device_id, word_similarity($1, lower(value)) FROM device_fact
                      WHERE kind IN ('name', 'key') AND lower(value) LIKE $2 LIMIT {CANDIDATES})
                     UNION ALL
                     (SELECT device_id, 1 FROM device_fact WHERE address <<= $3::text::inet LIMIT {CANDIDATES})
                 ) AS hit
                 CROSS JOIN LATERAL (SELECT hit.score) AS found
                 JOIN device USING (device_id)"
            ),
            Self::Address => format!(
                "SELECT device_id, host(hit.address) AS title, {title} AS detail, seen AS last_seen, 1::real AS score
                 FROM (
                     SELECT device_id, address, max(last_seen) AS seen FROM (
                         SELECT device_id, address, last_seen FROM device_fact WHERE address <<= $3::text::inet
                         LIMIT {CANDIDATES}
                     ) AS recent GROUP BY device_id, address
                 ) AS hit JOIN device USING (device_id) WHERE $1 <> '' AND $2 <> ''"
            ),
            Self::Domain => format!(
                "SELECT domain_id::bigint AS id, name AS title, NULL::text AS detail,
                        last_used::timestamptz AS last_seen, word_similarity($1, name) AS score
                 FROM (SELECT * FROM domain WHERE name LIKE $2 LIMIT {CANDIDATES}) AS hit
                 WHERE $3::text IS NULL OR true"
            ),
            Self::Detection => format!(
                "SELECT detection_id, kind || ' ' || subject AS title, state AS detail, last_seen,
                        greatest(word_similarity($1, lower(kind || ' ' || subject)), hit.score) AS score
                 FROM (
                     (SELECT detection_id, 0::real AS score FROM detection
                      WHERE lower(kind || ' ' || subject) LIKE $2 LIMIT {CANDIDATES})
                     UNION ALL
                     (SELECT detection_id, 1 FROM detection WHERE address <<= $3::text::inet LIMIT {CANDIDATES})
                 ) AS hit JOIN detection USING (detection_id)"
            ),
        }
    }
}

/// Something that was found.
#[derive(Clone, Debug)]
pub struct Hit {
    pub kind: Kind,
    pub id: i64,
    pub title: String,
    /// A device's type, an address's device, a detection's state.
    pub detail: Option<String>,
    pub last_seen: SystemTime,
    pub score: f32,
}

/// The best `limit` of all kinds that are asked for.
pub async fn search(
    pool: &Pool,
    kinds: &[Kind],
    question: &str,
    network: Option<&str>,
    limit: usize,
) -> Result<Vec<Hit>, StoreError> {
    let question = question.to_lowercase();
    let pattern = like(&format!("*{question}*"));
    let most = limit as i64;
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "search").await?;
        let result = async {
            let mut hits = Vec::new();
            for kind in kinds {
                // A row that is found twice has its better score.
                let sql = format!(
                    "SELECT * FROM (SELECT DISTINCT ON (1, 2) * FROM ({}) AS found ORDER BY 1, 2, score DESC) AS best
                     ORDER BY score DESC, last_seen DESC, 1 LIMIT $4",
                    kind.sql()
                );
                let rows = lease.client().query(&sql, &[&question, &pattern, &network, &most]).await?;
                hits.extend(rows.iter().map(|row| hit(*kind, row)));
            }
            Ok(hits)
        }
        .await;
        lease.finish(result).await
    };
    let mut hits = pool.within(Class::Query, work).await?;
    hits.sort_by(|one, other| {
        other
            .score
            .total_cmp(&one.score)
            .then(other.last_seen.cmp(&one.last_seen))
            .then(one.kind.cmp(&other.kind))
    });
    hits.truncate(limit);
    Ok(hits)
}

fn hit(kind: Kind, row: &Row) -> Hit {
    Hit {
        kind,
        id: row.get(0),
        title: row.get(1),
        detail: row.get(2),
        last_seen: row.get(3),
        score: row.get(4),
    }
}
