//! Changes that a rule of ours may refuse, and how their transactions end.

use super::{Lease, StoreError};

/// Why a change was not made: an error of the database's, or a refusal by a rule of ours.
pub(super) trait Refusal: Sized {
    /// The database's error; the refusal itself where it is one.
    fn into_store(self) -> Result<StoreError, Self>;
}

macro_rules! refusals {
    ($($error:path),+ $(,)?) => {$(
        impl Refusal for $error {
            fn into_store(self) -> Result<StoreError, Self> {
                match self {
                    Self::Store(error) => Ok(error),
                    refusal => Err(refusal),
                }
            }
        }
    )+};
}

refusals!(
    super::alerts::AlertError,
    super::authority::IssueError,
    super::configuration::PutError,
    super::credentials::RotateError,
    super::devices::ChangeError,
    super::enrollments::EnrollError,
    super::erasure::EraseError,
    super::networks::NetworkError,
    super::users::UserError,
);

impl Lease<'_> {
    /// Commits on `Ok` and rolls back on every error; of these only the database's counts as a rollback.
    pub(super) async fn settle<T, E: Refusal>(
        self,
        result: Result<T, E>,
    ) -> Result<Result<T, E>, StoreError> {
        match result.map_err(Refusal::into_store) {
            Ok(value) => self.finish(Ok(Ok(value))).await,
            Err(Ok(error)) => self.finish(Err(error)).await,
            Err(Err(refusal)) => self.undo().await.map(|()| Err(refusal)),
        }
    }
}
