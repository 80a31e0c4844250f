//! Reads of one file in the page cache across loopback: a plain TCP copy, the published
//! mfio-netfs 0.1.0, and ours, in alternation.
//!
//! Data flow: arguments → a server process for each side (`plain`, `theirs`, `ours`) → rounds,
//! each of which reads the whole file once through every side → bytes per second → ratios
//! within a round → a table.
//!
//! The plain copy is a thread that reads a piece of the file and writes it to the socket, and
//! another that reads the socket into a buffer: nothing is asked for, nothing is framed.
//!
//! Not here: what a single side does.
#![forbid(unsafe_code)]

mod ours;
mod plain;
mod table;
mod theirs;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use clap::{Parser, ValueEnum};

/// Reads of one file across loopback.
#[derive(Clone, Debug, Parser)]
pub struct Arguments {
    /// The file; made if there is none.
    pub file: PathBuf,
    /// Its length in bytes, where it is made.
    #[arg(long, default_value_t = 1 << 30)]
    pub file_bytes: u64,
    /// Bytes of a read.
    #[arg(long, default_value_t = 1 << 20)]
    pub read_bytes: usize,
    /// Reads in flight.
    #[arg(long, default_value_t = 8)]
    pub depth: usize,
    /// Rounds, each of which reads the file once through every side.
    #[arg(long, default_value_t = 9)]
    pub rounds: usize,
    /// Only these sides, separated by commas; the plain copy is always there.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Side>,
    /// Exit with 1 if we are below this share of the plain copy.
    #[arg(long)]
    pub min_plain: Option<f64>,
    /// Exit with 1 if we are below this multiple of mfio-netfs 0.1.0.
    #[arg(long)]
    pub min_theirs: Option<f64>,
    /// Be the server of this side.
    #[arg(long, hide = true)]
    pub serve: Option<Side>,
}

/// What carries the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// `pread`, `write`; `read`.
    Plain,
    /// mfio-netfs 0.1.0.
    Theirs,
    /// This repository.
    Ours,
}

type Failure = Box<dyn std::error::Error>;

/// What a round reads.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    file_bytes: u64,
    read_bytes: usize,
    depth: usize,
}

impl Work {
    /// The places that one of `depth` readers reads, and how many bytes there.
    fn lane(self, lane: usize) -> impl Iterator<Item = (u64, usize)> {
        let step = self.read_bytes as u64;
        let places = (lane as u64..).step_by(self.depth).map(move |number| number * step);
        let places = places.take_while(move |&at| at < self.file_bytes);
        places.map(move |at| (at, step.min(self.file_bytes - at) as usize))
    }
}

/// Something of every page, so that all sides must have brought the same bytes.
pub fn digest(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(4096).filter_map(|page| page.first_chunk::<8>());
    words.fold(0, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
}

/// The client of a side.
pub trait Client {
    /// Reads the whole file; the digests of all pieces, added up.
    fn run(&mut self, work: Work) -> Result<u64, Failure>;
}

/// A server, as long as it is needed.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Whether it has ended by itself or is ended here, it is waited for.
        let _gone = (self.0.kill(), self.0.wait());
    }
}

/// CPU time that a process has used, all of its threads together, in ticks of 10 ms.
fn ticks(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let number = |at| fields.split_whitespace().nth(at)?.parse::<u64>().ok();
    Some(number(11)? + number(12)?)
}

fn start(side: Side, file: &Path) -> Result<(Server, SocketAddr), Failure> {
    let name = side.to_possible_value().ok_or("a side has a name")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--serve").arg(name.get_name()).arg(file).stdout(Stdio::piped());
    let mut server = Server(command.spawn()?);
    let mut line = String::new();
    let stdout = server.0.stdout.take().ok_or("its output is a pipe")?;
    BufReader::new(stdout).read_line(&mut line)?;
    Ok((server, line.trim().parse()?))
}

fn listening(address: SocketAddr) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{address}")?;
    Ok(out.flush()?)
}

/// The directory and the name of a file.
fn parted(file: &Path) -> Result<(&Path, &str), Failure> {
    let name = file.file_name().and_then(|name| name.to_str()).ok_or("the file has no name")?;
    Ok((file.parent().ok_or("the file is in no directory")?, name))
}

/// Makes the file if there is none, and reads it once so that it is cached.
fn prepare(file: &Path, bytes: u64) -> Result<u64, Failure> {
    if !file.exists() {
        let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
        let mut word = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..bytes / 8 {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            out.write_all(&word.to_le_bytes())?;
        }
        out.into_inner()?.sync_all()?;
    }
    let (mut read, mut piece, mut all) = (std::fs::File::open(file)?, vec![0; 1 << 20], 0);
    loop {
        match read.read(&mut piece)? {
            0 => return Ok(all),
            some => all += some as u64,
        }
    }
}

fn connect(side: Side, address: SocketAddr, file: &Path) -> Result<Box<dyn Client>, Failure> {
    Ok(match side {
        Side::Plain => Box::new(plain::Reader::connect(address)?),
        Side::Theirs => Box::new(theirs::Reader::connect(address, file)?),
        Side::Ours => Box::new(ours::Reader::connect(address, file)?),
    })
}

fn compare(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let file_bytes = prepare(&arguments.file, arguments.file_bytes)?;
    let file = arguments.file.canonicalize()?;
    let (read_bytes, depth) = (arguments.read_bytes.max(8), arguments.depth.max(1));
    let work = Work { file_bytes, read_bytes, depth };
    let wanted = |side: &Side| {
        *side == Side::Plain || arguments.only.is_empty() || arguments.only.contains(side)
    };
    let sides: Vec<Side> = Side::value_variants().iter().copied().filter(wanted).collect();
    let mut clients = Vec::new();
    for side in &sides {
        let (server, address) = start(*side, &file)?;
        clients.push((connect(*side, address, &file)?, server));
    }
    let (mut rounds, mut expected) = (Vec::new(), None);
    // The first round warms up and is not counted.
    for round in 0..=arguments.rounds {
        let mut row = Vec::new();
        for (client, server) in &mut clients {
            let used = || [ticks(server.0.id()), ticks(std::process::id())];
            let (before, started) = (used(), Instant::now());
            let digest = client.run(work)?;
            let rate = file_bytes as f64 / started.elapsed().as_secs_f64();
            let after = used();
            let cpu_ms = |at: usize| {
                let ticks = after[at].zip(before[at]).map_or(0, |(after, before)| after - before);
                10.0 * ticks as f64 * f64::from(1 << 30) / file_bytes as f64
            };
            row.push([rate, cpu_ms(0), cpu_ms(1)]);
            if *expected.get_or_insert(digest) != digest {
                return Err("two sides have read different bytes".into());
            }
        }
        if round > 0 {
            rounds.push(row);
        }
    }
    Ok(table::print(&sides, &rounds, arguments))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.serve {
        Some(Side::Plain) => plain::serve(&arguments.file),
        Some(Side::Theirs) => theirs::serve(&arguments.file),
        Some(Side::Ours) => ours::serve(&arguments.file),
        None => compare(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("netfs-peers: {error}");
        ExitCode::FAILURE
    })
}
