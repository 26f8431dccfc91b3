//! How an appliance proves to a command that it is the one that wrote the command's data directory, before the command tells it the token.
//!
//! Each run has a secret, which is in a file of the data directory that only its owner reads. A command sends a number that it uses once; the
//! answer is the HMAC-SHA256 (RFC 2104) of it under the secret. Who has the port after a crash does not know the secret, and whatever was asked
//! before is the answer to other numbers.

use std::iter::repeat;

use sha2::{Digest, Sha256};

/// Bytes that SHA-256 takes at once.
const BLOCK: usize = 64;

/// Proves that `secret` is known to whoever got this number, in hex.
pub fn proof(secret: &str, number: &str) -> String {
    hmac(secret.as_bytes(), number.as_bytes()).map(|byte| format!("{byte:02x}")).concat()
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let hashed: [u8; 32] = Sha256::digest(key).into();
    let key = if key.len() > BLOCK { hashed.as_slice() } else { key };
    let padded =
        |with: u8| key.iter().copied().chain(repeat(0)).take(BLOCK).map(|byte| byte ^ with).collect::<Vec<_>>();
    let inner: [u8; 32] = Sha256::digest([&*padded(0x36), message].concat()).into();
    Sha256::digest([&*padded(0x5c), inner.as_slice()].concat()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, 4.3 and 4.7.
    #[test]
    fn proofs_are_those_of_the_rfc() {
        let short = proof("Jefe", "what do ya want for nothing?");
        assert_eq!(short, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let long = hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        let long = long.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(long, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }
}
