//! Proofs that both sides have the same secret, without sending it.
//!
//! Data flow: secret, both hellos (each with a nonce) → HMAC-SHA-256 → 32 bytes, compared in
//! constant time. The two sides' proofs differ in their first bytes, so neither is the other's.
//!
//! A proof covers both hellos whole: what was agreed cannot be changed on the way unnoticed.
//! It protects who may connect, not what is sent afterwards: on networks that others can write
//! to, tunnel the connection.
//!
//! Not here: when proofs are exchanged (`client`, `server`).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::wire::Hello;

/// Bytes that both sides know and nobody else. Not shown by `Debug`.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

/// Which side proves.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Secret {
    /// Takes any bytes; 16 random ones or more are a good secret.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into().into_boxed_slice())
    }

    fn mac(&self, side: Side, client: &Hello, server: &Hello) -> Option<Hmac<Sha256>> {
        // HMAC takes keys of every length, so there is always one.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(match side {
            Side::Client => b"mfio-netfs client",
            Side::Server => b"mfio-netfs server",
        });
        mac.update(&client.encode());
        mac.update(&server.encode());
        Some(mac)
    }

    pub(crate) fn proof(&self, side: Side, client: &Hello, server: &Hello) -> [u8; 32] {
        let mac = self.mac(side, client, server);
        mac.map_or([0; 32], |mac| mac.finalize().into_bytes().into())
    }

    pub(crate) fn proves(
        &self,
        side: Side,
        client: &Hello,
        server: &Hello,
        code: &[u8; 32],
    ) -> bool {
        let mac = self.mac(side, client, server);
        mac.is_some_and(|mac| mac.verify_slice(code).is_ok())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// 32 bytes that nobody can foresee.
pub(crate) fn nonce() -> Result<[u8; 32], mfio_rt::Error> {
    let mut nonce = [0; 32];
    let filled = getrandom::fill(&mut nonce);
    filled.map_err(|_| mfio_rt::Error::new(mfio_rt::Op::Start, mfio_rt::ErrorKind::Unsupported))?;
    Ok(nonce)
}
