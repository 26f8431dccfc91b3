//! What the identity timeline costs: memory, lookups, changes, and the start of an appliance, with the pods of a large
//! cluster. `cargo build --release --workspace --example timeline && target/release/examples/timeline [LIVE] [PAST]` (with `-p`
//! DataFusion would be built a second time).
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints figures and stops where it fails")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wiretag_enrich::event::Snapshot;
use wiretag_enrich::timeline::{Lookup, Timeline};
use wiretag_enrich::{Identity, IdentityEvent, Interval, Key, Member};
use wiretag_store::Catalog;

const SECOND: i64 = 1_000_000_000;
const BEGIN: i64 = 1_780_000_000 * SECOND;
const NETWORK: &str = "kubernetes";
const BOOT: &str = "5a0f7a3e-8a5c-4b8a-9f5e-0f5d3c1b2a49";
/// Of so many pods one runs on this node.
const LOCAL: usize = 100;
const WORKLOADS: usize = 2000;
const NODES: usize = 1000;
const LOOKUPS: usize = 2_000_000;

/// A pod of the cluster.
#[derive(Clone, Copy)]
struct Pod {
    number: usize,
    ip: IpAddr,
    from: i64,
    to: Option<i64>,
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse().ok());
    let (live, past) = (arguments.next().unwrap_or(100_000), arguments.next().unwrap_or(1_000_000));
    let before = resident();
    let mut timeline = Timeline::new();
    let clock = Clock::now();
    let pods: Vec<Pod> = (0..live + past).map(|number| pod(number, live, past)).collect();
    let own = resident();
    for pod in &pods {
        tell(&mut timeline, pod);
    }
    let events = clock.elapsed();
    timeline.expire(i64::MIN);
    println!(
        "{live} live and {past} past identities, {} intervals",
        timeline.lasting().iter().map(|own| own.1).sum::<u64>()
    );
    println!("told in {:.2} s of CPU", events.as_secs_f64());
    println!("memory {} MB", (resident() - own) / 1_000_000);

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (clock, used) = (Instant::now(), cpu());
    runtime.block_on(write(&mut timeline, dir.path()));
    println!(
        "written in {:.2} s, CPU {:.2} s",
        clock.elapsed().as_secs_f64(),
        cpu().saturating_sub(used).as_secs_f64()
    );
    lookups(&mut timeline, &pods, past);
    changes(&mut timeline, &pods);
    drop(timeline);

    let (clock, used) = (Instant::now(), cpu());
    let catalog = runtime.block_on(Catalog::open(&dir.path().join("catalog.sqlite"))).unwrap();
    let timeline = runtime.block_on(catalog.timeline()).unwrap();
    println!("read in {:.2} s, CPU {:.2} s", clock.elapsed().as_secs_f64(), cpu().saturating_sub(used).as_secs_f64());
    println!("catalog {} MB", std::fs::metadata(dir.path().join("catalog.sqlite")).unwrap().len() / 1_000_000);
    println!("resident in all {} MB", (resident() - before) / 1_000_000);
    drop(timeline);
}

/// The past ones had the addresses of the living, one after the other.
fn pod(number: usize, live: usize, past: usize) -> Pod {
    let ip = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + (number % live) as u32));
    let run = (number / live) as i64;
    let from = BEGIN + run * 1000 * SECOND;
    let to = (number < past).then(|| from + 900 * SECOND);
    Pod { number, ip, from, to }
}

fn uid(number: usize) -> Arc<str> {
    format!("{number:08x}-8a5c-4b8a-9f5e-0f5d3c1b2a49").into()
}

fn identity(number: usize) -> Identity {
    let workload: Arc<str> = format!("workload-{}", number % WORKLOADS).into();
    let app: (Arc<str>, Arc<str>) = ("app.kubernetes.io/name".into(), workload.clone());
    let hash: (Arc<str>, Arc<str>) = ("pod-template-hash".into(), format!("{:010x}", number % WORKLOADS).into());
    let member =
        Member { container: "app".into(), image: Some("registry.example/app:1.2.3".into()), ports: vec![(6, 8080)] };
    Identity {
        identity: uid(number),
        cluster: Some(NETWORK.into()),
        host: Some(format!("node-{}", number % NODES).into()),
        namespace: Some(format!("namespace-{}", number % 200).into()),
        pod: Some(format!("workload-{}-{:010x}-{:05x}", number % WORKLOADS, number % WORKLOADS, number).into()),
        workload: Some(workload),
        workload_kind: Some("Deployment".into()),
        zone: Some(format!("zone-{}", number % 3).into()),
        labels: [app, hash].into(),
        containers: vec![member],
        ..Identity::default()
    }
}

fn ip(pod: &Pod) -> Key {
    Key::Ip { network: NETWORK.into(), ip: pod.ip }
}

fn interface(pod: &Pod) -> Key {
    Key::Interface { index: pod.number as u32, netns: 0, boot: BOOT.into() }
}

fn mac(pod: &Pod) -> [u8; 6] {
    let [a, b, c, d] = (pod.number as u32).to_be_bytes();
    [2, 0, a, b, c, d]
}

fn learned(key: Key, identity: Arc<Identity>, from: i64, source: &str) -> Interval {
    Interval { key, identity, valid_from: from, valid_to: None, learned_at: from, source: source.into() }
}

/// Each source says of a pod what it knows: Kubernetes of all, the hook of those on this node.
fn tell(timeline: &mut Timeline, pod: &Pod) {
    let id = uid(pod.number);
    let ended =
        |source: &str, at| IdentityEvent::Ended { identity: id.clone(), at, learned_at: at, source: source.into() };
    if pod.number.is_multiple_of(LOCAL) {
        let bare = Arc::new(Identity { identity: id.clone(), pod: identity(pod.number).pod, ..Identity::default() });
        let link = Key::Mac { network: NETWORK.into(), mac: mac(pod) };
        for key in [ip(pod), interface(pod), link] {
            timeline.apply(&IdentityEvent::Learned(learned(key, bare.clone(), pod.from, "cni")));
        }
    }
    let told = learned(ip(pod), Arc::new(identity(pod.number)), pod.from + SECOND, "kubernetes");
    timeline.apply(&IdentityEvent::Learned(told));
    if let Some(to) = pod.to {
        if pod.number.is_multiple_of(LOCAL) {
            timeline.apply(&ended("cni", to));
        }
        timeline.apply(&ended("kubernetes", to + SECOND));
    }
}

async fn write(timeline: &mut Timeline, dir: &std::path::Path) {
    let catalog = Catalog::open(&dir.join("catalog.sqlite")).await.unwrap();
    while timeline.has_changes() {
        catalog.put_dossiers(&timeline.take_changes(4096)).await.unwrap();
    }
    catalog.close().await;
}

/// A number that looks random.
fn next(seed: &mut u64) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed as usize
}

fn lookups<'a>(timeline: &'a mut Timeline, pods: &[Pod], past: usize) {
    let living = &pods[past..];
    let local: Vec<&Pod> = living.iter().filter(|pod| pod.number.is_multiple_of(LOCAL)).collect();
    let now = living.iter().map(|pod| pod.from).max().unwrap_or_default() + 500 * SECOND;
    // The source is in touch; otherwise nobody would be sure of anybody.
    timeline.apply(&IdentityEvent::Heard { source: "kubernetes".into(), at: now + 10 * SECOND });
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    // Most traffic is of few: half of it of a thousandth, the rest of anybody.
    let mut skewed = |all: usize| match next(&mut seed) {
        number if number % 4 < 2 => (number >> 8) % (all / 1000).max(1),
        number if number % 4 == 2 => (number >> 8) % (all / 30).max(1),
        number => (number >> 8) % all,
    };
    // In the order in which they are asked for, as rows come: where a row's own key is costs nothing here.
    let asked: Vec<(Pod, Pod)> =
        (0..1 << 18).map(|_| (living[skewed(living.len())], *local[skewed(local.len())])).collect();
    let measure = |what: &str, look: &dyn Fn(&Pod, &Pod) -> Lookup<'a>| {
        let found = asked.iter().filter(|(one, other)| matches!(look(one, other), Lookup::One(..))).count();
        let clock = Clock::now();
        for index in 0..LOOKUPS {
            let (one, other) = &asked[index & (asked.len() - 1)];
            black_box(look(one, other));
        }
        let each = clock.elapsed().as_nanos() / LOOKUPS as u128;
        println!("{what:<32} {each:>5} ns, found {:>3} %", found * 100 / asked.len());
    };
    let by_ip = |pod: &Pod, at: i64| timeline.ip(NETWORK, pod.ip, at);
    measure("address, of the cluster", &|one, _| by_ip(one, now));
    measure("address, of this node", &|_, other| by_ip(other, now));
    measure("interface", &|_, other| timeline.interface(other.number as u32, 0, BOOT, now));
    measure("link-layer address", &|_, other| timeline.mac(NETWORK, mac(other), now));
    measure("socket, unknown", &|_, other| timeline.socket((0, BOOT), 6, (other.ip, 443), now));
    measure("service, unknown", &|one, _| timeline.service(NETWORK, 6, (one.ip, 443), now));
    measure("address, an hour ago", &|one, _| by_ip(one, now - 3600 * SECOND));
    // Nobody has an address in two networks here: then no table is asked.
    measure("whether an address overlaps", &|one, _| {
        black_box(timeline.overlapping(one.ip, now));
        Lookup::None
    });
    // What a row asks: its own side by interface, the other by address, and whether it was a service.
    measure("mix", &|one, other| match (one.number ^ other.number) % 5 {
        0 | 1 => timeline.interface(other.number as u32, 0, BOOT, now),
        2 | 3 => by_ip(one, now),
        _ => timeline.service(NETWORK, 6, (one.ip, 443), now),
    });
}

/// What the owner does between two batches of rows.
fn changes(timeline: &mut Timeline, pods: &[Pod]) {
    let clock = Clock::now();
    let view = timeline.view();
    println!("a view                           {:>5} us", clock.elapsed().as_micros());
    let many = &pods[pods.len() - 10_000.min(pods.len())..];
    let clock = Clock::now();
    for pod in many {
        let (identity, from) = (identity(pod.number + pods.len()).into(), pod.from + 2000 * SECOND);
        timeline.apply(&IdentityEvent::Learned(learned(ip(pod), identity, from, "kubernetes")));
    }
    println!("an event, beside a view          {:>5} ns", clock.elapsed().as_nanos() / many.len() as u128);
    drop(view);

    let half = &pods[pods.len() - 50_000.min(pods.len())..];
    let at = half.iter().map(|pod| pod.from).max().unwrap_or_default() + 4000 * SECOND;
    let told = |pod: &Pod| learned(ip(pod), Arc::new(identity(pod.number)), pod.from + SECOND, "kubernetes");
    let present: Vec<Interval> = half.iter().map(told).collect();
    let snapshot = Snapshot {
        source: "kubernetes".into(),
        present,
        stopped: Vec::new(),
        unclear: Vec::new(),
        heard: Some(at),
        at,
    };
    let event = IdentityEvent::Reconciled(snapshot);
    let clock = Clock::now();
    timeline.begin(event);
    println!("{} pods listed again: begun in {} ms", half.len(), clock.elapsed().as_millis());
    let (mut longest, mut portions) = (0, 0);
    while timeline.is_busy() {
        let clock = Clock::now();
        timeline.advance(128);
        longest = longest.max(clock.elapsed().as_micros());
        portions += 1;
    }
    println!("then {portions} portions of at most {longest} us");
}

/// Time for which this thread ran, whatever else the machine does.
struct Clock(u64);

impl Clock {
    fn now() -> Self {
        Self(Self::read())
    }

    fn read() -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        text.split_whitespace().next().and_then(|ran| ran.parse().ok()).unwrap_or(0)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(Self::read() - self.0)
    }
}

/// Time for which all threads ran.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

/// Bytes of memory that the process has.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
