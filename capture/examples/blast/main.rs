//! Sends the packets of a capture out of an interface, again and again, from memory, at a given rate; for the live
//! benchmark. Each pass over the capture has other IPv4 addresses (the second byte of both), so that its flows are new.
//!
//! usage: blast INTERFACE FILE SECONDS PACKETS_PER_SECOND (0: as many as go) [MOST_PACKETS=400000]

mod sys;

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use wiretag_capture::file::CaptureFile;

const USAGE: &str = "usage: blast INTERFACE FILE SECONDS PACKETS_PER_SECOND [MOST_PACKETS]";

/// Frames in a row of bytes.
struct Frames {
    bytes: Vec<u8>,
    /// Where each begins and ends.
    ranges: Vec<std::ops::Range<usize>>,
}

impl Frames {
    fn read(path: &Path, most: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let mut file = CaptureFile::open(path)?;
        let mut frames = Self { bytes: Vec::new(), ranges: Vec::new() };
        while frames.ranges.len() < most {
            let Some(packet) = file.next_packet()? else { break };
            if (14..=1514).contains(&packet.data.len()) {
                let from = frames.bytes.len();
                frames.bytes.extend_from_slice(packet.data);
                frames.ranges.push(from..frames.bytes.len());
            }
        }
        Ok(frames)
    }

    /// Other addresses, the same for both directions of a conversation.
    fn readdress(&mut self, from: usize, to: usize, pass: u8) {
        for range in self.ranges.get(from..to).unwrap_or_default() {
            let Some(frame) = self.bytes.get_mut(range.clone()) else { continue };
            if frame.get(12..14) == Some(&[8, 0]) && frame.len() >= 34 {
                // The difference to the pass before: the first leaves the addresses as they are.
                let change = pass ^ pass.wrapping_sub(1);
                frame[27] ^= change;
                frame[31] ^= change;
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a sender has a clock")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [interface, file, seconds, rate, most @ ..] = arguments.as_slice() else { return Err(USAGE.into()) };
    let most = most.first().map_or(Ok(400_000), |most| most.parse())?;
    let (seconds, rate): (f64, f64) = (seconds.parse()?, rate.parse()?);
    let mut frames = Frames::read(Path::new(file), most)?;
    let socket = sys::Sender::open(interface)?;
    let begin = Instant::now();
    let (mut sent, mut bytes, mut at, mut pass) = (0_u64, 0_u64, 0, 0_u8);
    loop {
        let elapsed = begin.elapsed();
        if elapsed >= Duration::from_secs_f64(seconds) {
            break;
        }
        if rate > 0.0 && sent as f64 >= elapsed.as_secs_f64() * rate {
            std::hint::spin_loop();
            continue;
        }
        let end = (at + sys::BATCH).min(frames.ranges.len());
        let ranges = frames.ranges.get(at..end).unwrap_or_default();
        let count = socket.send(&frames.bytes, ranges)?;
        bytes += ranges.iter().take(count).map(|range| range.len() as u64).sum::<u64>();
        sent += count as u64;
        at += count;
        if at == frames.ranges.len() {
            at = 0;
            pass = pass.wrapping_add(1);
            frames.readdress(0, frames.ranges.len(), pass);
        }
    }
    let took = begin.elapsed().as_secs_f64();
    let rate = sent as f64 / took;
    let line = format!(
        "{{\"sent\": {sent}, \"bytes\": {bytes}, \"seconds\": {took:.3}, \"packets_per_second\": {rate:.0}}}\n"
    );
    std::io::stdout().write_all(line.as_bytes())?;
    Ok(())
}
