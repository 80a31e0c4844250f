//! Our packets against the published `mfio` 0.1.0, in one process and in alternation.
//!
//! Data flow: arguments → rows (`ours`, `theirs`) → rounds (`measure`) → a table → exit code.
//! Both sides run on the same small target, are awaited by the same loop and woken by the same
//! waker; what differs is the packets.
//!
//! Not here: devices and files; nothing here leaves memory.
#![deny(unsafe_code)]

use std::fmt::Write as _;
use std::process::ExitCode;

use measure::{Form, Found, Median, Plan, Row, compare};

mod measure;
mod ours;
mod theirs;
mod waiting;

/// Packets under way in the rows with many.
const DEPTH: usize = 256;
/// Size of each target: fits in the second-level cache, so that memory does not decide.
const MEMORY_BYTES: usize = 64 * 1024;
/// Reads this small cost what the packets cost; the goal is set for them.
const SMALL_BYTES: usize = 64;
const LARGE_BYTES: usize = 4096;

const USAGE: &str = "\
usage: mfio-peers [--rounds N] [--ms N] [--row TEXT] [--min-ratio R]
       mfio-peers --row TEXT --side ours|theirs --form TEXT --ops N

  --rounds N      rounds, each of which measures every form once (default 15)
  --ms N          length of one measurement in milliseconds (default 10)
  --row TEXT      only rows whose name contains TEXT
  --min-ratio R   exit with 1 if mfio needs less than R times our time in a 64 B row of
                  reused packets (\"one\", \"many\"); the other rows measure the allocator or
                  the stack as well
  --ops N         run one form for N operations and print nothing, for a profiler";

/// When a target completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Inside `send_io`.
    Inline,
    /// When driven.
    Polled,
}

/// Where operation number `turn` reads: onwards, round and round, and at every alignment, for
/// how source and destination lie to each other within a page decides how fast a copy is.
fn offset_of(turn: u64, bytes: usize) -> u64 {
    (turn * (bytes as u64 + 192)) % (MEMORY_BYTES - bytes + 1) as u64
}

#[derive(Default)]
struct Request {
    rounds: Option<usize>,
    ms: Option<u32>,
    row: String,
    ratio_min: Option<f64>,
    side: Option<usize>,
    form: String,
    ops: Option<u64>,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Request, String> {
    let mut request = Request::default();
    while let Some(name) = args.next() {
        let value = args.next().ok_or(USAGE)?;
        let number = || format!("{name} {value}: not a number");
        match &*name {
            "--rounds" => request.rounds = Some(value.parse().map_err(|_| number())?),
            "--ms" => request.ms = Some(value.parse().map_err(|_| number())?),
            "--row" => request.row = value,
            "--min-ratio" => request.ratio_min = Some(value.parse().map_err(|_| number())?),
            "--side" if value == "ours" => request.side = Some(0),
            "--side" if value == "theirs" => request.side = Some(1),
            "--form" => request.form = value,
            "--ops" => request.ops = Some(value.parse().map_err(|_| number())?),
            _ => return Err(USAGE.into()),
        }
    }
    if request.rounds == Some(0) || request.ms == Some(0) {
        return Err("--rounds and --ms start at 1".into());
    }
    Ok(request)
}

type Make = fn(Mode, usize) -> Vec<Form<'static>>;

/// What is measured, and with which sizes.
const KINDS: [(&str, Make, Make, &[usize]); 5] = [
    ("one", ours::one, theirs::one, &[SMALL_BYTES, LARGE_BYTES]),
    ("many, fastest", ours::many, theirs::many, &[SMALL_BYTES, LARGE_BYTES]),
    ("many, futures", ours::futures, theirs::futures, &[SMALL_BYTES, LARGE_BYTES]),
    ("new packet", ours::new_packet, theirs::new_packet, &[SMALL_BYTES, LARGE_BYTES]),
    ("value", ours::value, theirs::value, &[SMALL_BYTES]),
];

fn rows(wanted: &str) -> Vec<Row<'static>> {
    let mut rows = Vec::new();
    for (kind, ours, theirs, sizes) in KINDS {
        for &bytes in sizes {
            for mode in [Mode::Inline, Mode::Polled] {
                let mode_name = if mode == Mode::Inline { "inline" } else { "polled" };
                let name = format!("{bytes} B, {kind}, {mode_name}");
                if name.contains(wanted) {
                    rows.push(Row { name, bytes, sides: [ours(mode, bytes), theirs(mode, bytes)] });
                }
            }
        }
    }
    rows
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|request| run(&request)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

/// False if a ratio is below what was asked for.
fn run(request: &Request) -> Result<bool, String> {
    let mut rows = rows(&request.row);
    if rows.is_empty() {
        return Err(format!("no row's name contains {:?}", request.row));
    }
    if let Some(ops) = request.ops {
        return run_one(request, rows, ops);
    }
    let plan = Plan {
        rounds: request.rounds.unwrap_or(15),
        measurement_ns: f64::from(request.ms.unwrap_or(10)) * 1e6,
    };
    println!("{}", machine(plan));
    let mut enough = true;
    for row in &mut rows {
        let found = compare(row, plan);
        let judged = row.name.contains("one,") || row.name.contains("many,");
        let below = judged
            && row.bytes == SMALL_BYTES
            && request.ratio_min.is_some_and(|least| found.ratio.value < least);
        enough &= !below;
        print!("{}", table(row, &found, below));
    }
    Ok(enough)
}

/// One form alone, for a profiler.
fn run_one(request: &Request, rows: Vec<Row<'_>>, ops: u64) -> Result<bool, String> {
    let side = request.side.ok_or(USAGE)?;
    for mut row in rows {
        let forms = &mut row.sides[side];
        if let Some(form) = forms.iter_mut().find(|form| form.name.contains(&request.form)) {
            (form.run)(ops);
            return Ok(true);
        }
    }
    Err(format!("no form's name contains {:?}", request.form))
}

fn machine(plan: Plan) -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let copy = |bytes: usize| {
        let (from, mut to) = (vec![7_u8; MEMORY_BYTES], vec![0_u8; bytes]);
        let run = Box::new(move |count| {
            for turn in 0..count {
                let at = offset_of(std::hint::black_box(turn), bytes) as usize;
                to.copy_from_slice(&from[at..at + bytes]);
                std::hint::black_box(&mut to);
            }
        });
        measure::alone(&mut Form { name: "memcpy", run }, plan).value
    };
    format!(
        "rounds {}, load {load}; memcpy alone: {SMALL_BYTES} B {:.1} ns, {LARGE_BYTES} B {:.1} ns\n\
         ns per read, median [95 % interval]; the ratio is mfio's time over ours, of the fastest \
         form of each",
        plan.rounds,
        copy(SMALL_BYTES),
        copy(LARGE_BYTES),
    )
}

fn table(row: &Row<'_>, found: &Found, below: bool) -> String {
    let Median { value, low, high } = found.ratio;
    let verdict = if below { "  BELOW" } else { "" };
    let mut text = format!("\n{}: {value:.2}x [{low:.2}, {high:.2}]{verdict}\n", row.name);
    for (side, owner) in ["ours", "mfio"].into_iter().enumerate() {
        for (at, form) in row.sides[side].iter().enumerate() {
            let Median { value, low, high } = found.forms_ns[side][at];
            let mark = if at == found.fastest[side] { '*' } else { ' ' };
            let name = form.name;
            let line = format!("{mark} {owner:4} {name:22} {value:7.1} [{low:.1}, {high:.1}]");
            let _infallible = writeln!(text, "{line}");
        }
    }
    text
}
