//! Copies a file or block device to another one, past the page cache where both can, and reads
//! both back to compare them.
//!
//! `cargo run --release -p mfio-engine --example copy -- [FROM TO]`
//!
//! Without arguments, between two temporary files. TO is created if there is none; what it holds
//! is overwritten, and a file is cut to the length of FROM.
#![allow(clippy::print_stdout, reason = "an example says what it saw")]

mod outcome;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mfio_core::AlignedBuf;
use mfio_engine::ring::AutoRing;
use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::{Config, DirectMode, Durability, OpenOptions, Shard};

const PIECE: u64 = 1 << 20;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Copies all of `from` and makes the copy durable. Returns its length in bytes.
async fn copy(shard: &Shard, from: &Path, to: &Path) -> Outcome<u64> {
    let open = |path: &Path, write: bool, direct| {
        shard.open(path, &OpenOptions::new().write(write).create(write).direct(direct))
    };
    let source = open(from, false, DirectMode::PreferDirect)?;
    let target = open(to, true, DirectMode::PreferDirect)?;
    let len_bytes = source.geometry().len_bytes;
    let align = source.geometry().offset_align.max(target.geometry().offset_align);
    let whole_bytes = len_bytes - len_bytes % u64::from(align);
    let mut copied = source.copy_range_to(0, whole_bytes, &target, 0).await?;
    target.sync(Durability::Full).await?;
    let direct = (source.geometry().direct, target.geometry().direct);
    // The rest of a block goes through the page cache, where nothing goes while it is open past.
    drop((source, target));
    if whole_bytes < len_bytes {
        let buffered = OpenOptions::new().write(true).lock(false).direct(DirectMode::Buffered);
        let (rest, end) = (shard.open(from, &buffered.write(false))?, shard.open(to, &buffered)?);
        let rest_bytes = len_bytes - whole_bytes;
        copied += rest.copy_range_to(whole_bytes, rest_bytes, &end, whole_bytes).await?;
        end.sync(Durability::Full).await?;
    }
    if copied != len_bytes {
        return Err(format!("{copied} of {len_bytes} bytes were copied").into());
    }
    println!(
        "{copied} bytes from {} to {}, direct: {} and {}",
        from.display(),
        to.display(),
        direct.0,
        direct.1
    );
    Ok(copied)
}

/// Reads both and compares them, piece by piece.
async fn compare(shard: &Shard, from: &Path, to: &Path, len_bytes: u64) -> Outcome<()> {
    let options = OpenOptions::new().lock(false).direct(DirectMode::Buffered);
    let (one, other) = (shard.open(from, &options)?, shard.open(to, &options)?);
    let mut at = 0;
    while at < len_bytes {
        let len = usize::try_from(PIECE.min(len_bytes - at))?;
        let (read, ours) = one.read_exact_at(at, AlignedBuf::new(len, 4096)).await;
        read?;
        let (read, theirs) = other.read_exact_at(at, AlignedBuf::new(len, 4096)).await;
        read?;
        if ours[..] != theirs[..] {
            return Err(format!("the copy differs between byte {at} and {}", at + PIECE).into());
        }
        at += len as u64;
    }
    Ok(())
}

fn main() -> ExitCode {
    outcome::told(try_main())
}

fn try_main() -> Outcome<()> {
    let given: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let id = std::process::id();
    let (from, to) = match &given[..] {
        [from, to] => (from.clone(), to.clone()),
        [] => {
            let of = |name| std::env::temp_dir().join(format!("mfio-copy-{id}-{name}"));
            // No multiple of a block, so that there is a rest.
            let bytes: Vec<u8> =
                (0..5_000_321_u32).map(|at| (at ^ (at >> 8)).to_le_bytes()[0]).collect();
            std::fs::write(of("from"), bytes)?;
            (of("from"), of("to"))
        }
        _ => return Err("usage: copy [FROM TO]".into()),
    };
    let ring = AutoRing::new(Backend::Auto, &AutoConfig::new(64))?;
    let shard = Shard::with_ring(ring, &Config::new())?;
    let result = shard.block_on(async {
        let len_bytes = copy(&shard, &from, &to).await?;
        if to.metadata()?.is_file() {
            std::fs::OpenOptions::new().write(true).open(&to)?.set_len(len_bytes)?;
        }
        compare(&shard, &from, &to, len_bytes).await
    })?;
    if given.is_empty() {
        std::fs::remove_file(&from)?;
        std::fs::remove_file(&to)?;
    }
    result?;
    println!("both are the same");
    Ok(())
}
