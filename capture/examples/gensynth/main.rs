//! Writes a synthetic capture (classic pcap, microseconds) and the exact truth about it.
//!
//! usage: gensynth OUT.pcap TRUTH.json [--mix container|many|scan|web] [--flows N] [--seed N] [--span SECONDS] [--vxlan]

mod synth;

use std::fs::File;
use std::io::{self, BufWriter, Write};

use synth::{Config, Mix, generate};

const USAGE: &str = "usage: gensynth OUT.pcap TRUTH.json [--mix container|many|scan|web] [--flows N] [--seed N] [--span SECONDS] [--vxlan]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(capture), Some(truth)) = (arguments.next(), arguments.next()) else { return Err(USAGE.into()) };
    let mut config = Config { mix: Mix::Container, flows: 100_000, seed: 1, span: 100, vxlan: false };
    while let Some(option) = arguments.next() {
        if option == "--vxlan" {
            config.vxlan = true;
            continue;
        }
        let value = arguments.next().ok_or(USAGE)?;
        match option.as_str() {
            "--mix" => config.mix = Mix::named(&value).ok_or(USAGE)?,
            "--flows" => config.flows = value.parse()?,
            "--seed" => config.seed = value.parse()?,
            "--span" => config.span = value.parse()?,
            _ => return Err(USAGE.into()),
        }
    }
    let mut out = BufWriter::with_capacity(1 << 20, File::create(capture)?);
    // Magic of microseconds, version 2.4, snap length 262144, Ethernet; in little endian.
    for field in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 262_144, 1] {
        out.write_all(&field.to_le_bytes())?;
    }
    let made = generate(&config, |time, frame| {
        let length = frame.len() as u32;
        let mut header = [0; 16];
        let fields = [(time / 1_000_000) as u32, (time % 1_000_000) as u32, length, length];
        for (slot, field) in header.chunks_exact_mut(4).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        out.write_all(&header)?;
        out.write_all(frame)
    });
    let made = made.map_err(|error: io::Error| error.to_string())?;
    out.flush()?;
    std::fs::write(truth, made.json())?;
    Ok(())
}
