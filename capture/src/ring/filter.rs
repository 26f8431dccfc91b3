//! The socket filter: classic BPF that accepts packets of given interface indexes, with the snap length as its verdict.
//!
//! Jumps of classic BPF reach 255 instructions, so each index is a pair "if equal fall through to accept, else skip it":
//! `jeq #index, 0, 1; ret #snap_len`. Linear in the number of interfaces, at most 4096 instructions.

use super::RingError;

/// Longest program that the kernel accepts.
const MAX_INSTRUCTIONS: usize = 4096;
const LOAD_WORD_ABSOLUTE: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_IFINDEX`: the interface index, as an ancillary load.
const INTERFACE_INDEX: u32 = (-0x1000_i32 + 8).cast_unsigned();

/// One instruction: opcode, jump if true, jump if false, operand.
pub(super) type Instruction = (u16, u8, u8, u32);

/// The program for `interfaces`; with none, nothing is accepted.
pub(super) fn program(interfaces: &[u32], snap_len: u32) -> Result<Vec<Instruction>, RingError> {
    let limit = (MAX_INSTRUCTIONS - 2) / 2;
    if interfaces.len() > limit {
        return Err(RingError::TooManyInterfaces { count: interfaces.len(), limit });
    }
    let mut program = vec![(LOAD_WORD_ABSOLUTE, 0, 0, INTERFACE_INDEX)];
    for index in interfaces {
        program.push((JUMP_EQUAL, 0, 1, *index));
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
    fn too_many_interfaces_are_refused() {
        let many: Vec<u32> = (0..3000).collect();
        assert!(matches!(program(&many, 96), Err(RingError::TooManyInterfaces { count: 3000, .. })));
    }
}
