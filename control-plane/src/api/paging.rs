//! Pages of the lists of users, sessions, tokens and audit rows: a size, and a signed token of where the
//! page before ended.

use utoipa::IntoParams;

use super::params::{FromParams, Params};
use super::{ApiError, AppState, cursor};

const DEFAULT_LIMIT: u16 = 100;
/// A token has 43 characters at most; longer text is none.
const MAX_TOKEN: usize = 128;

/// Which page of a list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// Items in a page
    #[param(minimum = 1, maximum = 1000, default = 100, example = 50)]
    pub limit: Option<u16>,
    /// `continuation` of the page before; all other parameters but `limit` must be the same
    pub continuation: Option<String>,
}

impl FromParams for PageParams {
    fn read(params: &mut Params) -> Self {
        Self {
            limit: params.number("limit", 1..=1_000).map(|limit| limit as u16),
            continuation: params.parsed("continuation", "a continuation token", |text| {
                (!text.is_empty() && text.len() <= MAX_TOKEN).then(|| text.to_owned())
            }),
        }
    }
}

impl PageParams {
    pub fn limit(&self) -> usize {
        usize::from(self.limit.unwrap_or(DEFAULT_LIMIT))
    }

    /// Where the page before ended.
    pub fn after<const N: usize>(
        &self,
        state: &AppState,
        list: &str,
        given: &[(String, String)],
    ) -> Result<Option<[u8; N]>, ApiError> {
        let Some(token) = &self.continuation else { return Ok(None) };
        let position =
            cursor::open_position(state.auth.continuation_key(), list, cursor::question(given), token);
        position.map(Some).ok_or_else(|| {
            ApiError::parameter(
                "continuation",
                "is not a continuation token of this question; begin without one",
            )
        })
    }

    /// Takes what was read beyond the page away, and gives the token of the next page if there is one.
    pub fn next<T, const N: usize>(
        &self,
        state: &AppState,
        list: &str,
        given: &[(String, String)],
        found: &mut Vec<T>,
        position: impl Fn(&T) -> [u8; N],
    ) -> Option<String> {
        let more = found.len() > self.limit();
        found.truncate(self.limit());
        let last = found.last().filter(|_| more)?;
        let key = state.auth.continuation_key();
        Some(cursor::seal_position(key, list, cursor::question(given), &position(last)))
    }
}
