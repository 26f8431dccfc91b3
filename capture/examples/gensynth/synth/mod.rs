//! A synthetic capture with known truth: packets of many flows in the order of their times.
//!
//! Flows begin one after the other, each with all its packets; a packet leaves when no flow that begins later can come
//! before it. So memory grows with what goes on at one time, not with the capture.

mod frame;
mod mixes;
mod random;
mod talk;
mod truth;

use std::collections::BinaryHeap;

pub(crate) use mixes::Mix;
pub(crate) use truth::Truth;

use self::frame::{Framer, Packet};
use self::random::Random;

/// First packet of every capture, µs since the epoch.
const BEGIN: u64 = 1_780_000_000_000_000;

/// What to make.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) mix: Mix,
    pub(crate) flows: u64,
    pub(crate) seed: u64,
    /// Time over which flows begin, seconds.
    pub(crate) span: u64,
    pub(crate) vxlan: bool,
}

/// A packet that waits, earliest out first, then the order in which they were made.
struct Waiting(Packet, u64);

impl Waiting {
    fn key(&self) -> (u64, u64) {
        (self.0.time, self.1)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.key().cmp(&self.key())
    }
}

/// Packets that were made, and the truth about them.
#[derive(Default)]
pub(crate) struct Output {
    waiting: BinaryHeap<Waiting>,
    made: u64,
    truth: Truth,
}

impl Output {
    fn push(&mut self, packet: Packet) {
        self.truth.packets += 1;
        let bytes = u64::from(packet.ip_bytes());
        let side = self.truth.side(packet.from);
        side.packets += 1;
        side.bytes += bytes;
        self.made += 1;
        self.waiting.push(Waiting(packet, self.made));
    }
}

/// Makes the capture: `each` is called with the time (µs since the epoch) and the bytes of every frame.
pub(crate) fn generate<E>(config: &Config, mut each: impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<Truth, E> {
    let mut random = Random::new(config.seed);
    let mut framer = Framer::new(config.vxlan, &mut random);
    let mut out = Output::default();
    let mut mix = mixes::Maker::new(config.mix);
    let gap = config.span as f64 * 1e6 / config.flows.max(1) as f64;
    let mut begin = BEGIN as f64;
    for number in 0..config.flows {
        while out.waiting.peek().is_some_and(|first| first.0.time < begin as u64) {
            if let Some(Waiting(packet, _)) = out.waiting.pop() {
                each(packet.time, framer.frame(&packet))?;
            }
        }
        mix.flow(number, begin as u64, &mut random, &mut out);
        begin += random.exponential(gap);
    }
    while let Some(Waiting(packet, _)) = out.waiting.pop() {
        each(packet.time, framer.frame(&packet))?;
    }
    Ok(out.truth)
}
