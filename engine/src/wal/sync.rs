//! How the blocks of a log become durable: as its owner says, or as was measured.
//!
//! Data flow: [`WalConfig::sync_method`](super::WalConfig::sync_method) or a calibration on
//! scratch space beside a segment → [`Syncing`] → each segment when it comes into use.
//!
//! Not here: what the methods are (`target::durability`), measuring them (`shard::calibrate`).

use crate::ring::Ring;
use crate::shard::File;
use crate::target::SyncMethod;

/// What segments are told when they come into use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Syncing {
    method: Option<SyncMethod>,
    /// Also segments whose owner has chosen.
    overrides: bool,
}

impl Syncing {
    /// What the owner of the log says, or else what is the fastest for `file`.
    pub(super) async fn choose<R: Ring>(said: Option<SyncMethod>, file: &File<R>) -> Self {
        if said.is_some() {
            return Self { method: said, overrides: true };
        }
        if file.wants_calibration() {
            let _report = file.calibrate().await;
        }
        Self { method: Some(file.sync_method().method), overrides: false }
    }

    /// Tells one segment.
    pub(super) fn apply<R: Ring>(self, file: &File<R>) {
        if let Some(method) = self.method
            && (self.overrides || file.wants_calibration())
        {
            // Refused where the segment goes through the page cache: it keeps what it has.
            let _refused = file.set_sync_method(method);
        }
    }
}
