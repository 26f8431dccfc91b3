//! Ring and flow engine alone on one interface, until stdin ends, at most for a given time; for the live benchmark. Prints
//! one line of JSON.
//!
//! usage: live INTERFACE SECONDS [SNAP_LENGTH=65535] [RING_MIB=64]

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::ring::{Ring, RingConfig};
use wiretag_capture::{EndReason, Source};

#[expect(clippy::disallowed_methods, reason = "a capture has a clock")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [interface, seconds, rest @ ..] = arguments.as_slice() else {
        return Err("usage: live INTERFACE SECONDS [SNAP_LENGTH] [RING_MIB]".into());
    };
    let snap_len = rest.first().map_or(Ok(65_535), |length| length.parse())?;
    let mib = rest.get(1).map_or(Ok(64), |mib| mib.parse())?;
    let index: u32 = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))?.trim().parse()?;
    let mut ring = Ring::open(&RingConfig { snap_len, mib, ..RingConfig::default() }, &[index])?;
    let mut engine = Engine::new(FlowConfig::new("node", Source::Ring));
    let mut records = Vec::new();
    let mut rows = 0;
    eprintln!("ready");
    let end = Instant::now() + Duration::from_secs_f64(seconds.parse()?);
    let stop = Arc::new(AtomicBool::new(false));
    let stopper = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        stopper.store(true, Ordering::Relaxed);
    });
    while Instant::now() < end && !stop.load(Ordering::Relaxed) {
        ring.poll(Duration::from_millis(100), None, &mut |packets| {
            engine.burst(packets, &mut records, |_, _| {});
        })?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        engine.advance(i64::try_from(now.as_nanos())?, &mut records);
        rows += records.len();
        records.clear();
    }
    let counters = engine.counters().clone();
    let drops = ring.drops()?;
    engine.finish(EndReason::Shutdown, &mut records);
    rows += records.len();
    let line = format!(
        "{{\"packets\": {}, \"drops\": {drops}, \"flows\": {}, \"rows\": {rows}}}\n",
        counters.packets, counters.flows_started
    );
    std::io::stdout().write_all(line.as_bytes())?;
    Ok(())
}
