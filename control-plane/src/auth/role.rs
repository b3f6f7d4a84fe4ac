//! What someone may do: a role, and for machines the scopes that a token was made for.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Each may all that the one before may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads
    Viewer,
    /// Also changes sensors and what Weir watches for
    Operator,
    /// Also decides who may what, and reads the audit log
    Admin,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// As the database has it. Text that is no role is the least of them: the table's check rules it out.
    #[must_use]
    pub fn stored(name: &str) -> Self {
        Self::ALL.into_iter().find(|role| role.name() == name).unwrap_or(Self::Viewer)
    }
}

/// A part of the API. People have all of them, a machine's token those that it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Flows,
    Sensors,
    Detections,
    Users,
    Audit,
    /// Rules, silences, receivers
    Alerts,
    /// Background jobs and erasures
    Operations,
    Documentation,
}

impl Scope {
    pub const ALL: [Self; 8] = [
        Self::Flows,
        Self::Sensors,
        Self::Detections,
        Self::Users,
        Self::Audit,
        Self::Alerts,
        Self::Operations,
        Self::Documentation,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Sensors => "sensors",
            Self::Detections => "detections",
            Self::Users => "users",
            Self::Audit => "audit",
            Self::Alerts => "alerts",
            Self::Operations => "operations",
            Self::Documentation => "documentation",
        }
    }

    /// `None` for a scope that this version does not know: it then allows nothing.
    #[must_use]
    pub fn stored(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_contain_each_other_and_names_lead_back() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        for role in Role::ALL {
            assert_eq!(Role::stored(role.name()), role);
            assert_eq!(serde_json::to_value(role).expect("JSON"), role.name());
        }
        for scope in Scope::ALL {
            assert_eq!(Scope::stored(scope.name()), Some(scope));
            assert_eq!(serde_json::to_value(scope).expect("JSON"), scope.name());
        }
        assert_eq!(Scope::stored("everything"), None);
    }
}
