//! What holds for any input at all.
//!
//! Data flow: random arguments, texts and numbers -> the invariants.
//!
//! Not here: particular cases.

mod machine;

use fio_compat::stats::{Histogram, LatencyDistribution, LatencyStat, RunningStat};
use fio_compat::{Extent, parse_job_text};
use machine::Machine;
use proptest::prelude::*;

/// Fragments that reach deeper into the parser than random letters do.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,12}",
        "[a-z_]{1,6}=[0-9a-zA-Z%:,.()*/+^-]{0,12}",
        "(bs|size|runtime|rw|iodepth|filename)=\\PC{0,8}",
        "(cpus_allowed|percentile_list|numjobs|verify|ioengine)=\\PC{0,8}",
        Just("[global]".to_owned()),
        Just("[job]".to_owned()),
        Just("include x".to_owned()),
        Just("size=${A}$ncpus".to_owned()),
        Just("time_based".to_owned()),
    ]
}

proptest! {
    #[test]
    fn f49_any_job_text_is_parsed_or_refused_in_one_line(
        lines in prop::collection::vec(fragment(), 0..12),
    ) {
        let machine = Machine::default().with_file("x", "bs=4k\n");
        if let Err(error) = parse_job_text(&lines.join("\n"), "any", &machine) {
            let text = error.to_string();
            prop_assert!(text.starts_with("any:") || text.starts_with("x:"), "{text}");
            prop_assert!(!text.contains('\n'));
        }
    }

    #[test]
    fn any_arguments_are_parsed_or_refused_in_one_line(
        words in prop::collection::vec((0usize..3, fragment()), 0..8),
    ) {
        let args: Vec<String> =
            words.iter().map(|(dashes, word)| "-".repeat(*dashes) + word).collect();
        if let Err(error) = fio_compat::parse_command_line(&args, &Machine::default()) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn any_size_is_read_back_exactly(number in 4096u64..1 << 13, power in 0usize..6, upper: bool) {
        let suffix = ["", "k", "m", "g", "t", "p"][power];
        let suffix = if upper { suffix.to_uppercase() } else { suffix.to_owned() };
        let bytes = number << (10 * power);
        let text = format!("[a]\nsize={number}{suffix}\n");
        let job = parse_job_text(&text, "a", &Machine::default()).unwrap().jobs.remove(0);
        prop_assert_eq!(job.size, Some(Extent::Bytes(bytes)));
        let shown = job.effective().into_iter().find(|s| s.option == "size").unwrap().value;
        prop_assert_eq!(shown, bytes.to_string());
    }

    #[test]
    fn percentiles_never_decrease(values in prop::collection::vec(any::<u64>(), 1..200)) {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(*value));
        let list: Vec<u64> =
            (1..=100).filter_map(|percent| histogram.percentile(f64::from(percent))).collect();
        prop_assert!(list.len() == 100 && list.is_sorted());
    }

    #[test]
    fn bin_midpoint_is_within_its_error(value in 0u64..17_179_869_184) {
        let midpoint = Histogram::value_of(Histogram::bin_of(value));
        prop_assert!(midpoint.abs_diff(value) <= value / 128 + 1);
    }

    #[test]
    fn merged_statistics_equal_those_recorded_together(
        first in prop::collection::vec(0u64..1 << 40, 0..100),
        second in prop::collection::vec(0u64..1 << 40, 0..100),
    ) {
        let of = |values: &[u64]| {
            let mut stat = LatencyStat::default();
            values.iter().for_each(|value| stat.record(*value));
            stat
        };
        let mut merged = of(&first);
        merged.merge(&of(&second));
        prop_assert_eq!(merged, of(&[first, second].concat()));
    }

    #[test]
    fn value_recorded_many_times_at_once_is_the_same_as_one_by_one(
        runs in prop::collection::vec((0u64..1 << 40, 0u64..50), 0..20),
    ) {
        let (mut whole, mut single) = (LatencyStat::default(), LatencyStat::default());
        let mut shares = [LatencyDistribution::default(); 2];
        for (value, count) in runs {
            whole.record_many(value, count);
            shares[0].record_many(value, count);
            for _ in 0..count {
                single.record(value);
                shares[1].record(value);
            }
        }
        prop_assert_eq!(whole, single);
        prop_assert_eq!(shares[0], shares[1]);
    }

    /// The textbook two passes over the values, in floats, are the reference.
    #[test]
    fn moments_agree_with_two_passes(values in prop::collection::vec(0u64..1 << 40, 2..300)) {
        let mut stat = RunningStat::default();
        values.iter().for_each(|value| stat.record(*value));
        let floats: Vec<f64> = values.iter().map(|value| *value as f64).collect();
        let n = floats.len() as f64;
        let mean = floats.iter().sum::<f64>() / n;
        let squares = floats.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let stddev = (squares / (n - 1.0)).sqrt();
        prop_assert!((stat.mean() - mean).abs() <= mean * 1e-12);
        prop_assert!((stat.stddev() - stddev).abs() <= stddev.max(1.0) * 1e-9);
    }
}
