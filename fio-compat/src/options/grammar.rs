//! What values look like whose kind does not say it, for `--cmdhelp`.
//!
//! Data flow: name of an option -> its form, and examples that a test holds against the parsers.
//!
//! Not here: the parsers (`rows`), kinds that say it themselves (`table`).

/// The form of an option's values, and values of that form.
pub(super) struct Grammar {
    name: &'static str,
    /// `|` stands between alternatives, brackets around what may be left out.
    pub(super) form: &'static str,
    /// Each is accepted.
    pub(super) examples: &'static [&'static str],
}

/// The grammar of the option called `name`, where it has one of its own.
pub(super) fn of(name: &str) -> Option<&'static Grammar> {
    GRAMMARS.iter().find(|grammar| grammar.name == name)
}

const fn form(
    name: &'static str,
    form: &'static str,
    examples: &'static [&'static str],
) -> Grammar {
    Grammar { name, form, examples }
}

const RW: &str = "read|write|trim|rw|randread|randwrite|randtrim|randrw|trimwrite|randtrimwrite, \
                  and [:N]: of random ones, I/Os per random offset; of others, bytes to skip";
const DISTRIBUTION: &str = "random|zipf[:THETA]|pareto[:H]|normal[:PERCENT], each of the three \
                            with [:CENTER], or zoned:ACCESS%/LENGTH%:… or \
                            zoned_abs:ACCESS%/BYTES:…; for read,write,trim";
const PATTERN: &str = "0xHEX, \"text\", numbers and 'file', in a row";

const MICROS: &str = "time; a bare number is microseconds";
const MICROS_EXAMPLES: &[&str] = &["500", "2ms"];
const SIZE: &str = "integer with k, m, g, t or p";
const RATES: &str = "integers with k, m or g, per second, for read,write,trim";
const RATES_EXAMPLES: &[&str] = &["10k", "1m,500k"];

const GRAMMARS: &[Grammar] = &[
    form("rw", RW, &["randread", "randread:8", "write:4k"]),
    form("ioengine", "the name of an engine; --enghelp lists them", &["io_uring", "psync"]),
    form("rw_sequencer", "sequential|identical", &["sequential", "identical"]),
    form("bsrange", "LOW-HIGH, for read,write,trim", &["1k-64k", "1k-4k,8k-16k"]),
    form(
        "bssplit",
        "SIZE/PERCENT:…, for read,write,trim; blank percentages share the rest",
        &["4k/60:64k/40", "4k/50:8k/:16k/", "4k/100,8k/100"],
    ),
    form("blockalign", "integers with k, m, g, t or p, for read,write,trim", &["4k", "4k,8k"]),
    form("percentage_random", "percentages for read,write,trim", &["50", "100,20"]),
    form("random_distribution", DISTRIBUTION, &["zipf:1.2", "normal:10:0.5", "zoned:90/10:10/90"]),
    form("random_generator", "tausworthe|tausworthe64|lfsr", &["lfsr"]),
    form(
        "file_service_type",
        "roundrobin|random|sequential, each with [:I/Os], or zipf|pareto|normal[:SKEW]",
        &["roundrobin:8", "zipf:1.2"],
    ),
    form("filesize", "SIZE, or LOW-HIGH", &["1m", "1m-8m"]),
    form("zonemode", "none|strided", &["none", "strided"]),
    form("zonesize", SIZE, &["1m"]),
    form("zonerange", SIZE, &["4m"]),
    form("zoneskip", SIZE, &["3m"]),
    form("startdelay", "time, or LOW-HIGH; a bare number is seconds", &["2", "500ms", "1-3"]),
    form("cpumask", "integer, one bit for each CPU", &["3", "0x5"]),
    form("cpus_allowed_policy", "shared|split", &["shared", "split"]),
    form("nice", "integer from -20 to 19", &["10"]),
    form("exit_what", "group|stonewall|all", &["group", "stonewall", "all"]),
    form("continue_on_error", "none|read|write|io|verify|all", &["none", "io", "all"]),
    form(
        "ignore_error",
        "ERRNO:…, names or numbers, for read,write,verify",
        &["EIO", "EAGAIN:ENOSPC,EIO,84"],
    ),
    form("rate", RATES, RATES_EXAMPLES),
    form("rate_iops", RATES, RATES_EXAMPLES),
    form("rate_min", RATES, RATES_EXAMPLES),
    form("rate_iops_min", RATES, RATES_EXAMPLES),
    form("rate_cycle", "milliseconds", &["500"]),
    form("rate_process", "linear|poisson", &["linear", "poisson"]),
    form("thinktime", MICROS, MICROS_EXAMPLES),
    form("thinktime_spin", MICROS, MICROS_EXAMPLES),
    form("thinktime_blocks_type", "complete|issue", &["complete", "issue"]),
    form("latency_target", MICROS, MICROS_EXAMPLES),
    form("latency_window", MICROS, MICROS_EXAMPLES),
    form("latency_percentile", "percentage above 0, with a point or without", &["99.9"]),
    form("max_latency", "times for read,write,trim; bare numbers are microseconds", &["10ms,20ms"]),
    form(
        "steadystate",
        "iops|iops_slope|bw|bw_slope|lat|lat_slope and :LIMIT[%]",
        &["iops:2%", "bw_slope:0.3%"],
    ),
    form("steadystate_check_interval", "time of 10ms or more; a bare number is seconds", &["1"]),
    form("io_submit_mode", "inline|offload", &["inline", "offload"]),
    form("buffer_pattern", PATTERN, &["0xdeadbeef", "\"abcd\"", "-12"]),
    form("verify_pattern", "0xHEX, \"text\", numbers, 'file' and %o, in a row", &["0xff%o"]),
    form("sync", "none|sync|dsync", &["none", "sync", "dsync"]),
    form(
        "sync_file_range",
        "wait_before,write,wait_after, any of them, and [:N]",
        &["write:32", "wait_before,write,wait_after:8"],
    ),
    form("replay_align", "integer with k, m, g, t or p, a power of two", &["4k"]),
    form("replay_skip", "read,write,trim,sync, any of them", &["write,trim"]),
    form(
        "fallocate",
        "none|native|posix|keep|truncate",
        &["none", "native", "posix", "keep", "truncate"],
    ),
    form("fadvise_hint", "0|1|random|sequential", &["0", "1", "random", "sequential"]),
    form(
        "write_hint",
        "none|short|medium|long|extreme",
        &["none", "short", "medium", "long", "extreme"],
    ),
];

#[cfg(test)]
mod tests {
    use super::super::table::{Entry, find, rows};
    use super::super::value::apply;
    use super::*;
    use crate::job::Job;

    #[test]
    fn every_kind_that_does_not_say_its_form_has_a_grammar_whose_examples_are_accepted() {
        for row in rows().filter(|row| row.kind.describe().is_none()) {
            assert!(of(row.name).is_some(), "{} has no grammar", row.name);
        }
        for grammar in GRAMMARS {
            let Some(Entry::Supported(row)) = find(grammar.name) else {
                panic!("{} is no option", grammar.name);
            };
            assert!(row.kind.describe().is_none(), "{} says it itself", grammar.name);
            assert!(!grammar.examples.is_empty(), "{}", grammar.name);
            for example in grammar.examples {
                let applied = apply(row, Some(example), &mut Job::new(""));
                assert!(applied.is_ok(), "{}={example}: {applied:?}", grammar.name);
            }
        }
    }
}
