//! How an appliance proves to a command that it is the one that wrote the command's data directory, before the command tells it the token.
//!
//! Each run has a secret, which is in a file of the data directory that only its owner reads. A command sends a number that it uses once; the
//! answer is the HMAC-SHA256 (RFC 2104) of it under the secret. Who has the port after a crash does not know the secret, and whatever was asked
//! before is the answer to other numbers.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Proves that `secret` is known to whoever got this number, in hex.
pub fn proof(secret: &str, number: &str) -> String {
    // A key may have any length.
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    let code = mac.chain_update(number.as_bytes()).finalize().into_bytes();
    code.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, 4.3.
    #[test]
    fn a_proof_is_that_of_the_rfc() {
        let told = proof("Jefe", "what do ya want for nothing?");
        assert_eq!(told, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
