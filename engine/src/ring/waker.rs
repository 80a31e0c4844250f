//! Ending a wait of a ring from elsewhere.
//!
//! Data flow: any thread → [`RingWaker::wake`] → [`Ring::enter`](super::Ring::enter) returns.
//!
//! Not here: how a ring is woken (each ring).

/// Ends a blocking [`Ring::enter`](super::Ring::enter) from any thread. Waking a ring that does
/// not wait makes its next `enter` return at once.
pub trait RingWaker: Clone + Send + Sync + 'static {
    /// Never blocks, never fails; several wakes before one wait count as one.
    fn wake(&self);
}
