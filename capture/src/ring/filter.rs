//! The socket filter: classic BPF that accepts packets of given interface indexes, with the snap length as its verdict.
//!
//! Jumps of classic BPF reach 255 instructions, so up to [`SHARED`] indexes share the `ret #snap_len` behind them: each jumps
//! there if it is equal, and the last one over it if not. Linear in the number of interfaces, at most 4096 instructions. The kernel
//! translates an index into a single instruction, which counts: programs are charged against `net.core.optmem_max`, the old
//! and the new one together while one replaces the other.

use super::RingError;

/// Longest program that the kernel accepts.
const MAX_INSTRUCTIONS: usize = 4096;
/// Indexes that share an end.
const SHARED: usize = 256;
const LOAD_WORD_ABSOLUTE: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_IFINDEX`: the interface index, as an ancillary load.
const INTERFACE_INDEX: u32 = (-0x1000_i32 + 8).cast_unsigned();

/// One instruction: opcode, jump if true, jump if false, operand.
pub(super) type Instruction = (u16, u8, u8, u32);

/// The program for `interfaces`; with none, nothing is accepted.
pub(super) fn program(interfaces: &[u32], snap_len: u32) -> Result<Vec<Instruction>, RingError> {
    let limit = (MAX_INSTRUCTIONS - 2) / (SHARED + 1) * SHARED;
    if interfaces.len() > limit {
        return Err(RingError::TooManyInterfaces { count: interfaces.len(), limit });
    }
    let mut program = vec![(LOAD_WORD_ABSOLUTE, 0, 0, INTERFACE_INDEX)];
    for indexes in interfaces.chunks(SHARED) {
        let after = (0..indexes.len()).rev();
        program.extend(indexes.iter().zip(after).map(|(index, after)| {
            // At most 255 come after the first.
            (JUMP_EQUAL, after as u8, u8::from(after == 0), *index)
        }));
        program.push((RETURN, 0, 0, snap_len));
    }
    program.push((RETURN, 0, 0, 0));
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program does with a packet of `index`.
    fn verdict(program: &[Instruction], index: u32) -> u32 {
        let mut at = 0;
        loop {
            let (code, yes, no, operand) = program[at];
            at += 1;
            match code {
                LOAD_WORD_ABSOLUTE => assert_eq!(operand, 0xffff_f008),
                JUMP_EQUAL => at += usize::from(if operand == index { yes } else { no }),
                _ => return operand,
            }
        }
    }

    #[test]
    fn only_the_given_interfaces_pass() {
        let program = program(&[3, 70_000], 96).expect("a program");
        assert_eq!(verdict(&program, 3), 96);
        assert_eq!(verdict(&program, 70_000), 96);
        assert_eq!(verdict(&program, 4), 0);
        assert_eq!(verdict(&super::program(&[], 96).expect("a program"), 3), 0);
    }

    #[test]
    fn many_interfaces_share_their_ends() {
        let limit = 3840;
        for count in [1, 255, 256, 257, 512, 513, limit] {
            let interfaces: Vec<u32> = (0..count).map(|number| 3 + 2 * number).collect();
            let program = program(&interfaces, 96).expect("a program");
            assert!(program.len() <= count as usize + count.div_ceil(256) as usize + 2 && program.len() <= 4096);
            for index in 0..2 * count + 9 {
                let wanted = if interfaces.contains(&index) { 96 } else { 0 };
                assert_eq!(verdict(&program, index), wanted, "{index} of {count}");
            }
        }
    }

    #[test]
    fn too_many_interfaces_are_refused() {
        let many: Vec<u32> = (0..4000).collect();
        assert!(matches!(program(&many, 96), Err(RingError::TooManyInterfaces { count: 4000, limit: 3840 })));
    }
}
