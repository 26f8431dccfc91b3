//! Memory of a tracked flow: reads a capture with the flow engine alone and prints what is resident before the table is
//! emptied, what the engine itself counts, and how many flows found no room, as one line of JSON.
//!
//! usage: footprint FILE

use std::path::Path;

use wiretag_capture::file::CaptureFile;
use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::{EndReason, Source};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: footprint FILE")?;
    let mut file = CaptureFile::open(Path::new(&path))?;
    let mut engine = Engine::new(FlowConfig::new("node", Source::File));
    let mut records = Vec::new();
    let before = resident()?;
    let mut rows = 0;
    loop {
        let burst = file.next_burst(&mut |_, _| {})?;
        if burst.is_empty() {
            break;
        }
        engine.burst(&burst, &mut records, |_, _| {});
        rows += records.len();
        records.clear();
    }
    let (active, evicted) = (engine.counters().flows_active, engine.counters().flows_evicted);
    let (counted, after) = (engine.memory_bytes(), resident()?);
    engine.finish(EndReason::EndOfInput, &mut records);
    let bytes = (after - before) as f64 / active.max(1) as f64;
    let total = rows + records.len();
    let line = format!(
        "{{\"flows_active\": {active}, \"evicted\": {evicted}, \"resident\": {after}, \"counted\": {counted}, \
         \"bytes_a_flow\": {bytes:.0}, \"rows\": {total}}}\n"
    );
    std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes())?;
    Ok(())
}

/// Resident bytes of this process.
fn resident() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kibibytes: u64 = line.split_whitespace().next().ok_or("no number")?.parse()?;
    Ok(kibibytes * 1024)
}
