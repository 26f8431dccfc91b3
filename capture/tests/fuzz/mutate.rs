//! Mutations, from a seeded generator.

/// Marsaglia's xorshift64*.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Below `bound`; 0 for a bound of 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.next() as usize % bound }
    }

    pub(crate) fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Values at which lengths and counts go wrong.
const EDGES: [u32; 12] = [0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0x3fff, 0x7fff, 0xffff, 0x7fff_ffff, u32::MAX];

/// Changes `input` in one way; `other` is another seed.
pub(crate) fn mutate(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    // Headers are at the front: half of the changes are made there.
    let reach = if rng.below(2) == 0 { input.len().min(64) } else { input.len() };
    let at = rng.below(reach);
    let length = rng.below(16) + 1;
    match rng.below(8) {
        0 => {
            let bit = rng.below(8);
            change(input, at, |byte| byte ^ (1 << bit));
        }
        1 => {
            let value = rng.next() as u8;
            change(input, at, |_| value);
        }
        2 => {
            let by = rng.below(5) as u8;
            change(input, at, |byte| byte.wrapping_add(by).wrapping_sub(2));
        }
        3 => {
            let bytes = rng.choose(&EDGES).to_be_bytes();
            let width = 1 << rng.below(3);
            for (place, byte) in input.iter_mut().skip(at).zip(&bytes[4 - width..]) {
                *place = *byte;
            }
        }
        4 => drop(input.drain(at..(at + length).min(input.len()))),
        5 => {
            let copy = input[at..(at + length).min(input.len())].to_vec();
            let to = rng.below(input.len());
            input.splice(to..to, copy);
        }
        6 => {
            let byte = rng.next() as u8;
            input.splice(at..at, std::iter::repeat_n(byte, length));
        }
        // Cuts leave little to look at, so they are rare.
        _ if rng.below(3) > 0 => {}
        _ if rng.below(2) == 0 => input.truncate(at),
        _ => {
            input.truncate(at);
            input.extend_from_slice(&other[rng.below(other.len())..]);
        }
    }
}

fn change(input: &mut [u8], at: usize, change: impl Fn(u8) -> u8) {
    if let Some(byte) = input.get_mut(at) {
        *byte = change(*byte);
    }
}
