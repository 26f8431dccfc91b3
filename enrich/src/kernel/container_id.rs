//! The id of a container in the path of a control group, as runtimes and kubelet make them. Pure.
//!
//! | made by | path |
//! | --- | --- |
//! | Docker, cgroupfs | `/docker/ID` |
//! | Docker, systemd | `/system.slice/docker-ID.scope` |
//! | kubelet, cgroupfs | `/kubepods/burstable/podUID/ID` |
//! | kubelet, systemd | `/kubepods.slice/…/cri-containerd-ID.scope`, `crio-ID.scope`, `docker-ID.scope` |
//! | containerd | `/k8s.io/ID`, `/default/ID` |
//! | podman | `/machine.slice/libpod-ID.scope`, `/libpod_parent/libpod-ID` |
//!
//! The id is 64 hexadecimal digits. Of several in one path (a container inside a container) the outermost is meant: that one
//! is known to the runtime of this host. A monitor's group (`crio-conmon-ID.scope`) is not the container's.

/// Digits of an id.
const DIGITS: usize = 64;

/// The container of a process, from its `/proc/PID/cgroup`.
pub(super) fn of_process(cgroups: &str) -> Option<&str> {
    // `HIERARCHY:CONTROLLERS:PATH`
    cgroups.lines().find_map(|line| of_path(line.splitn(3, ':').nth(2)?))
}

/// The path of a process in the unified hierarchy (v2), from its `/proc/PID/cgroup`.
pub(super) fn unified_path(cgroups: &str) -> Option<&str> {
    cgroups.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Whether a kubelet made the container of a process, by its `/proc/PID/cgroup`.
pub(super) fn is_in_pod(cgroups: &str) -> bool {
    cgroups.split(['/', '\n']).any(|segment| segment.starts_with("kubepods"))
}

/// The container that a path names.
pub(super) fn of_path(path: &str) -> Option<&str> {
    path.split('/').find_map(of_segment)
}

fn of_segment(segment: &str) -> Option<&str> {
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    let at = name.len().checked_sub(DIGITS)?;
    let (runtime, id) = name.split_at_checked(at)?;
    let is_id = id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let is_container = match runtime.strip_suffix('-') {
        Some(runtime) => !runtime.is_empty() && !runtime.ends_with("conmon"),
        None => runtime.is_empty(),
    };
    (is_id && is_container).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f1c9e4b7d0a5c6e8f2b3a1d0c9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e";
    const OTHER: &str = "00000e4b7d0a5c6e8f2b3a1d0c9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b300000";

    #[test]
    fn every_runtime_s_paths_name_the_container() {
        for path in [
            "/docker/ID",
            "/system.slice/docker-ID.scope",
            "/kubepods/burstable/pod3f0c4f3e-6a4b-4c55-9c1d-0f0f5b1c2d3e/ID",
            "/kubepods.slice/kubepods-pod3f0c.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-pod3f0c.slice/crio-ID.scope/container",
            "/k8s.io/ID",
            "/machine.slice/libpod-ID.scope",
            "/docker/ID/docker/OTHER",
            "/../ID",
        ] {
            let path = path.replace("ID", ID).replace("OTHER", OTHER);
            assert_eq!(of_path(&path), Some(ID), "{path}");
        }
    }

    #[test]
    fn what_is_no_container_has_no_id() {
        for path in [
            "/",
            "/system.slice/docker.service",
            "/machine.slice/crio-conmon-ID.scope",
            "/user.slice/xID",
            "/system.slice/ID0",
            "/docker/4f1c9e4b7d0a",
            "/process/ÄID",
        ] {
            assert_eq!(of_path(&path.replace("ID", ID)), None, "{path}");
        }
    }

    #[test]
    fn a_process_is_looked_for_in_every_hierarchy() {
        let hybrid = format!("9:name=systemd:/docker/{ID}\n2:cpu:/docker/{ID}\n0::/\n");
        assert_eq!((of_process(&hybrid), unified_path(&hybrid)), (Some(ID), Some("/")));
        let unified = format!("0::/system.slice/docker-{ID}.scope\n");
        assert_eq!(of_process(&unified), Some(ID));
        assert_eq!(of_process("0::/init.scope\n"), None);
        assert_eq!(of_process("nonsense"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken(text in ".{0,200}") {
            let _ = (of_process(&text), of_path(&text));
        }
    }

    #[test]
    fn a_kubelet_s_groups_are_told_from_others() {
        for path in ["/kubepods/burstable/podUID/ID", "/kubepods.slice/kubepods-pod3f0c.slice/cri-containerd-ID.scope"]
        {
            assert!(is_in_pod(&format!("12:cpu:/other\n0::{path}")), "{path}");
        }
        for path in ["/docker/ID", "/system.slice/docker-ID.scope", "/mykubepods/ID"] {
            assert!(!is_in_pod(&format!("0::{path}\n")), "{path}");
        }
    }
}
