//! The time window and the traffic filter that questions share.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use utoipa::IntoParams;

use super::params::{FromParams, Params};
use super::{ApiError, AppState};
use crate::expression::{self, Expression, Field, protocol_number};
use crate::naming::{Naming, Networks};
use crate::store::Reference;
use crate::store::devices::{self, HeldError};
use crate::store::filter::{Filter, Network};
use crate::store::{networks, sensors};

/// Widest window that may be asked for.
const MAX_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 400);
/// Window where only one end, or none, is given.
const DEFAULT_WINDOW: SignedDuration = SignedDuration::from_hours(1);
/// Times before 1970 and after 2200 are typing errors.
const MAX_SECOND: i64 = 7_258_118_400;

/// From when to when, as it was asked.
#[derive(Clone, Copy, Debug)]
pub struct WindowParams {
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
}

/// A window that was checked: `from` < `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub from: Timestamp,
    pub to: Timestamp,
}

impl WindowParams {
    /// Reads `from` and `to`; a window that cannot be is a fault of one of them.
    pub fn read(params: &mut Params) -> Self {
        let time = |params: &mut Params, name: &str| {
            params.parsed(
                name,
                "an RFC 3339 time between 1970 and 2200, such as 2026-01-31T12:00:00Z",
                |text| {
                    let time: Timestamp = text.parse().ok()?;
                    (0..MAX_SECOND).contains(&time.as_second()).then_some(time)
                },
            )
        };
        let (from, to) = (time(params, "from"), time(params, "to"));
        if let (Some(from), Some(to)) = (from, to) {
            if from >= to {
                params.fault("from", "is not before `to`");
            } else if to.duration_since(from) > MAX_WINDOW {
                params.fault("from", "is more than 400 days before `to`");
            }
        }
        Self { from, to }
    }

    /// The window with its defaults: the last hour, or the hour next to the end that was given.
    pub fn resolve(self, default: Option<SignedDuration>) -> Result<Window, ApiError> {
        let default = default.unwrap_or(DEFAULT_WINDOW);
        let now = Timestamp::now();
        let (from, to) = match (self.from, self.to) {
            (Some(from), Some(to)) => (from, to),
            (None, Some(to)) => (to.checked_sub(default).unwrap_or(to), to),
            (Some(from), None) if from < now => (from, now),
            (Some(from), None) => (from, from.checked_add(default).unwrap_or(from)),
            (None, None) => {
                // A window that begins in this instant was committed already when its question came in.
                let to = now.checked_add(SignedDuration::from_secs(1)).unwrap_or(now);
                (to.checked_sub(default).unwrap_or(to), to)
            }
        };
        if from >= to || to.duration_since(from) > MAX_WINDOW {
            return Err(ApiError::parameter("from", "is not within the 400 days before `to`"));
        }
        Ok(Window { from, to })
    }
}

/// What to set an answer against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Previous,
}

/// Whether to set the answer against another one.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CompareParams {
    /// `previous`: show the window of equal length before this one, too
    #[param(value_type = Option<String>, example = "previous", pattern = "^previous$")]
    pub compare: Option<Compare>,
}

impl FromParams for CompareParams {
    fn read(params: &mut Params) -> Self {
        Self { compare: params.choice("compare", &[("previous", Compare::Previous)]) }
    }
}

/// The parameters that choose flows, as `/flows`, `/flows/top` and `/flows/timeseries` take them.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FilterParams {
    /// Flows whose window starts at or after this time (RFC 3339). Default: one hour before `to`
    #[param(value_type = Option<String>, format = "date-time", example = "2026-01-31T12:00:00Z")]
    pub from: Option<Timestamp>,
    /// Flows whose window starts before this time (RFC 3339). Default: now
    #[param(value_type = Option<String>, format = "date-time", example = "2026-01-31T13:00:00Z")]
    pub to: Option<Timestamp>,
    /// Initiator's address or network
    #[param(value_type = Option<String>, example = "10.0.0.0/8")]
    pub src: Option<Network>,
    /// Responder's address or network
    #[param(value_type = Option<String>, example = "2001:db8::1")]
    pub dst: Option<Network>,
    /// Address or network of either side
    #[param(value_type = Option<String>, example = "192.0.2.7")]
    pub address: Option<Network>,
    /// Port of either side
    #[param(maximum = 65535, example = 443)]
    pub port: Option<u16>,
    /// Initiator's port
    #[param(maximum = 65535, example = 50123)]
    pub src_port: Option<u16>,
    /// Responder's port
    #[param(maximum = 65535, example = 443)]
    pub dst_port: Option<u16>,
    /// IP protocol as a number (0 to 255) or a name such as `tcp`, `udp`, `icmp`
    #[param(value_type = Option<String>, example = "tcp")]
    pub protocol: Option<u8>,
    /// Sensor's id or name
    #[param(value_type = Option<String>, example = "edge-1")]
    pub sensor: Option<Reference>,
    /// At least this many layer-3 octets, both directions together
    #[param(minimum = 0, example = 1000)]
    pub min_octets: Option<u64>,
    /// An expression, for what the other parameters cannot say; all must hold
    #[param(value_type = Option<String>, max_length = 4096, example = "dst_port in (80, 443) and not src = 10.0.0.0/8")]
    pub filter: Option<Expression>,
}

impl FromParams for FilterParams {
    fn read(params: &mut Params) -> Self {
        let WindowParams { from, to } = WindowParams::read(params);
        let network = |params: &mut Params, name: &str| {
            params.parsed(name, "an IP address or network, such as 10.0.0.0/8 or 2001:db8::1", Network::parse)
        };
        let port = |params: &mut Params, name: &str| {
            params.number(name, 0..=u64::from(u16::MAX)).map(|port| port as u16)
        };
        Self {
            from,
            to,
            src: network(params, "src"),
            dst: network(params, "dst"),
            address: network(params, "address"),
            port: port(params, "port"),
            src_port: port(params, "src_port"),
            dst_port: port(params, "dst_port"),
            protocol: params.parsed("protocol", "a protocol's number or name", protocol_number),
            sensor: params.parsed("sensor", "a sensor's id or name", sensors::named),
            min_octets: params.number("min_octets", 0..=i64::MAX as u64),
            filter: expression(params),
        }
    }
}

/// An empty text is no filter: a field that nobody filled in.
fn expression(params: &mut Params) -> Option<Expression> {
    let text = params.text("filter").filter(|text| !text.trim().is_empty())?;
    match expression::parse(&text) {
        Ok(expression) => Some(expression),
        Err(error) => {
            params.fault("filter", error.to_string());
            None
        }
    }
}

impl FilterParams {
    /// The window, with its defaults.
    pub fn window(&self) -> Result<Window, ApiError> {
        WindowParams { from: self.from, to: self.to }.resolve(None)
    }

    /// The filter over a window; a sensor that is not there is a fault of the parameter. What networks are called is
    /// only read where the filter asks for it, or the answer shows it.
    pub async fn filter(
        &self,
        state: &AppState,
        window: Window,
        shows_networks: bool,
    ) -> Result<Filter, ApiError> {
        let sensor_id = match &self.sensor {
            None => None,
            Some(sensor) => Some(
                sensors::find(&state.pool, sensor)
                    .await?
                    .ok_or_else(|| ApiError::parameter("sensor", "no sensor has this id or name"))?,
            ),
        };
        let expression = match &self.filter {
            None => None,
            Some(filter) => Some(devices::resolve(&state.pool, filter, (window.from, window.to)).await?),
        };
        let asks_networks = self.filter.as_ref().is_some_and(|filter| filter.has(Field::is_of_networks));
        let naming = if shows_networks || asks_networks {
            networks::naming(&state.pool, &state.services).await?
        } else {
            Naming { networks: Networks::default(), services: Arc::clone(&state.services) }
        };
        Ok(Filter {
            from: window.from,
            to: window.to,
            sensor_id,
            src: self.src,
            dst: self.dst,
            address: self.address,
            port: self.port,
            src_port: self.src_port,
            dst_port: self.dst_port,
            protocol: self.protocol,
            min_octets: self.min_octets,
            expression,
            naming: Arc::new(naming),
        })
    }
}

impl From<HeldError> for ApiError {
    fn from(error: HeldError) -> Self {
        match error {
            HeldError::TooMany => Self::parameter("filter", error.to_string()),
            HeldError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_sane_defaults() {
        let none = WindowParams { from: None, to: None }.resolve(None).expect("the last hour");
        assert_eq!(none.to.duration_since(none.from), DEFAULT_WINDOW);
        let to: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let window = WindowParams { from: None, to: Some(to) }.resolve(None).expect("the hour before");
        assert_eq!(window.from.to_string(), "2025-12-31T23:00:00Z");
        let ancient = WindowParams { from: Some(Timestamp::UNIX_EPOCH), to: None };
        assert!(ancient.resolve(None).is_err());
    }
}
