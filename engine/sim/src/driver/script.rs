//! Ops of the small model: through a handle that the workload names, and not drawn.
//!
//! Data flow: [`SmallOp`] → futures and batches of the [`Driver`].
//!
//! Not here: when each is issued (`exhaust`).

use core::pin::Pin;

use mfio_core::{Packet, PacketIoExt};
use mfio_engine::{Durability, Durable};

use super::{Driver, SimFile, Under};
use crate::chains::Link;
use crate::exhaust::SmallOp;
use crate::model::Issued;
use crate::packets::{Kind, Sent};
use crate::stamp::{SECTOR_BYTES, ZEROES};

impl<'a> Driver<'a> {
    /// Issues `op`, through `second` where it says so.
    pub(crate) fn issue_small(&mut self, op: SmallOp, second: &'a SimFile) {
        let first = self.file;
        match op {
            SmallOp::Read => self.transfer_on(first, Kind::Read, 0),
            SmallOp::Write => self.transfer_on(first, Kind::Write, 0),
            SmallOp::WriteSecond => self.transfer_on(second, Kind::Write, 1),
            SmallOp::Durable => self.transfer_on(first, Kind::Durable, 0),
            SmallOp::DurableSecond => self.transfer_on(second, Kind::Durable, 1),
            SmallOp::Flush => self.flush_on(first),
            SmallOp::FlushSecond => self.flush_on(second),
            SmallOp::Zeroes => self.zero_on(first),
            SmallOp::Batch => {
                // A third one at a time goes as a write.
                if !self.make_batch(Kind::Write, SECTOR_BYTES, SECTOR_BYTES) {
                    self.transfer_on(first, Kind::Write, 1);
                }
            }
            SmallOp::Chain => {
                let pair = self.buffer(2 * SECTOR_BYTES);
                let single = self.buffer(SECTOR_BYTES);
                let (pair_at, single_at) = (SECTOR_BYTES, 3 * SECTOR_BYTES);
                self.make_chain(vec![
                    (Link::Write, pair_at, pair),
                    (Link::Sync, 0, None),
                    (Link::Write, single_at, single),
                ]);
            }
        }
    }

    /// Two sectors from `sector` on.
    fn transfer_on(&mut self, file: &'a SimFile, kind: Kind, sector: usize) {
        let offset = sector * SECTOR_BYTES;
        let mut buffer = self.buffer(2 * SECTOR_BYTES).expect("a small model has small needs");
        let range = self.stamped(kind, offset, &mut buffer);
        let at = offset as u64;
        let under = match kind {
            Kind::Read => Under::Read(file.io(at, Packet::new(buffer))),
            Kind::Durable => Under::Durable(file.io(Durable(at), Packet::new(buffer))),
            _ => Under::Write(file.io(at, Packet::new(buffer))),
        };
        self.wait_for(under, Sent { kind, issued: 0, range, calm: false });
    }

    fn flush_on(&mut self, file: &'a SimFile) {
        let range = Issued { sequence: 0, offset: 0, len: 0 };
        let sent = self.issue(Kind::Flush, range);
        self.wait_for(Under::Flush(file.sync(Durability::Data)), sent);
    }

    fn zero_on(&mut self, file: &'a SimFile) {
        let sequence = self.world.model.next_sequence() | ZEROES;
        let range = Issued { sequence, offset: SECTOR_BYTES, len: SECTOR_BYTES };
        let bytes = SECTOR_BYTES as u64;
        let under = Under::Range(Pin::from(Box::new(file.write_zeroes(bytes, bytes))));
        self.wait_for(under, Sent { kind: Kind::Zero, issued: 0, range, calm: false });
    }

    /// Whether everything is over and nothing is under way below.
    pub(crate) fn is_over(&self) -> bool {
        self.under_way() == 0 && self.shard.is_idle()
    }

    /// Whether a turn could start something without waiting.
    pub(crate) fn has_work(&self) -> bool {
        self.shard.has_work()
    }
}
