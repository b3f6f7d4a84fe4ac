//! Rules, alerts, silences, receivers and deliveries.
//!
//! [`samples`] asks what a rule finds, [`states`] makes alerts of it in one transaction, [`notices`] queues what is
//! to be said of them, [`deliveries`] is that queue and its log.

pub mod deliveries;
pub mod notices;
pub mod receivers;
pub mod rules;
pub mod samples;
pub mod silences;
pub mod states;

use super::StoreError;

/// Why a rule, a silence or a receiver was left as it was.
#[derive(Debug, thiserror::Error)]
pub enum AlertError {
    #[error("there is no such thing")]
    Unknown,
    #[error("the name is taken")]
    Taken,
    #[error("there is no receiver {0}")]
    NoReceiver(i32),
    #[error("there are {0} already, which is the bound")]
    TooMany(i64),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn taken(error: tokio_postgres::Error) -> AlertError {
    if error.code() == Some(&tokio_postgres::error::SqlState::UNIQUE_VIOLATION) {
        return AlertError::Taken;
    }
    StoreError::from(error).into()
}

/// Runs a change under the time limit of its class.
async fn within<T>(
    pool: &super::Pool,
    work: impl Future<Output = Result<T, AlertError>>,
) -> Result<T, AlertError> {
    let work = async {
        match work.await {
            Ok(value) => Ok(Ok(value)),
            Err(AlertError::Store(error)) => Err(error),
            Err(refused) => Ok(Err(refused)),
        }
    };
    pool.within(super::Class::Admin, work).await?
}
