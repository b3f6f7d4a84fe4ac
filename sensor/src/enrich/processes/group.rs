//! What the path of a control group says: which container or unit its processes are in.

/// Digits of a container's id in every runtime that has ids.
const ID_DIGITS: usize = 64;

/// A control group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub container: String,
    pub unit: String,
}

impl Group {
    /// Of a path such as `/system.slice/docker-0123….scope`. The innermost container counts, and the outermost
    /// unit: what runs within a container has units of its own, which are not this host's.
    pub fn of(path: &str) -> Self {
        let parts = || path.split('/').filter(|part| !part.is_empty());
        let unit = parts().find(|part| is_unit(part)).unwrap_or_default();
        let container = parts().filter_map(container).next_back().unwrap_or_default();
        Self { container: container.to_owned(), unit: unit.to_owned() }
    }
}

/// A service, or a scope, which holds what somebody else has started.
fn is_unit(part: &str) -> bool {
    [".service", ".scope"].iter().any(|kind| part.len() > kind.len() && part.ends_with(kind))
}

/// `ID`, `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID`, `libpod-ID.scope`; `lxc.payload.NAME`.
fn container(part: &str) -> Option<&str> {
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return (!name.is_empty()).then_some(name);
    }
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let id = part.rsplit('-').next()?;
    (id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s5_containers_and_units_are_read_from_every_common_layout() {
        let id = "0123456789abcdef".repeat(4);
        let group = |path: &str| {
            let Group { container, unit } = Group::of(&path.replace("ID", &id));
            (container == id, container, unit)
        };
        let unit = |path: &str| group(path).2;
        assert!(group("/docker/ID").0);
        assert!(group("/system.slice/docker-ID.scope").0);
        assert!(
            group("/kubepods.slice/kubepods-burstable.slice/kubepods-pod1_2.slice/cri-containerd-ID.scope").0
        );
        assert!(group("/kubepods/besteffort/pod1/ID").0);
        assert!(group("/machine.slice/libpod-ID.scope/container").0);
        assert_eq!(group("/lxc.payload.web/system.slice/nginx.service").1, "web");
        assert_eq!(unit("/system.slice/nginx.service"), "nginx.service");
        assert_eq!(unit("/user.slice/user-1000.slice/session-3.scope"), "session-3.scope");
        assert_eq!(unit("/system.slice/docker.service"), "docker.service");
        assert_eq!(Group::of("/"), Group::default());
        assert_eq!(Group::of("/system.slice/docker-0123.scope").container, "");
    }
}
