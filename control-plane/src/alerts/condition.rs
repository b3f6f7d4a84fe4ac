//! What a rule watches for, as it is written down, and whether it can be meant.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::expression::{self, Expression};

/// Windows that rules look at, in seconds.
const WINDOW: std::ops::RangeInclusive<u32> = 10..=86_400;
/// The largest bound of a count or a time: the last whole number that every reader of JSON has exactly (RFC 8259).
const LARGEST: u64 = (1 << 53) - 1;

/// What is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Of both directions
    Packets,
    /// Layer 3, of both directions
    Octets,
    /// Flow records: one for each connection and epoch
    Flows,
}

/// What the flows of a window are told apart by; each value can have an alert of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    Sensor,
    Src,
    Dst,
    /// Protocol and the responder's port, as `6/443`
    Service,
    Protocol,
}

impl Group {
    /// The label that holds the group's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Sensor => "sensor",
            Self::Src => "src",
            Self::Dst => "dst",
            Self::Service => "service",
            Self::Protocol => "protocol",
        }
    }
}

/// How bad a detection is, as `store::detections` numbers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    #[default]
    Info,
    Low,
    Medium,
    High,
    Critical,
}

impl Weight {
    #[must_use]
    pub fn number(self) -> i16 {
        self as i16
    }
}

/// What a rule watches for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[schema(example = json!({"kind": "threshold", "measure": "octets", "by": "src", "window_s": 300, "above": 1e9}))]
pub enum Condition {
    /// The traffic of the last `window_s` seconds is above or below a bound
    Threshold {
        /// An expression that chooses flows; all flows without one
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(max_length = 4096)]
        filter: Option<String>,
        measure: Measure,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Group>,
        #[schema(minimum = 10, maximum = 86_400)]
        window_s: u32,
        /// Either this
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(minimum = 0)]
        above: Option<f64>,
        /// or that
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(minimum = 0)]
        below: Option<f64>,
    },
    /// No flow passed the filter in the last `window_s` seconds
    Absence {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(max_length = 4096)]
        filter: Option<String>,
        #[schema(minimum = 10, maximum = 86_400)]
        window_s: u32,
    },
    /// The traffic of the last `window_s` seconds over that of as many seconds before
    Change {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(max_length = 4096)]
        filter: Option<String>,
        measure: Measure,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Group>,
        #[schema(minimum = 10, maximum = 86_400)]
        window_s: u32,
        /// Either more than so many times as much
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(minimum = 0)]
        ratio_above: Option<f64>,
        /// or less than that part of it
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(minimum = 0)]
        ratio_below: Option<f64>,
        /// One of the two windows has at least this much; a window with nothing counts as 1
        #[schema(minimum = 1)]
        minimum: f64,
    },
    /// A sensor is offline, and nothing was heard of it for so long
    SensorOffline {
        #[schema(minimum = 10, maximum = 86_400)]
        after_s: u32,
    },
    /// More packets of a sensor than that were counted in the last `window_s` seconds and are not in flows:
    /// dropped, or over full tables
    LedgerLoss {
        #[schema(minimum = 10, maximum = 86_400)]
        window_s: u32,
        #[schema(maximum = 9_007_199_254_740_991u64)]
        above_packets: u64,
    },
    /// The oldest batch in a sensor's spool is older than that, or the spool's disk cannot be written
    Spool {
        #[schema(maximum = 4_294_967_295u64)]
        oldest_above_s: u32,
    },
    /// So many detections of a sensor, or more, were seen in the last `window_s` seconds; dismissed ones apart
    Detections {
        /// Of this kind, such as `port_scan`; of any without it
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(pattern = "^[a-z][a-z0-9_]{0,31}$")]
        detection: Option<String>,
        /// And at least as bad as this
        #[serde(default)]
        severity: Weight,
        #[schema(minimum = 1, maximum = 9_007_199_254_740_991u64)]
        at_least: u64,
        #[schema(minimum = 10, maximum = 86_400)]
        window_s: u32,
    },
    /// A sensor's clock is off by more than that
    Clock {
        #[schema(maximum = 9_007_199_254_740_991u64)]
        skew_above_ms: u64,
    },
}

impl Condition {
    /// What the groups of this rule are told apart by.
    #[must_use]
    pub fn group(&self) -> Option<Group> {
        match self {
            Self::Threshold { by, .. } | Self::Change { by, .. } => *by,
            Self::Absence { .. } => None,
            Self::SensorOffline { .. }
            | Self::LedgerLoss { .. }
            | Self::Detections { .. }
            | Self::Spool { .. }
            | Self::Clock { .. } => Some(Group::Sensor),
        }
    }

    /// The flows that it looks at.
    pub fn expression(&self) -> Result<Option<Expression>, expression::ExpressionError> {
        let (Self::Threshold { filter, .. } | Self::Absence { filter, .. } | Self::Change { filter, .. }) =
            self
        else {
            return Ok(None);
        };
        filter.as_deref().filter(|text| !text.trim().is_empty()).map(expression::parse).transpose()
    }

    /// For so long before now it looks back, where it looks back; [`Self::Change`] twice as far.
    #[must_use]
    pub fn window_s(&self) -> Option<u32> {
        match self {
            Self::Threshold { window_s, .. }
            | Self::Absence { window_s, .. }
            | Self::Change { window_s, .. }
            | Self::LedgerLoss { window_s, .. }
            | Self::Detections { window_s, .. } => Some(*window_s),
            Self::SensorOffline { .. } | Self::Spool { .. } | Self::Clock { .. } => None,
        }
    }

    /// The faults of what was written, each with its field.
    #[must_use]
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if let Err(error) = self.expression() {
            faults.push(("condition.filter", error.to_string()));
        }
        let mut window = |name: &'static str, seconds: u32| {
            if !WINDOW.contains(&seconds) {
                let (low, high) = (WINDOW.start(), WINDOW.end());
                faults.push((name, format!("{seconds} is not between {low} and {high}")));
            }
        };
        if let Some(seconds) = self.window_s() {
            window("condition.window_s", seconds);
        }
        if let Self::SensorOffline { after_s } = self {
            window("condition.after_s", *after_s);
        }
        let one = |high: &Option<f64>, low: &Option<f64>| {
            let given: Vec<f64> = high.iter().chain(low).copied().collect();
            given.len() == 1 && given.iter().all(|bound| bound.is_finite() && *bound >= 0.0)
        };
        match self {
            Self::Threshold { above, below, .. } if !one(above, below) => {
                faults.push(("condition.above", "give one of `above` and `below`, not negative".to_owned()));
            }
            Self::Change { ratio_above, ratio_below, minimum, .. } => {
                if !one(ratio_above, ratio_below) {
                    let told = "give one of `ratio_above` and `ratio_below`, not negative";
                    faults.push(("condition.ratio_above", told.to_owned()));
                }
                if !(minimum.is_finite() && *minimum >= 1.0) {
                    faults.push(("condition.minimum", "is not at least 1".to_owned()));
                }
            }
            Self::LedgerLoss { above_packets: bound, .. } if *bound > LARGEST => {
                faults.push(("condition.above_packets", format!("{bound} is more than {LARGEST}")));
            }
            Self::Detections { detection, at_least, .. } => {
                if detection.as_deref().is_some_and(|kind| !is_kind(kind)) {
                    let told = "is not 1 to 32 small letters, digits and `_`, a letter first";
                    faults.push(("condition.detection", told.to_owned()));
                }
                if !(1..=LARGEST).contains(at_least) {
                    faults.push(("condition.at_least", format!("{at_least} is not between 1 and {LARGEST}")));
                }
            }
            Self::Clock { skew_above_ms: bound } if *bound > LARGEST => {
                faults.push(("condition.skew_above_ms", format!("{bound} is more than {LARGEST}")));
            }
            _ => {}
        }
        faults
    }
}

/// As the table of detections has it.
fn is_kind(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    text.len() <= 32 && text.starts_with(|first: char| first.is_ascii_lowercase()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(text: &str) -> Result<Condition, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn conditions_that_cannot_be_meant_are_named() {
        let fields = |text: &str| {
            let condition = condition(text).expect(text);
            condition.faults().into_iter().map(|(field, _)| field).collect::<Vec<_>>()
        };
        let good = r#"{"kind":"threshold","filter":"dst_port = 443","measure":"octets","by":"src","window_s":60,"above":1e9}"#;
        assert_eq!(fields(good), [""; 0]);
        assert_eq!(condition(good).expect("JSON").group().map(Group::label), Some("src"));
        assert_eq!(
            fields(r#"{"kind":"threshold","filter":"dst_port is 443","measure":"octets","window_s":1}"#),
            ["condition.filter", "condition.window_s", "condition.above"]
        );
        assert_eq!(
            fields(r#"{"kind":"threshold","measure":"flows","window_s":60,"above":1,"below":2}"#),
            ["condition.above"]
        );
        assert_eq!(
            fields(r#"{"kind":"change","measure":"flows","window_s":60,"ratio_below":-1,"minimum":0}"#),
            ["condition.ratio_above", "condition.minimum"]
        );
        assert_eq!(fields(r#"{"kind":"sensor_offline","after_s":0}"#), ["condition.after_s"]);
        assert_eq!(
            fields(r#"{"kind":"clock","skew_above_ms":9007199254740992}"#),
            ["condition.skew_above_ms"]
        );
        assert_eq!(
            fields(r#"{"kind":"detections","detection":"Port scan","at_least":0,"window_s":1}"#),
            ["condition.window_s", "condition.detection", "condition.at_least"]
        );
        for wrong in [
            r#"{"kind":"weather"}"#,
            r#"{"kind":"clock","skew_above_ms":-1}"#,
            r#"{"kind":"clock","skew_above_ms":1,"colour":"blue"}"#,
            r#"{"measure":"octets"}"#,
        ] {
            assert!(condition(wrong).is_err(), "{wrong}");
        }
    }
}
