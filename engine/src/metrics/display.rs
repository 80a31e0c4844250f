//! A shard's counters for people.
//!
//! Data flow: [`Metrics`] → one line per group, each number with its unit.
//!
//! Not here: names for programs ([`Metrics::named`]).

use core::fmt;

use super::Metrics;

/// One line per group: ops, calls of the kernel, bytes, flushes, chains, batches, other ways than
/// the ring, the most that there was of something, and trouble. No newline at the end.
impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ops, submitted, bounced, enters, turns, read_bytes, written_bytes, .. } = self;
        let Self { flushes, flush_failures, durable_acknowledged, .. } = self;
        let Self { chains, chains_relaunched, chains_broken, coalesced, uncoalesced, .. } = self;
        let Self { inline_ops, in_place, in_flight_max, sq_ops_max, backlog_max, .. } = self;
        let Self { retries, short_transfers, enter_errors, stale_completions, .. } = self;
        let Self { cancels, cancels_sent, .. } = self;
        let (per_enter, per_commit) = (self.ops_per_enter(), self.flushes_per_commit());
        writeln!(f, "ops: {ops} pushed, {submitted} submitted, {bounced} bounced")?;
        writeln!(f, "calls: {enters} enters, {per_enter:.1} ops per enter, {turns} turns")?;
        writeln!(f, "data: {read_bytes} bytes read, {written_bytes} bytes written")?;
        writeln!(
            f,
            "durability: {flushes} flushes, {flush_failures} failed, {durable_acknowledged} \
             acknowledgements, {per_commit:.2} flushes per acknowledgement"
        )?;
        writeln!(
            f,
            "chains: {chains} accepted, {chains_relaunched} relaunched, {chains_broken} flushes \
             issued again"
        )?;
        writeln!(f, "batches: {coalesced} entries coalesced, {uncoalesced} of them issued singly")?;
        writeln!(
            f,
            "beside the ring: {inline_ops} ops inline, {in_place} ops for want of a worker"
        )?;
        writeln!(
            f,
            "most: {in_flight_max} ops in flight, {sq_ops_max} ops queued, {backlog_max} views \
             waiting"
        )?;
        writeln!(f, "cancelled: {cancels} ops abandoned, {cancels_sent} cancel requests")?;
        write!(
            f,
            "trouble: {retries} retries, {short_transfers} short transfers, {enter_errors} failed \
             enters, {stale_completions} stale completions"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_has_every_counter_once_and_a_unit_beside_each() {
        // Numbers of which none is part of another, nor an average.
        let mut words = [0; Metrics::COUNT];
        (1001..).zip(&mut words).for_each(|(value, word)| *word = value);
        let metrics = Metrics::from_words(words);
        let text = metrics.to_string();
        for (name, value) in metrics.named() {
            let shown = text.matches(&format!("{value} ")).count();
            assert_eq!(shown, 1, "{name}:\n{text}");
        }
        for line in text.lines() {
            let (group, counters) = line.split_once(": ").expect("a group has a name");
            assert!(group.chars().all(|c| c.is_ascii_lowercase() || c == ' '), "{line}");
            for counter in counters.split(", ") {
                let (number, unit) = counter.split_once(' ').expect("a number and a unit");
                assert!(number.parse::<f64>().is_ok() && !unit.is_empty(), "{counter}");
            }
        }
        assert_eq!(Metrics::default().to_string().lines().count(), 10);
    }
}
