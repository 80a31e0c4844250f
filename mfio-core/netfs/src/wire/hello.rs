//! What each side says first.
//!
//! Data flow: [`Hello`] → 64 bytes → checked: magic, then version, then the rest.
//!
//! Not here: what follows it (`message`).

use alloc::vec::Vec;

use super::{Field, Fields, HELLO_BYTES, MAGIC, VERSION, WireError};

/// What a side can do or wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Every frame has a checksum: asked for by the client, granted by the server.
    pub checksums: bool,
    /// The server wants proof of the secret; the client has one.
    pub secret: bool,
}

/// What a connection may have under way. Said by the server; zeros from the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests without their last reply.
    pub requests: u32,
    /// Bytes of data, both ways.
    pub bytes: u64,
    /// The server closes a connection that is silent this long, in milliseconds; 0 is never.
    pub idle_ms: u32,
}

/// The first bytes of either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What is wanted or granted.
    pub flags: Flags,
    /// Never the same twice: what a proof of the secret is bound to.
    pub nonce: [u8; 32],
    /// What may be under way.
    pub limits: Limits,
}

impl Hello {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        VERSION.put(&mut bytes);
        (u16::from(self.flags.checksums) | u16::from(self.flags.secret) << 1).put(&mut bytes);
        self.limits.idle_ms.put(&mut bytes);
        self.nonce.put(&mut bytes);
        self.limits.requests.put(&mut bytes);
        0_u32.put(&mut bytes);
        self.limits.bytes.put(&mut bytes);
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// `Magic`, `Version`, `BadValue`.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Self, WireError> {
        let mut fields = Fields::new(bytes);
        if fields.bytes(MAGIC.len())? != MAGIC {
            return Err(WireError::Magic);
        }
        let version = u16::take(&mut fields)?;
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let bits = u16::take(&mut fields)?;
        let idle_ms = u32::take(&mut fields)?;
        let nonce = Field::take(&mut fields)?;
        let requests = u32::take(&mut fields)?;
        let reserved = u32::take(&mut fields)?;
        let bytes = u64::take(&mut fields)?;
        if bits > 3 || reserved != 0 {
            return Err(WireError::BadValue);
        }
        let flags = Flags { checksums: bits & 1 != 0, secret: bits & 2 != 0 };
        Ok(Self { flags, nonce, limits: Limits { requests, bytes, idle_ms } })
    }
}
