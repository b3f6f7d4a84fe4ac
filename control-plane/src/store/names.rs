//! Names that begin alike: for whoever types one.

use super::{Class, Isolation, Pool, StoreError};

/// Whose names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    Sensors,
    Interfaces,
    Devices,
    Domains,
    Processes,
    Executables,
    Containers,
    Units,
    Networks,
}

/// Up to `limit` names that begin with `prefix`, in order.
pub async fn beginning_with(
    pool: &Pool,
    names: Names,
    prefix: &str,
    limit: i64,
) -> Result<Vec<String>, StoreError> {
    let sql = match names {
        Names::Sensors => "SELECT name FROM sensor WHERE starts_with(name, $1) ORDER BY name LIMIT $2",
        Names::Interfaces => {
            "SELECT DISTINCT interface FROM observation_point WHERE starts_with(interface, $1)
             ORDER BY interface LIMIT $2"
        }
        Names::Devices => {
            "SELECT DISTINCT coalesce(name, told_name) FROM device
             WHERE starts_with(lower(coalesce(name, told_name)), lower($1)) ORDER BY 1 LIMIT $2"
        }
        Names::Domains => "SELECT name FROM domain WHERE starts_with(name, $1) ORDER BY name LIMIT $2",
        Names::Networks => "SELECT name FROM network WHERE starts_with(name, $1) ORDER BY name LIMIT $2",
        Names::Processes => {
            "SELECT DISTINCT name FROM process WHERE starts_with(name, $1) ORDER BY name LIMIT $2"
        }
        Names::Executables => {
            "SELECT DISTINCT executable FROM process WHERE starts_with(executable, $1) AND executable <> ''
             ORDER BY executable LIMIT $2"
        }
        Names::Containers => {
            "SELECT DISTINCT container FROM process WHERE starts_with(container, $1) AND container <> ''
             ORDER BY container LIMIT $2"
        }
        Names::Units => {
            "SELECT DISTINCT unit FROM process WHERE starts_with(unit, $1) AND unit <> '' ORDER BY unit LIMIT $2"
        }
    };
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "names").await?;
        let result = async {
            let rows = lease.client().query(sql, &[&prefix, &limit]).await?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Query, work).await
}
