//! Inputs that are several byte strings, each sent by an end: one byte of end, two of length, the bytes.

/// One input.
pub(crate) fn join<'a>(pieces: impl IntoIterator<Item = (usize, &'a [u8])>) -> Vec<u8> {
    let piece = |(end, bytes): (usize, &[u8])| [&[end as u8][..], &(bytes.len() as u16).to_be_bytes(), bytes].concat();
    pieces.into_iter().flat_map(piece).collect()
}

/// What an input says; a length that says too much ends it.
pub(crate) fn split(mut input: &[u8]) -> Vec<(usize, &[u8])> {
    let mut pieces = Vec::new();
    while let Some(([end, high, low], rest)) = input.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        pieces.push((usize::from(end & 1), piece));
        input = rest;
    }
    pieces
}
