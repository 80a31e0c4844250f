//! From whatever a crash has left of the segments to a log that can be appended to.
//!
//! Data flow: segments flushed (F38) → headers → blocks in order, up to the first that is not
//! whole or does not continue the one before → what lies beyond that is made unreadable, and
//! what may have been read from a cache is written again → [`State`].
//!
//! Beyond a hole there can be whole blocks: several were in flight, and the later ones came
//! through. None of them was acknowledged, so they are erased, durably, before anything is
//! appended in front of them. A block that *was* acknowledged is never taken for one of those:
//! every block says how far the log was durable when it was sealed.
//!
//! Not here: reading bytes (`format`).

use super::commit::{Ready, Segment, State, Tail};
use super::config::{IN_FLIGHT_MAX, WalConfig};
use super::error::WalError;
use super::format::{Lsn, NotABlock, SegmentHeader, SegmentId, SegmentState, parse_block};
use super::segment::SegmentStore;
use crate::buffer::ArenaBuf;
use crate::ring::Ring;
use crate::shard::{Durability, File, Shard};

/// What somebody who is shown a record says of it; an error ends the opening of the log.
pub type Visited = Result<(), Box<dyn std::error::Error>>;

/// What opening a log has found, and `visit` has seen.
///
/// That may go back further than the last [`Wal::truncate_before`](super::Wal::truncate_before),
/// which gives back whole segments only: to redo a record that was redone before must do no harm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The log.
    pub log_id: u64,
    /// How many records there are.
    pub records: u64,
    /// The number of the first of them.
    pub first_lsn: Lsn,
    /// The number of the next record to be appended.
    pub next_lsn: Lsn,
    /// Segments that hold a part of the log.
    pub segments: u32,
    /// Blocks beyond the end of the log that were erased.
    pub erased_blocks: u32,
    /// Segments beyond the end of the log that were erased.
    pub erased_segments: u32,
    /// Blocks and headers at the end of the log that nothing vouched for, written once more.
    pub confirmed_blocks: u32,
}

/// A segment as it was found.
struct Found<R: Ring> {
    file: File<R>,
    header: Option<SegmentHeader>,
    len_bytes: u64,
}

/// Where a block lies.
#[derive(Clone, Copy, Debug)]
struct Extent {
    offset_bytes: u64,
    bytes: usize,
    last_lsn: Lsn,
}

/// How far the log has been read.
#[derive(Clone, Debug)]
struct Cursor {
    next_lsn: Lsn,
    previous_crc: u32,
    /// Up to where some block says that the log was durable.
    durable_lsn: Lsn,
    /// The last blocks read, and in which segment of the chain each is.
    last: Vec<(usize, Extent)>,
}

impl Cursor {
    const fn at(header: &SegmentHeader) -> Self {
        Self {
            next_lsn: header.first_lsn,
            previous_crc: header.previous_crc,
            durable_lsn: header.durable_lsn,
            last: Vec::new(),
        }
    }

    /// Remembers what was read last: a header and a block for each that can be in flight.
    fn keep(&mut self, number: usize, extent: Extent) {
        if self.last.len() >= 2 * IN_FLIGHT_MAX as usize {
            self.last.remove(0);
        }
        self.last.push((number, extent));
    }
}

/// Everything that the segments hold, told apart.
struct Remains<R: Ring> {
    /// The oldest segment of the log.
    start: u64,
    /// Segments that hold the log, in order, and where the last block of each ends.
    chain: Vec<(SegmentHeader, Found<R>, u64)>,
    /// Segments beyond the end of the log.
    stale: Vec<(SegmentHeader, Found<R>)>,
    /// Segments in which nothing counts.
    free: Vec<Found<R>>,
    cursor: Cursor,
    /// Where blocks, or parts of some, lie beyond the end of the log in its last segment.
    beyond: Vec<u64>,
}

/// Reads and repairs a log.
pub(super) async fn recover<R: Ring>(
    shard: &Shard<R>,
    store: &mut dyn SegmentStore<R>,
    config: &WalConfig,
    visit: &mut impl AsyncFnMut(Lsn, &[u8]) -> Visited,
) -> Result<(State<R>, Recovery), WalError> {
    let mut found = Vec::new();
    for file in store.existing(shard)? {
        found.push(look_at(shard, file).await?);
    }
    let log_id = log_id_of(&found)?;
    let config = aligned(config, found.iter().map(|found| &found.file))?;
    let block_bytes = found.iter().filter_map(|found| Some(found.header?.block_bytes_max)).max();
    let block_bytes = block_bytes.unwrap_or(0).max(config.block_bytes_max);
    let buffer = buffer(shard, block_bytes)?;

    let (mut remains, buffer) = read_all(found, buffer, visit).await?;
    let buffer = remains.look_beyond(buffer).await?;
    let Remains { chain, stale, cursor, beyond, .. } = &remains;
    let first_lsn = chain.first().map_or(Lsn::FIRST, |(header, ..)| header.first_lsn);
    let count = |len| u32::try_from(len).unwrap_or(u32::MAX);
    let mut report = Recovery {
        log_id: log_id.unwrap_or_else(|| store.draw()),
        records: cursor.next_lsn.0 - first_lsn.0,
        first_lsn,
        next_lsn: cursor.next_lsn,
        segments: count(chain.len()),
        erased_blocks: count(beyond.len()),
        erased_segments: count(stale.len()),
        confirmed_blocks: 0,
    };
    let buffer = remains.erase(buffer).await?;
    report.confirmed_blocks = remains.confirm(buffer).await?;
    Ok((remains.into_state(store, config, report.log_id), report))
}

/// Reads the log from its oldest segment on, as far as each continues the one before.
async fn read_all<R: Ring>(
    found: Vec<Found<R>>,
    mut buffer: ArenaBuf,
    visit: &mut impl AsyncFnMut(Lsn, &[u8]) -> Visited,
) -> Result<(Remains<R>, ArenaBuf), WalError> {
    let headers = found.iter().filter_map(|found| found.header);
    let start = headers.map(|header| header.start_sequence).max().unwrap_or(1).max(1);
    let (mut live, mut free) = (Vec::new(), Vec::new());
    for found in found {
        match found.header {
            Some(header) if header.state == SegmentState::Live && header.id.sequence >= start => {
                live.push((header, found));
            }
            _ => free.push(found),
        }
    }
    live.sort_by_key(|(header, _)| header.id.sequence);
    let (mut chain, mut stale) = (Vec::new(), Vec::new());
    let mut cursor: Option<Cursor> = None;
    for (header, found) in live {
        let continues = cursor.as_ref().is_none_or(|cursor| {
            cursor.next_lsn == header.first_lsn && cursor.previous_crc == header.previous_crc
        });
        if header.id.sequence != start + chain.len() as u64 || !continues {
            stale.push((header, found));
            continue;
        }
        let cursor = cursor.get_or_insert_with(|| Cursor::at(&header));
        cursor.durable_lsn = cursor.durable_lsn.max(header.durable_lsn);
        let end;
        (end, buffer) = scan(&header, &found, chain.len(), cursor, buffer, visit).await?;
        chain.push((header, found, end));
    }
    if chain.is_empty() && start > 1 {
        let evidence = "the oldest segment has no header any more";
        return Err(WalError::Damaged { lsn: Lsn(0), evidence });
    }
    let cursor = cursor.unwrap_or(Cursor {
        next_lsn: Lsn::FIRST,
        previous_crc: 0,
        durable_lsn: Lsn(0),
        last: Vec::new(),
    });
    Ok((Remains { start, chain, stale, free, cursor, beyond: Vec::new() }, buffer))
}

impl<R: Ring> Remains<R> {
    /// Looks at what lies beyond the end of the log. Nothing has been changed so far, and
    /// nothing is if something acknowledged is missing.
    async fn look_beyond(&mut self, mut buffer: ArenaBuf) -> Result<ArenaBuf, WalError> {
        let mut durable_lsn = self.cursor.durable_lsn;
        for (header, found) in &self.stale {
            let mut beyond = Cursor::at(header);
            let mut nobody = async |_, _: &[u8]| Ok(());
            (_, buffer) = scan(header, found, 0, &mut beyond, buffer, &mut nobody).await?;
            durable_lsn = durable_lsn.max(beyond.durable_lsn);
        }
        if let Some((header, found, end)) = self.chain.last() {
            let claimed;
            (self.beyond, claimed, buffer) = blocks_beyond(header, found, *end, buffer).await?;
            durable_lsn = durable_lsn.max(claimed);
        }
        if durable_lsn >= self.cursor.next_lsn {
            let evidence = "a later block says that it was durable";
            return Err(WalError::Damaged { lsn: self.cursor.next_lsn, evidence });
        }
        Ok(buffer)
    }

    /// Makes what lies beyond the end of the log unreadable, durably, and the place where the
    /// next block goes.
    async fn erase(&mut self, mut buffer: ArenaBuf) -> Result<ArenaBuf, WalError> {
        while let Some((header, found)) = self.stale.pop() {
            buffer = mark_free(&found.file, &header.id, self.start, buffer).await?;
            self.free.push(found);
        }
        let Some((header, found, end)) = self.chain.last() else { return Ok(buffer) };
        let has_room = *end + u64::from(header.align_bytes) <= found.len_bytes;
        let end = has_room.then_some(*end).filter(|end| !self.beyond.contains(end));
        for offset_bytes in self.beyond.iter().copied().chain(end) {
            buffer.set_len_bytes(header.align_bytes as usize);
            buffer.fill(0);
            buffer = write(&found.file, offset_bytes, buffer).await?;
        }
        Ok(buffer)
    }

    /// What was read may have come from a cache that a failed flush, of a process that is gone,
    /// has marked clean (F37). What the log rests on from now on, and nothing vouches for, is
    /// therefore written once more: marks of free segments, and the last blocks.
    async fn confirm(&self, mut buffer: ArenaBuf) -> Result<u32, WalError> {
        let starts = self.chain.iter().map(|(header, ..)| header.start_sequence);
        let vouched = starts.max().unwrap_or(0);
        for Found { file, header, .. } in &self.free {
            if header.is_some_and(|header| header.start_sequence > vouched) {
                let bytes = file.geometry().offset_align.max(512) as usize;
                let extent = Extent { offset_bytes: 0, bytes, last_lsn: Lsn(0) };
                buffer = write_again(file, &extent, buffer).await?;
            }
        }
        let mut confirmed = 0;
        for (segment, extent) in &self.cursor.last {
            if extent.last_lsn > self.cursor.durable_lsn {
                buffer = write_again(&self.chain[*segment].1.file, extent, buffer).await?;
                confirmed += 1;
            }
        }
        if let Some((header, found, end)) = self.chain.last()
            && *end == u64::from(header.align_bytes)
        {
            // A header that no block has come after.
            let bytes = header.align_bytes as usize;
            let extent = Extent { offset_bytes: 0, bytes, last_lsn: Lsn(0) };
            let _buffer = write_again(&found.file, &extent, buffer).await?;
            confirmed += 1;
        }
        Ok(confirmed)
    }

    /// The log as it is appended to.
    fn into_state(
        mut self,
        store: &mut dyn SegmentStore<R>,
        config: WalConfig,
        log_id: u64,
    ) -> State<R> {
        let mut state = State::new(config, log_id);
        state.start_sequence = self.start;
        state.next_sequence = self.start + self.chain.len() as u64;
        state.next_lsn = self.cursor.next_lsn;
        state.durable_lsn = self.cursor.next_lsn.previous();
        state.previous_crc = self.cursor.previous_crc;
        let last = self.chain.pop();
        for (header, Found { file, .. }, _) in self.chain {
            let (id, first_lsn) = (header.id, header.first_lsn);
            state.live.push_back(Segment { file, id, first_lsn });
        }
        state.tail = last.map(|(header, found, end)| tail(&config, &header, found, end));
        let usable = self.free.into_iter().filter(|found| state.config.fits_into(found.len_bytes));
        for Found { file, .. } in usable {
            let salt = store.draw();
            state.ready.push(Ready { file, salt });
        }
        state
    }
}

/// Writes what is there, durably.
async fn write_again<R: Ring>(
    file: &File<R>,
    extent: &Extent,
    mut buffer: ArenaBuf,
) -> Result<ArenaBuf, WalError> {
    buffer.set_len_bytes(extent.bytes);
    buffer = read(file, extent.offset_bytes, buffer).await?;
    write(file, extent.offset_bytes, buffer).await
}

/// Where appending goes on. A segment that was begun with narrower limits is left as it is:
/// its header says how far behind a hole a block can be.
fn tail<R: Ring>(config: &WalConfig, header: &SegmentHeader, found: Found<R>, end: u64) -> Tail<R> {
    let fits = header.align_bytes >= config.block_align_bytes
        && header.block_bytes_max >= config.block_bytes_max
        && header.in_flight_max >= config.in_flight_max
        && config.block_bytes_max.is_multiple_of(header.align_bytes);
    let segment = Segment { file: found.file, id: header.id, first_lsn: header.first_lsn };
    Tail {
        segment,
        end_bytes: if fits { end } else { found.len_bytes },
        len_bytes: found.len_bytes,
        align_bytes: header.align_bytes,
    }
}

/// The limits, with blocks as aligned as the segments ask for.
pub(super) fn aligned<'a, R: Ring + 'a>(
    config: &WalConfig,
    files: impl Iterator<Item = &'a File<R>>,
) -> Result<WalConfig, WalError> {
    let asked = files.map(|file| file.geometry().offset_align).max().unwrap_or(1);
    let config = WalConfig { block_align_bytes: config.block_align_bytes.max(asked), ..*config };
    config.validate()?;
    Ok(config)
}

pub(super) fn buffer<R: Ring>(shard: &Shard<R>, len_bytes: u32) -> Result<ArenaBuf, WalError> {
    shard.arena().alloc(len_bytes as usize).ok_or(WalError::NoBuffer { len_bytes })
}

async fn read<R: Ring>(file: &File<R>, at: u64, into: ArenaBuf) -> Result<ArenaBuf, WalError> {
    let (result, buffer) = file.read_exact_at(at, into).await;
    result.map(|()| buffer).map_err(WalError::open)
}

async fn write<R: Ring>(file: &File<R>, at: u64, from: ArenaBuf) -> Result<ArenaBuf, WalError> {
    let (result, buffer) = file.write_durable_at(at, from).await;
    result.map(|()| buffer).map_err(WalError::open)
}

/// Flushes a segment, so that what is read is what will be there (F38), and reads its header.
async fn look_at<R: Ring>(shard: &Shard<R>, file: File<R>) -> Result<Found<R>, WalError> {
    file.sync(Durability::Data).await.map_err(WalError::open)?;
    let geometry = file.geometry();
    let unit = geometry.offset_align.max(512);
    let mut header = None;
    if geometry.len_bytes >= u64::from(unit) {
        let bytes = read(&file, 0, buffer(shard, unit)?).await?;
        header = SegmentHeader::of_sector(&bytes);
    }
    Ok(Found { file, header, len_bytes: geometry.len_bytes })
}

fn log_id_of<R: Ring>(found: &[Found<R>]) -> Result<Option<u64>, WalError> {
    let mut ids = found.iter().filter_map(|found| Some(found.header?.id.log_id));
    let Some(log_id) = ids.next() else { return Ok(None) };
    match ids.find(|other| *other != log_id) {
        Some(other) => Err(WalError::Mixed { log_id, other }),
        None => Ok(Some(log_id)),
    }
}

/// Reads the blocks of a segment, as far as each continues the one before. Returns where the
/// first that does not would begin.
async fn scan<R: Ring>(
    header: &SegmentHeader,
    found: &Found<R>,
    number: usize,
    cursor: &mut Cursor,
    mut buffer: ArenaBuf,
    visit: &mut impl AsyncFnMut(Lsn, &[u8]) -> Visited,
) -> Result<(u64, ArenaBuf), WalError> {
    let align = header.align_bytes as usize;
    let mut at = u64::from(header.align_bytes);
    let mut ended = false;
    while !ended && at + (align as u64) <= found.len_bytes {
        buffer = fill(found, at, align, buffer).await?;
        let mut inside = 0;
        while inside < buffer.len() {
            let block = match parse_block(&buffer[inside..], &header.id, align) {
                Ok(block)
                    if block.previous_crc == cursor.previous_crc
                        && block.first_lsn == cursor.next_lsn =>
                {
                    block
                }
                // Cut off by the end of what was read: read again from its start.
                Err(NotABlock::Longer { .. }) if inside > 0 => break,
                _ => {
                    ended = true;
                    break;
                }
            };
            for (lsn, record) in block.iter() {
                let seen = visit(lsn, record).await;
                seen.map_err(|why| WalError::Refused { lsn, why: why.to_string() })?;
            }
            cursor.next_lsn = block.next_lsn();
            cursor.previous_crc = block.crc;
            cursor.durable_lsn = cursor.durable_lsn.max(block.durable_lsn);
            let (offset_bytes, bytes) = (at + inside as u64, block.bytes);
            let last_lsn = block.next_lsn().previous();
            if offset_bytes == align as u64 {
                // The header of the segment was written with it, or not long before.
                cursor.keep(number, Extent { offset_bytes: 0, bytes: align, last_lsn });
            }
            cursor.keep(number, Extent { offset_bytes, bytes, last_lsn });
            inside += block.bytes;
        }
        at += inside as u64;
    }
    Ok((at, buffer))
}

/// Reads on from `at`, as much as there is and the buffer holds, in whole units.
async fn fill<R: Ring>(
    found: &Found<R>,
    at: u64,
    align: usize,
    mut buffer: ArenaBuf,
) -> Result<ArenaBuf, WalError> {
    let left = usize::try_from(found.len_bytes - at).unwrap_or(usize::MAX);
    let len = left.min(buffer.capacity_bytes());
    buffer.set_len_bytes(len - len % align);
    read(&found.file, at, buffer).await
}

/// Finds what looks like blocks behind the end of the log, as far as any can be; and up to
/// where those that are whole say that the log was durable.
async fn blocks_beyond<R: Ring>(
    header: &SegmentHeader,
    found: &Found<R>,
    end: u64,
    mut buffer: ArenaBuf,
) -> Result<(Vec<u64>, Lsn, ArenaBuf), WalError> {
    let align = header.align_bytes as usize;
    let window = u64::from(header.in_flight_max) * u64::from(header.block_bytes_max);
    let stop = found.len_bytes.min(end + window);
    let (mut beyond, mut durable_lsn) = (Vec::new(), Lsn(0));
    let mut candidates = Vec::new();
    let mut at = end;
    while at + (align as u64) <= stop {
        buffer = fill(found, at, align, buffer).await?;
        for inside in (0..buffer.len()).step_by(align) {
            match parse_block(&buffer[inside..], &header.id, align) {
                Err(NotABlock::Nothing) => {}
                _ if at + (inside as u64) < stop => candidates.push(at + inside as u64),
                _ => {}
            }
        }
        at += buffer.len() as u64;
    }
    for offset_bytes in candidates {
        buffer = fill(found, offset_bytes, align, buffer).await?;
        if let Ok(block) = parse_block(&buffer, &header.id, align) {
            durable_lsn = durable_lsn.max(block.durable_lsn);
        }
        beyond.push(offset_bytes);
    }
    Ok((beyond, durable_lsn, buffer))
}

/// Says, durably, that nothing in a segment counts. The header stays as it is: a write that
/// is cut short, be it in the middle of a sector, leaves the segment live.
pub(super) async fn mark_free<R: Ring>(
    file: &File<R>,
    id: &SegmentId,
    start_sequence: u64,
    mut buffer: ArenaBuf,
) -> Result<ArenaBuf, WalError> {
    buffer.set_len_bytes(file.geometry().offset_align.max(512) as usize);
    buffer = read(file, 0, buffer).await?;
    let header = SegmentHeader::of_sector(&buffer).filter(|header| header.id == *id);
    let Some(header) = header else {
        let evidence = "its segment has lost its header";
        return Err(WalError::Damaged { lsn: Lsn(0), evidence });
    };
    header.write_free_mark(start_sequence, &mut buffer);
    write(file, 0, buffer).await
}
