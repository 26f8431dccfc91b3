//! Which container a socket's process is in: socket → process (`/proc/PID/fd`) → control group → container.
//!
//! Only processes of containers are looked into, and only when a socket is not known: a process that is in none is
//! looked at once. Where a container has a group of its own in the unified hierarchy (cgroup v2), the kernel tells the group
//! with the socket, and no process is looked into.
//!
//! Limits: a search reads at most [`MOST_LINKS`] descriptors, and the next goes on where it ended. A process is in its final
//! group a moment after it was made, so it is looked at again until it has [`SETTLED`]. The number of a process may be given to
//! another: before a container is named its process' group is read again.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{container_id, sys};

/// Descriptors that one search reads at most; each takes about a microsecond.
const MOST_LINKS: usize = 50_000;
/// Age after which a process stays in its group, ns.
const SETTLED: i64 = 3_000_000_000;
/// So many new processes are looked at one by one; more are found by listing all.
const FEW: u64 = 256;
/// A process is looked at again after so many listings.
const AGAIN: u64 = 32;
/// Where the unified hierarchy is mounted, alone or beside the older ones.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The container of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    /// Its id.
    pub(super) container: Arc<str>,
    /// Since when its process lives, ns; `None`: not known.
    pub(super) started: Option<i64>,
}

/// What a search found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By inode.
    pub(super) owners: HashMap<u32, Owner>,
    /// Whether what was not found belongs to none.
    pub(super) searched: Searched,
}

/// How much a search looked into.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Searched {
    /// Every process of a container.
    #[default]
    All,
    /// All but some that may not be looked into.
    Allowed,
    /// There were too many descriptors to read at once.
    Part,
}

/// Who can say whose sockets are.
pub(super) trait Owners {
    /// The containers of sockets, of processes in a network namespace.
    fn find(&mut self, netns: u64, wanted: &HashSet<u32>) -> Found;
    /// The container of a control group (v2).
    fn of_cgroup(&self, cgroup: u64) -> Option<Arc<str>>;
}

/// A container in a network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resident {
    /// One of its processes there.
    pub(super) pid: u32,
    /// Since when it has one, ns.
    pub(super) started: i64,
    /// A kubelet made it: its pod's containers are one identity.
    pub(super) in_pod: bool,
}

#[derive(Debug)]
struct Process {
    container: Option<Arc<str>>,
    in_pod: bool,
    netns: u64,
    started: i64,
    settled: bool,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Processes {
    proc: PathBuf,
    known: HashMap<u32, Process>,
    of_cgroup: HashMap<u64, Arc<str>>,
    /// The newest process when they were looked at last.
    newest: Option<u64>,
    listings: u64,
    /// Where a search that read too much is to go on.
    resume: Option<u32>,
}

impl Processes {
    /// Reads `proc` (`/proc`).
    pub(super) fn new(proc: &Path) -> Self {
        let (known, of_cgroup) = (HashMap::new(), HashMap::new());
        Self { proc: proc.to_owned(), known, of_cgroup, newest: None, listings: 0, resume: None }
    }

    /// Looks at all processes: those that are new, and some others again.
    pub(super) fn list(&mut self, now: i64) {
        self.newest = self.newest_process();
        self.listings += 1;
        let entries = std::fs::read_dir(&self.proc).into_iter().flatten().filter_map(Result::ok);
        let pids: HashSet<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        self.known.retain(|pid, _| pids.contains(pid));
        let (turn, boot) = (self.listings % AGAIN, now.saturating_sub(sys::since_boot()));
        for pid in pids {
            let is_known = self.known.get(&pid).is_some_and(|process| process.settled);
            if !is_known || u64::from(pid) % AGAIN == turn {
                self.look_at(pid, now, boot);
            }
        }
        let alive: HashSet<&Arc<str>> = self.known.values().filter_map(|own| own.container.as_ref()).collect();
        self.of_cgroup.retain(|_, container| alive.contains(container));
    }

    /// Looks at what is new since the last time.
    pub(super) fn refresh(&mut self, now: i64) {
        let newest = self.newest_process();
        let boot = now.saturating_sub(sys::since_boot());
        let unsettled: Vec<u32> = self.known.iter().filter(|(_, own)| !own.settled).map(|(pid, _)| *pid).collect();
        let new = match (self.newest, newest) {
            (Some(last), Some(newest)) if last <= newest && newest - last <= FEW => last + 1..=newest,
            _ => return self.list(now),
        };
        self.newest = newest;
        for pid in new.filter_map(|pid| u32::try_from(pid).ok()).chain(unsettled) {
            self.look_at(pid, now, boot);
        }
    }

    /// Containers by network namespace, that of the host and that of wiretag included.
    pub(super) fn by_namespace(&self) -> HashMap<u64, HashMap<Arc<str>, Resident>> {
        let mut found: HashMap<u64, HashMap<Arc<str>, Resident>> = HashMap::new();
        for (pid, process) in &self.known {
            let Process { netns, started, in_pod, .. } = *process;
            let Some(container) = &process.container else { continue };
            let resident = Resident { pid: *pid, started, in_pod };
            let known = found.entry(netns).or_default().entry(container.clone()).or_insert(resident);
            if started < known.started {
                *known = resident;
            }
        }
        found
    }

    /// The number of the newest process or thread.
    fn newest_process(&self) -> Option<u64> {
        std::fs::read_to_string(self.proc.join("loadavg")).ok()?.split_whitespace().last()?.parse().ok()
    }

    fn look_at(&mut self, pid: u32, now: i64, boot: i64) {
        let directory = self.proc.join(pid.to_string());
        let Some((process, cgroup)) = look_at(&directory, now, boot) else {
            self.known.remove(&pid);
            return;
        };
        if let Some((container, cgroup)) = process.container.clone().zip(cgroup) {
            self.of_cgroup.insert(cgroup, container);
        }
        self.known.insert(pid, process);
    }
}

impl Owners for Processes {
    fn find(&mut self, netns: u64, wanted: &HashSet<u32>) -> Found {
        let mut found = Found::default();
        let own = self.known.iter().filter(|(_, process)| process.netns == netns);
        let mut processes: Vec<(u32, Arc<str>, i64)> =
            own.filter_map(|(pid, own)| Some((*pid, own.container.clone()?, own.started))).collect();
        // What was not known a moment ago is likely a new process'.
        processes.sort_by_key(|(pid, _, started)| std::cmp::Reverse((*started, *pid)));
        if let Some(at) = self.resume.take().and_then(|pid| processes.iter().position(|(own, ..)| *own == pid)) {
            processes.rotate_left(at);
        }
        let mut links = 0;
        for (pid, container, started) in processes {
            if found.owners.len() == wanted.len() {
                break;
            }
            if links >= MOST_LINKS {
                found.searched = Searched::Part;
                self.resume = Some(pid);
                break;
            }
            let directory = self.proc.join(pid.to_string());
            let held = sockets_of(&directory, &mut links, wanted);
            if held.is_err() {
                found.searched = found.searched.max(Searched::Allowed);
            }
            let inodes: Vec<u32> =
                held.into_iter().flatten().filter(|inode| !found.owners.contains_key(inode)).collect();
            let still = |container: &str| container_of(&directory).as_deref() == Some(container);
            if !inodes.is_empty() && still(&container) {
                let owner = Owner { container, started: Some(started) };
                found.owners.extend(inodes.into_iter().map(|inode| (inode, owner.clone())));
            }
        }
        found
    }

    fn of_cgroup(&self, cgroup: u64) -> Option<Arc<str>> {
        self.of_cgroup.get(&cgroup).cloned()
    }
}

/// A process, and the number of its group in the unified hierarchy if that is the container's own.
fn look_at(directory: &Path, now: i64, boot: i64) -> Option<(Process, Option<u64>)> {
    let cgroups = std::fs::read_to_string(directory.join("cgroup")).ok()?;
    let started = boot.saturating_add(start_of(&std::fs::read_to_string(directory.join("stat")).ok()?)?);
    let settled = now.saturating_sub(started) > SETTLED;
    let Some(container) = container_id::of_process(&cgroups) else {
        return Some((Process { container: None, in_pod: false, netns: 0, started, settled }, None));
    };
    let netns = std::fs::metadata(directory.join("ns/net")).ok()?.ino();
    let own = container_id::unified_path(&cgroups).filter(|path| container_id::of_path(path) == Some(container));
    let cgroup = own.filter(|path| !path.contains("..")).and_then(|path| {
        MOUNTS.iter().find_map(|mount| std::fs::metadata(format!("{mount}{path}")).ok()).map(|data| data.ino())
    });
    let in_pod = container_id::is_in_pod(&cgroups);
    Some((Process { container: Some(container.into()), in_pod, netns, started, settled }, cgroup))
}

fn container_of(directory: &Path) -> Option<String> {
    let cgroups = std::fs::read_to_string(directory.join("cgroup")).ok()?;
    container_id::of_process(&cgroups).map(str::to_owned)
}

/// Which of the wanted sockets a process has. One that is gone has none; an error is that it may not be looked into.
fn sockets_of(process: &Path, links: &mut usize, wanted: &HashSet<u32>) -> std::io::Result<Vec<u32>> {
    let mut found = Vec::new();
    let entries = unless_denied(std::fs::read_dir(process.join("fd")))?;
    for entry in entries.into_iter().flatten().filter_map(Result::ok) {
        *links += 1;
        let Some(link) = unless_denied(std::fs::read_link(entry.path()))? else { continue };
        let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        found.extend(inode.filter(|inode| wanted.contains(inode)));
    }
    Ok(found)
}

/// Nothing where something is gone; an error where it may not be read.
fn unless_denied<T>(read: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(error),
        Err(_) => Ok(None),
    }
}

/// When a process was made, ns since boot, from its `/proc/PID/stat`: the 22nd field; the second is a name in parentheses that
/// may hold anything.
fn start_of(stat: &str) -> Option<i64> {
    let (_, after) = stat.rsplit_once(')')?;
    let ticks: i64 = after.split_whitespace().nth(19)?.parse().ok()?;
    Some(ticks.saturating_mul(1_000_000_000 / sys::ticks_a_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_process_is_found_behind_any_name() {
        let fields = "S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 1234 9 9 9";
        let ticks = 1_000_000_000 / sys::ticks_a_second();
        assert_eq!(start_of(&format!("7 (x) {fields}")), Some(1234 * ticks));
        assert_eq!(start_of(&format!("7 (a) b) ) {fields}")), Some(1234 * ticks));
        assert_eq!(start_of("7 (x) S 1"), None);
        assert_eq!(start_of(""), None);
    }

    #[test]
    fn processes_of_this_machine_are_in_a_namespace_and_live() {
        let mut processes = Processes::new(Path::new("/proc"));
        processes.list(super::super::now());
        let own = processes.known.get(&std::process::id()).expect("this process");
        assert!(own.started <= super::super::now() && own.started > 0);
        assert!(!processes.find(1, &HashSet::from([0])).owners.contains_key(&0));
    }
}
