//! Names the faults of a simulated kernel, so that they can be switched off one by one.
//!
//! Data flow: command line or shrinker → [`FaultSet`] → rates of the faults outside of it are 0.
//!
//! Not here: how often each happens (`scenario`), what each does (`mfio_engine::ring::sim`).

use core::fmt;

use mfio_engine::ring::sim::FaultRates;

/// How many faults have a name.
const COUNT: usize = 21;

/// Every rate with its name on command lines.
fn fields_mut(rates: &mut FaultRates) -> [(&'static str, &mut u16); COUNT] {
    [
        ("short", &mut rates.short),
        ("zero", &mut rates.zero),
        ("eagain", &mut rates.eagain),
        ("interrupted", &mut rates.interrupted),
        ("eio", &mut rates.eio),
        ("enospc", &mut rates.enospc),
        ("flush-fail", &mut rates.flush_fail),
        ("enter-eintr", &mut rates.enter_eintr),
        ("enter-eagain", &mut rates.enter_eagain),
        ("enter-ebusy", &mut rates.enter_ebusy),
        ("partial-submit", &mut rates.partial_submit),
        ("chain-cut", &mut rates.chain_cut),
        ("start-delay", &mut rates.start_delay),
        ("delay", &mut rates.delay),
        ("cq-delay", &mut rates.cq_delay),
        ("torn-copy", &mut rates.torn_copy),
        ("more", &mut rates.more),
        ("stale", &mut rates.stale),
        ("stuck", &mut rates.stuck),
        ("enter-enomem", &mut rates.enter_enomem),
        ("partial-reap", &mut rates.partial_reap),
    ]
}

/// Rates at which each fault may happen where choices are enumerated. Where a partial submit
/// cuts a chain is a part of that fault, not another one.
pub(crate) fn possible() -> FaultRates {
    let mut rates = FaultRates::NONE;
    for (_, rate) in fields_mut(&mut rates) {
        *rate = 1;
    }
    rates.chain_cut = u16::MAX;
    // No choice: the place decides, and then every op there fails.
    rates.stuck = 0;
    rates
}

/// Some of the faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultSet(u32);

impl FaultSet {
    /// Every fault that has a name.
    pub const ALL: Self = Self((1 << COUNT) - 1);
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Each named fault of the set, taken out of it.
    pub fn each_without(self) -> impl Iterator<Item = Self> {
        (0..COUNT).filter(move |at| self.0 >> at & 1 == 1).map(move |at| Self(self.0 & !(1 << at)))
    }

    /// What of it is not in `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Reads names with commas between them, or `none`.
    ///
    /// # Errors
    /// What is no fault.
    pub fn parse(names: &str) -> Result<Self, String> {
        if names == "none" {
            return Ok(Self::NONE);
        }
        let mut rates = FaultRates::NONE;
        let known = fields_mut(&mut rates).map(|(name, _)| name);
        names.split(',').try_fold(Self::NONE, |set, name| {
            match known.iter().position(|known| *known == name) {
                Some(at) => Ok(Self(set.0 | 1 << at)),
                None => Err(format!("{name} is no fault: none, {}", known.join(","))),
            }
        })
    }

    /// Switches off what is not in the set.
    pub(crate) fn apply(self, rates: &mut FaultRates) {
        for (at, (_, rate)) in fields_mut(rates).into_iter().enumerate() {
            if self.0 >> at & 1 == 0 {
                *rate = 0;
            }
        }
    }
}

/// The names with commas between them.
impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rates = FaultRates::NONE;
        let fields = fields_mut(&mut rates).into_iter().enumerate();
        let names: Vec<_> =
            fields.filter(|(at, _)| self.0 >> at & 1 == 1).map(|(_, (name, _))| name).collect();
        if names.is_empty() { f.write_str("none") } else { f.write_str(&names.join(",")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_name() {
        let mut rates = FaultRates::HOSTILE;
        FaultSet::NONE.apply(&mut rates);
        assert_eq!(rates, FaultRates::NONE, "a fault is missing in the list above");
        let mut rates = FaultRates::HOSTILE;
        FaultSet::ALL.apply(&mut rates);
        assert_eq!(rates, FaultRates::HOSTILE);
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let set = FaultSet::parse("short,stale").unwrap();
        assert_eq!(set.to_string(), "short,stale");
        assert_eq!(FaultSet::parse(&FaultSet::NONE.to_string()), Ok(FaultSet::NONE));
        assert_eq!(set.each_without().count(), 2);
        assert!(FaultSet::parse("short,dull").is_err());
        let mut rates = FaultRates::HOSTILE;
        set.apply(&mut rates);
        assert!(rates.short > 0 && rates.stale > 0 && rates.eio == 0);
    }
}
