//! What the rounds say.
//!
//! Data flow: bytes per second and CPU time of each side in each round → medians, and medians
//! and intervals of the ratios within a round → lines → exit code.
//!
//! Not here: measuring.

use std::process::ExitCode;

use crate::{Arguments, Side};

/// Median and the interval that holds the middle half.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = values.len().saturating_sub(1) as f64;
        values.get((last * share).round() as usize).copied().unwrap_or(f64::NAN)
    };
    [at(0.5), at(0.25), at(0.75)]
}

/// Prints the table; 1 where a bar is missed.
pub fn print(sides: &[Side], rounds: &[Vec<[f64; 3]>], arguments: &Arguments) -> ExitCode {
    let titles = ["MiB/s", "server ms/GiB", "client ms/GiB", "of the plain copy"];
    println!(
        "{:<8} {:>8} {:>15} {:>15} {:>22}",
        "side", titles[0], titles[1], titles[2], titles[3]
    );
    for (column, side) in sides.iter().enumerate() {
        let [rate, ..] = spread(rounds.iter().map(|row| row[column][0] / f64::from(1 << 20)));
        let [ratio, low, high] = spread(rounds.iter().map(|row| row[column][0] / row[0][0]));
        let cpu_ms = |at| spread(rounds.iter().map(|row| row[column][at]))[0];
        let (server, client) = (cpu_ms(1), cpu_ms(2));
        let side = format!("{side:?}").to_lowercase();
        let ratio = format!("{ratio:.2} [{low:.2}, {high:.2}]");
        println!("{side:<8} {rate:>8.0} {server:>15.0} {client:>15.0} {ratio:>22}");
    }
    let place = |wanted| sides.iter().position(|side| *side == wanted);
    let mut missed = false;
    let bars = [(Side::Plain, arguments.min_plain), (Side::Theirs, arguments.min_theirs)];
    for (other, bar) in bars {
        let (Some(ours), Some(other_at)) = (place(Side::Ours), place(other)) else { continue };
        let [ratio, low, high] = spread(rounds.iter().map(|row| row[ours][0] / row[other_at][0]));
        println!("ours / {other:?}: {ratio:.2} [{low:.2}, {high:.2}]");
        if bar.is_some_and(|bar| ratio < bar) {
            println!("FAIL: below {}", bar.unwrap_or_default());
            missed = true;
        }
    }
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
