//! A directory of another process: list it, copy out of and into it, verify.
//!
//! ```text
//! mfio-netfs-server /srv/data                                    # exports it
//! cargo run -p mfio-netfs --example netfs -- 127.0.0.1:4446 ls
//! cargo run -p mfio-netfs --example netfs -- 127.0.0.1:4446 put FILE NAME   # copies, verifies
//! ```
//!
//! `get NAME FILE` copies out and verifies. `NETFS_SECRET_FILE` names the secret, where the
//! server has one. Files may be of any length: so many pieces are under way, and no more.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::error::Error;
use std::net::ToSocketAddrs;
use std::path::Path;
use std::process::ExitCode;

use futures_util::future::try_join_all;
use mfio_core::{IoRead as _, IoWrite as _, block_on};
use mfio_netfs::{Config, NetFs, server::secret_of_file};
use mfio_rt::portable::Portable;
use mfio_rt::{DirHandle, Entries, FileHandle, Fs, OpenOptions, SyncLevel};

const USAGE: &str = "usage: netfs ADDRESS:PORT ls [PATH]
       netfs ADDRESS:PORT put FILE NAME    copies to the server, and verifies
       netfs ADDRESS:PORT get NAME FILE    copies from the server, and verifies
NETFS_SECRET_FILE names the secret, where the server has one.";

const PIECE_BYTES: u64 = 1 << 20;
const PIECES: u64 = 8;

async fn list(fs: &NetFs, path: &str) -> Result<(), Box<dyn Error>> {
    let mut entries = fs.current_dir().open_dir(path).await?.read_dir().await?;
    while let Some(entry) = entries.next().await {
        println!("{:?}", entry?);
    }
    Ok(())
}

/// Every piece of `len` bytes, [`PIECES`] of them at a time: its place, and a buffer for it.
async fn pieces(
    len: u64,
    work: impl AsyncFn(u64, Vec<u8>) -> Result<Vec<u8>, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let lanes = (0..PIECES).map(async |lane| {
        let (mut at, mut buffer) = (lane * PIECE_BYTES, Vec::new());
        while at < len {
            buffer.resize(usize::try_from(PIECE_BYTES.min(len - at))?, 0);
            buffer = work(at, buffer).await?;
            at += PIECES * PIECE_BYTES;
        }
        Ok::<_, Box<dyn Error>>(())
    });
    try_join_all(lanes).await.map(drop)
}

/// Copies a file from one file system to another, reads the copy again and compares.
async fn copy(
    (from, name): (&impl Fs, &str),
    (to, new_name): (&impl Fs, &str),
) -> Result<(), Box<dyn Error>> {
    let from = from.open(name, &OpenOptions::new().read(true)).await?;
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(true);
    let to = to.open(new_name, &options).await?;
    let len = from.metadata().await?.len;
    pieces(len, async |at, buffer| {
        let (read, buffer) = from.read_exact(at, buffer).await;
        read?;
        let (written, buffer) = to.write_exact(at, buffer).await;
        written?;
        Ok(buffer)
    })
    .await?;
    to.sync(SyncLevel::All).await?;
    pieces(len, async |at, buffer| {
        let other = vec![0; buffer.len()];
        let ((read, buffer), (again, other)) =
            (from.read_exact(at, buffer).await, to.read_exact(at, other).await);
        read?;
        again?;
        if buffer != other {
            return Err(format!("the copy differs within {PIECE_BYTES} bytes from {at}").into());
        }
        Ok(buffer)
    })
    .await?;
    println!("{len} bytes copied, read again and equal");
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<(), Box<dyn Error>> {
    let [address, what @ ..] = words else { return Err(USAGE.into()) };
    let no_address = |error| format!("{address} is no ADDRESS:PORT: {error}\n{USAGE}");
    let address = address.to_socket_addrs().map_err(no_address)?.next().ok_or("no such host")?;
    let secret = match std::env::var_os("NETFS_SECRET_FILE") {
        Some(path) => Some(secret_of_file(&std::fs::read(path)?)?),
        None => None,
    };
    let fs = NetFs::connect(address, Config::default().secret(secret))?;
    let here = Portable::at(Path::new("."))?;
    // Nothing of this needs driving, so one `block_on` serves both file systems.
    block_on(&fs, async {
        match what {
            [] | ["ls"] => list(&fs, ".").await,
            ["ls", path] => list(&fs, path).await,
            ["put", from, name] => copy((&here, from), (&fs, name)).await,
            ["get", name, to] => copy((&fs, name), (&here, to)).await,
            _ => Err(USAGE.into()),
        }
    })?
}
