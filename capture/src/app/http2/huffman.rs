//! The Huffman code of HPACK (RFC 7541, 5.2 and appendix B).
//!
//! The code is canonical: codes of one length are consecutive in the order of their symbols, so that the lengths say all.

/// Shortest and longest code.
const SHORTEST: usize = 5;
const LONGEST: usize = 30;

/// The symbol that ends a string and must not occur in one.
const EOS: u16 = 256;

/// Length of each symbol's code, bits.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The codes of one length, at the upper end of 32 bits.
#[derive(Debug, Clone, Copy)]
struct Length {
    bits: u32,
    /// First code of this length.
    first: u32,
    /// First code of a greater length.
    limit: u64,
    /// Place of the first code's symbol in [`SYMBOLS`].
    place: u16,
}

const COUNT: usize = LONGEST - SHORTEST + 1;

/// Symbols in the order of their codes.
const SYMBOLS: [u16; 257] = {
    let mut symbols = [0; 257];
    let (mut length, mut at) = (SHORTEST, 0);
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                symbols[at] = symbol as u16;
                at += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    symbols
};

const CODES: [Length; COUNT] = {
    let mut codes = [Length { bits: 0, first: 0, limit: 0, place: 0 }; COUNT];
    let (mut next, mut place, mut index) = (0_u64, 0, 0);
    while index < COUNT {
        let length = index + SHORTEST;
        let first = next;
        let before = place;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                next += 1 << (32 - length);
                place += 1;
            }
            symbol += 1;
        }
        codes[index] = Length { bits: length as u32, first: first as u32, limit: next, place: before };
        index += 1;
    }
    codes
};

/// Appends the decoded string, at most `limit` bytes of it; `None` if it is malformed.
pub(super) fn decode(bytes: &[u8], limit: usize, out: &mut Vec<u8>) -> Option<()> {
    let (mut window, mut bits) = (0_u64, 0_u32);
    let mut input = bytes.iter();
    loop {
        while bits <= 32
            && let Some(byte) = input.next()
        {
            window |= u64::from(*byte) << (56 - bits);
            bits += 8;
        }
        let top = (window >> 32) as u32;
        let found = CODES.iter().find(|codes| u64::from(top) < codes.limit).filter(|codes| codes.bits <= bits);
        let Some(codes) = found else {
            // Fewer than eight bits, all ones, fill the last byte.
            return (bits < 8 && window.leading_ones() >= bits).then_some(());
        };
        let place = usize::from(codes.place) + ((top - codes.first) >> (32 - codes.bits)) as usize;
        let symbol = *SYMBOLS.get(place)?;
        if symbol == EOS {
            return None;
        }
        if out.len() < limit {
            out.push(symbol as u8);
        }
        window <<= codes.bits;
        bits -= codes.bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(hex: &str) -> Option<String> {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let mut out = Vec::new();
        decode(&bytes, 1000, &mut out)?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn strings_of_appendix_c_are_decoded() {
        for (hex, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            ("aec3771a4b", "private"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com"),
            ("", ""),
        ] {
            assert_eq!(decoded(hex).as_deref(), Some(text));
        }
    }

    #[test]
    fn padding_is_ones_and_less_than_a_byte() {
        // `0` is 00000; then three bits of padding.
        assert_eq!(
            (decoded("07").as_deref(), decoded("00"), decoded("07ff"), decoded("ffffffff")),
            (Some("0"), None, None, None)
        );
    }
}
