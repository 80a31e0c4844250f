//! What the transfers of one file have in common, said beforehand.
//!
//! Data flow: file → [`Ring::head`](super::Ring::head), once → [`Head`] → each
//! [`Ring::push_fixed`](super::Ring::push_fixed).
//!
//! Not here: what is said with it (`ring::kernel`).

/// The words of a transfer to or from a fixed buffer that are the same for all of a file. Made by
/// a ring and understood by the same ring.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head {
    /// The word that a transfer begins with.
    pub(super) first: u64,
    /// The word that the length is in, without it.
    pub(super) len_word: u64,
}

impl Head {
    /// Of no file.
    pub(crate) const NONE: Self = Self { first: 0, len_word: 0 };
}
