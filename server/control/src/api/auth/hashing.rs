//! Makes of a password what the configuration has of it.

use super::token::{self, TokenError};
use argon2::password_hash::SaltString;
use argon2::{Argon2, PasswordHasher};

/// Bytes of salt, as argon2 recommends.
const SALT_BYTES: usize = 16;

/// The hash of a password as `api.users` has it: argon2id, 19 MiB, two passes, which is what OWASP
/// asks for at least.
///
/// # Errors
///
/// There is no randomness.
pub fn hash_password(password: &str) -> Result<String, TokenError> {
    let mut salt = [0; SALT_BYTES];
    token::random(&mut salt)?;
    let failed = |error: argon2::password_hash::Error| {
        TokenError::Random(std::io::Error::other(error.to_string()))
    };
    let salt = SaltString::encode_b64(&salt).map_err(failed)?;
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
    Ok(hash.map_err(failed)?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::{PasswordHash, PasswordVerifier};

    #[test]
    fn a_hash_is_of_its_password_alone_and_never_the_same() {
        let [one, other] = [0, 1].map(|_| hash_password("pass:word ü").unwrap());
        assert_ne!(one, other);
        let parsed = PasswordHash::new(&one).unwrap();
        let verified = |password: &str| {
            Argon2::default()
                .verify_password(password.as_bytes(), &parsed)
                .is_ok()
        };
        assert!(verified("pass:word ü") && !verified("pass:word u"));
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
    }
}
