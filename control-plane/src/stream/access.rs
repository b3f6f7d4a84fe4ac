//! Who may follow what.

use crate::auth::{Principal, Role, Scope, Who};
use crate::store::events::Topic;

/// What a topic asks of whoever reads it: the same as the routes that show what it tells of.
#[must_use]
pub fn asks(topic: Topic) -> (Role, Scope) {
    match topic {
        Topic::Flows | Topic::Devices => (Role::Viewer, Scope::Flows),
        Topic::Detections => (Role::Viewer, Scope::Detections),
        Topic::Ledger | Topic::Sensors | Topic::Alerts => (Role::Viewer, Scope::Sensors),
        Topic::Jobs => (Role::Operator, Scope::Operations),
        Topic::Audit => (Role::Admin, Scope::Audit),
    }
}

/// Whether somebody with this role, and these scopes if it is a machine, may read a topic.
#[must_use]
pub fn may(role: Role, scopes: Option<&[Scope]>, topic: Topic) -> bool {
    let (least, scope) = asks(topic);
    role >= least && scopes.is_none_or(|scopes| scopes.contains(&scope))
}

/// The topics of which a caller may read events.
#[must_use]
pub fn topics(principal: &Principal) -> Vec<Topic> {
    let scopes = match &principal.who {
        Who::Machine { scopes, .. } => Some(&scopes[..]),
        Who::AdminToken | Who::User { .. } => None,
    };
    Topic::ALL.into_iter().filter(|topic| may(principal.role, scopes, *topic)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(role: Role, scopes: Option<&[Scope]>) -> Vec<&'static str> {
        Topic::ALL.into_iter().filter(|topic| may(role, scopes, *topic)).map(Topic::name).collect()
    }

    #[test]
    fn u2_topics_follow_roles_and_scopes() {
        let viewer = ["flows", "ledger", "sensors", "alerts", "detections", "devices"];
        assert_eq!(read(Role::Viewer, None), viewer);
        assert_eq!(read(Role::Operator, None), [&viewer[..], &["jobs"]].concat());
        assert_eq!(read(Role::Admin, None), Topic::ALL.map(Topic::name));
        assert_eq!(read(Role::Admin, Some(&[Scope::Audit])), ["audit"]);
        assert_eq!(read(Role::Viewer, Some(&[Scope::Flows])), ["flows", "devices"]);
        assert!(read(Role::Viewer, Some(&[Scope::Audit])).is_empty());
    }
}
