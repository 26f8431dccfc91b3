//! `wiretag doctor`: checks what the appliance needs, and says what to do.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use serde_json::json;
use wiretag_capture::ring::{Ring, RingConfig, links};
use wiretag_enrich::kernel::PartStatus;
use wiretag_enrich::kubernetes::KubernetesConfig;
use wiretag_enrich::static_file;

use crate::cli::DoctorArguments;
use crate::config::{CriConfig, RunConfig};

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// Works, with less.
    Warning,
    Failed,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

struct Check {
    name: &'static str,
    verdict: Verdict,
    text: String,
}

impl Check {
    fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, text: text.into() }
    }

    fn warning(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warning, text: text.into() }
    }

    fn failed(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Failed, text: text.into() }
    }
}

pub(crate) fn run(arguments: &DoctorArguments) -> anyhow::Result<()> {
    let config = RunConfig::new(&arguments.run())?;
    let checks = [
        capture(),
        kernel(),
        interfaces(&config.interfaces),
        namespaces(),
        files(&config),
        data(&config.data),
        disk(&config.data),
        catalog(&config),
        clock(),
        docker(config.docker.as_deref()),
        kubernetes(config.kubernetes.as_ref()),
        sockets(),
        processes(),
        conntrack(),
        cri(config.cri.as_ref()),
        cni(Path::new("/etc/cni/net.d")),
    ];
    let mut out = crate::output::stdout();
    for Check { name, verdict, text } in &checks {
        if arguments.json {
            writeln!(out, "{}", json!({ "check": name, "verdict": verdict.as_str(), "text": text }))?;
        } else {
            writeln!(out, "{:<8} {name:<12} {text}", verdict.as_str())?;
        }
    }
    out.flush()?;
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Failed).count();
    if failed > 0 {
        bail!("{failed} of {} checks failed", checks.len());
    }
    Ok(())
}

/// Opens a real ring on no interface.
fn capture() -> Check {
    let config = RingConfig { mib: 2, ..RingConfig::default() };
    match Ring::open(&config, &[]) {
        Ok(_) => Check::ok("capture", "a packet ring opens"),
        Err(error) => Check::failed("capture", error.to_string()),
    }
}

fn kernel() -> Check {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).filter_map(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= (4, 19) => Check::ok("kernel", format!("Linux {release}")),
        _ => Check::warning("kernel", format!("Linux `{release}`; hint: 4.19 or later is what wiretag is made for")),
    }
}

fn interfaces(patterns: &[String]) -> Check {
    let links = match links::list() {
        Ok(links) => links,
        Err(error) => return Check::failed("interfaces", error.to_string()),
    };
    let names: Vec<_> = links::select(&links, patterns).iter().map(|link| link.name.clone()).collect();
    if names.is_empty() {
        if !patterns.is_empty() {
            return Check::warning("interfaces", format!("none is up now that is called {}", patterns.join(", ")));
        }
        let hint = "hint: start containers, name interfaces with `--interface`, or try `wiretag run --demo`";
        return Check::warning("interfaces", format!("no veth, bridge or tap is up now; {hint}"));
    }
    Check::ok("interfaces", format!("would capture on {}", names.join(", ")))
}

fn namespaces() -> Check {
    match wiretag_capture::ring::in_namespace(Path::new("/proc/self/ns/net"), || ()) {
        Ok(()) => Check::ok("namespaces", "network namespaces can be entered"),
        Err(error) => Check::warning(
            "namespaces",
            format!("{error}; hint: without CAP_SYS_ADMIN containers on macvlan and overlay networks are not captured"),
        ),
    }
}

/// Whether what the configuration names is there, as a start reads it.
fn files(config: &RunConfig) -> Check {
    const NAME: &str = "files";
    let read = || -> anyhow::Result<()> {
        for reader in &config.readers {
            reader.read()?;
        }
        crate::peers::check(config)
    };
    let names = config.static_file.as_ref().map(|path| static_file::load(path, crate::host::now()));
    match (read(), names) {
        (Err(error), _) => Check::failed(NAME, crate::output::sentence(&error)),
        (Ok(()), Some(Err(error))) => Check::warning(NAME, format!("{error}; until it is right it gives no new names")),
        (Ok(()), Some(Ok(_)) | None) => Check::ok(NAME, "what the configuration names can be read"),
    }
}

fn data(path: &Path) -> Check {
    let probe = if path.exists() {
        path
    } else {
        path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
    };
    let file = probe.join(format!(".wiretag-doctor-{}", std::process::id()));
    let written = std::fs::write(&file, b"x");
    // On a full disk it is there all the same, without anything in it.
    let removed = std::fs::remove_file(&file);
    match written.and(removed) {
        Ok(()) if probe == path => Check::ok("data", format!("`{}` is writable", path.display())),
        Ok(()) => Check::ok(
            "data",
            format!("`{}` is not there yet, and can be made: `{}` is writable", path.display(), probe.display()),
        ),
        Err(error) => Check::failed(
            "data",
            format!("`{}` is not writable: {error}; hint: choose another with `--data`", probe.display()),
        ),
    }
}

/// Whether PostgreSQL can be used, if the catalog is there.
fn catalog(config: &RunConfig) -> Check {
    const NAME: &str = "catalog";
    let checked = super::runtime().and_then(|runtime| {
        Ok(runtime.block_on(wiretag_store::Catalog::check_in(&config.data, config.catalog.as_ref()))?)
    });
    match checked {
        Ok(sentence) => Check::ok(NAME, sentence),
        Err(error) => Check::failed(NAME, crate::output::sentence(&error)),
    }
}

/// Room on the file system, through `df`, which every Linux has.
fn disk(path: &Path) -> Check {
    let probe = if path.exists() { path } else { Path::new(".") };
    let output = std::process::Command::new("df").args(["-Pk"]).arg(probe).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let free =
        text.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)).and_then(|kib| kib.parse::<u64>().ok());
    match free {
        Some(kib) if kib < 1 << 20 => {
            Check::warning("disk", format!("{} MiB free; hint: less than 1 GiB fills soon", kib >> 10))
        }
        Some(kib) => Check::ok("disk", format!("{} GiB free", kib >> 20)),
        None => Check::warning("disk", "`df` does not say how much is free"),
    }
}

/// Identities are joined by time, so a clock far from the truth matters when files or nodes meet.
fn clock() -> Check {
    const YEAR_2024: i64 = 1_704_067_200 * 1_000_000_000;
    let now = crate::host::now();
    if now < YEAR_2024 {
        return Check::failed("clock", format!("it says {}; hint: set the clock", crate::output::time(now)));
    }
    let synchronised = Path::new("/run/systemd/timesync/synchronized").exists()
        || Path::new("/var/lib/chrony/drift").exists()
        || Path::new("/var/lib/ntpsec/ntp.drift").exists();
    if synchronised {
        Check::ok("clock", "synchronised")
    } else {
        Check::warning(
            "clock",
            "no time service found; hint: run chrony or systemd-timesyncd when nodes or files are compared",
        )
    }
}

fn docker(address: Option<&str>) -> Check {
    let path = match wiretag_enrich::docker::socket(address) {
        Ok(path) => path,
        Err(error) => return Check::warning("docker", error),
    };
    let answer = super::runtime().map_err(|error| error.to_string());
    match answer.and_then(|runtime| runtime.block_on(wiretag_enrich::docker::check(&path))) {
        Ok(version) => Check::ok("docker", format!("`{}` answers: Docker {version}", path.display())),
        Err(error) => Check::warning(
            "docker",
            format!("`{}`: {error}; hint: containers get no names from Docker until it answers", path.display()),
        ),
    }
}

/// Whether the API server answers, and which permissions are missing.
fn kubernetes(config: Option<&KubernetesConfig>) -> Check {
    const NAME: &str = "kubernetes";
    let Some(config) = config else {
        return Check::ok(NAME, "not used: no `[kubernetes] kubeconfig`, and not in a pod");
    };
    let answer = super::runtime().map_err(|error| error.to_string()).and_then(|runtime| {
        runtime.block_on(async {
            let asked = tokio::time::timeout(Duration::from_secs(15), wiretag_enrich::kubernetes::check(config)).await;
            asked.unwrap_or_else(|_| Err("no answer in 15 seconds".into()))
        })
    });
    match answer {
        Ok(permissions) if permissions.missing.is_empty() => Check::ok(
            NAME,
            format!("the API server answers, and everything that cluster `{}` needs is allowed", config.cluster),
        ),
        Ok(permissions) => {
            let hint = "hint: `deploy/kubernetes/` has a role with what is needed";
            Check::warning(NAME, format!("the API server answers, but does not allow: {permissions}; {hint}"))
        }
        Err(error) => Check::warning(
            NAME,
            format!("{error}; hint: pods get no names from Kubernetes until the API server answers"),
        ),
    }
}

fn sockets() -> Check {
    match wiretag_enrich::kernel::check().sockets {
        PartStatus::On => Check::ok("sockets", "the kernel tells whose they are"),
        status => Check::warning("sockets", format!("{status}; without them host-network containers have no names")),
    }
}

/// Whether the sockets of other users' processes are found.
fn processes() -> Check {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    match missing_for_processes(&status).as_slice() {
        [] => Check::ok("processes", "those of all users can be looked into"),
        missing => Check::warning(
            "processes",
            format!(
                "those of other users cannot be looked into; hint: without {} their host-network containers have no names",
                missing.join(" and ")
            ),
        ),
    }
}

/// What of the capabilities that `/proc/PID/fd` of another user's process needs a process with this status does not have.
fn missing_for_processes(status: &str) -> Vec<&'static str> {
    // Numbers of `linux/capability.h`; CAP_DAC_OVERRIDE (1) includes CAP_DAC_READ_SEARCH (2).
    const NEEDED: [(&str, u64); 2] = [("CAP_DAC_READ_SEARCH", 0b110), ("CAP_SYS_PTRACE", 1 << 19)];
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or_default();
    NEEDED.iter().filter(|(_, either)| effective & either == 0).map(|(name, _)| *name).collect()
}

fn conntrack() -> Check {
    match wiretag_enrich::kernel::check().conntrack {
        PartStatus::On => Check::ok("conntrack", "the kernel tells what is translated"),
        status => Check::warning(
            "conntrack",
            format!("{status}; without it nobody is named behind published ports and service addresses"),
        ),
    }
}

/// The container runtime that would be asked.
fn cri(config: Option<&CriConfig>) -> Check {
    let Some(config) = config else {
        return Check::ok("cri", "not used: `[cri] enabled` is false");
    };
    match wiretag_enrich::cri::socket(config.endpoint.as_deref()) {
        Ok(None) => Check::ok("cri", "no socket of containerd or CRI-O on this host"),
        Ok(Some(path)) => match UnixStream::connect(&path) {
            Ok(_) => Check::ok("cri", format!("`{}` answers", path.display())),
            Err(error) => {
                let hint = "hint: pods get no names from it until it runs";
                Check::warning("cri", format!("`{}`: {error}; {hint}", path.display()))
            }
        },
        Err(error) => Check::failed("cri", error),
    }
}

/// Whether the plugin is in the chain of each CNI network of this host.
fn cni(directory: &Path) -> Check {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let named =
        entries.map(|entry| entry.path()).filter_map(|path| Some((path.extension()?.to_str()?.to_owned(), path)));
    let networks = named.filter(|(ending, _)| ["conf", "conflist", "json"].contains(&ending.as_str()));
    let has_plugin = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let config: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let plugins = config["plugins"].as_array();
        plugins.is_some_and(|plugins| plugins.iter().any(|plugin| plugin["type"] == "wiretag-cni"))
    };
    let (with, without): (Vec<_>, Vec<_>) = networks.map(|(_, path)| path).partition(|path| has_plugin(path));
    let hint = "hint: `wiretag cni --help` says how to install the plugin";
    match (with.len(), without.first()) {
        (0, None) => Check::ok("cni", format!("no CNI network in `{}`", directory.display())),
        (_, None) => Check::ok("cni", "the plugin is in the chain of every CNI network"),
        (_, Some(path)) => Check::warning("cni", format!("`{}` does not chain `wiretag-cni`; {hint}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_into_processes_is_missed_by_name() {
        let missing =
            |capabilities: &str| missing_for_processes(&format!("Uid:\t0\nCapEff:\t{capabilities}\nSeccomp:\t0\n"));
        assert!(missing("000001ffffffffff").is_empty());
        // CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_PTRACE, CAP_SYS_ADMIN; then with CAP_DAC_READ_SEARCH.
        assert_eq!(missing("0000000000283000"), ["CAP_DAC_READ_SEARCH"]);
        assert!(missing("0000000000283004").is_empty());
        assert_eq!(missing("0000000000000000"), ["CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"]);
    }
}
