//! A directory of another process: list it, copy out of and into it, verify.
//!
//! ```text
//! mfio-netfs-server /srv/data                                    # exports it
//! cargo run -p mfio-netfs --example netfs -- 127.0.0.1:4446 ls
//! cargo run -p mfio-netfs --example netfs -- 127.0.0.1:4446 put FILE NAME   # copies, verifies
//! ```
//!
//! `get NAME FILE` copies out. `NETFS_SECRET_FILE` names the secret, where the server has one.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::error::Error;

use mfio_core::{IoWrite as _, block_on, stream::ReadToEnd as _};
use mfio_netfs::{Config, NetFs, server::secret_of_file};
use mfio_rt::{DirHandle, Entries, FileHandle, Fs, OpenOptions, SyncLevel};

async fn list(fs: &NetFs, path: &str) -> Result<(), Box<dyn Error>> {
    let mut entries = fs.current_dir().open_dir(path).await?.read_dir().await?;
    while let Some(entry) = entries.next().await {
        println!("{:?}", entry?);
    }
    Ok(())
}

async fn read(fs: &NetFs, name: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let file = fs.open(name, &OpenOptions::new().read(true)).await?;
    let (read, bytes) = file.read_to_end(0).await;
    read?;
    Ok(bytes)
}

async fn put(fs: &NetFs, from: &str, name: &str) -> Result<(), Box<dyn Error>> {
    let bytes = std::fs::read(from)?;
    let options = OpenOptions::new().write(true).create(true).truncate(true);
    let file = fs.open(name, &options).await?;
    let (written, bytes) = file.write_exact(0, bytes).await;
    written?;
    file.sync(SyncLevel::All).await?;
    if read(fs, name).await? != bytes {
        return Err("what was read is not what was written".into());
    }
    println!("{} bytes written, read again and equal", bytes.len());
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [address, what @ ..] = &words[..] else { return Err("no address: see the source".into()) };
    let secret = match std::env::var_os("NETFS_SECRET_FILE") {
        Some(path) => Some(secret_of_file(&std::fs::read(path)?)?),
        None => None,
    };
    let fs = NetFs::connect(address.parse()?, Config::default().secret(secret))?;
    block_on(&fs, async {
        match what {
            [] | ["ls"] => list(&fs, ".").await,
            ["ls", path] => list(&fs, path).await,
            ["put", from, name] => put(&fs, from, name).await,
            ["get", name, to] => Ok(std::fs::write(to, read(&fs, name).await?)?),
            _ => Err("ls [PATH], put FILE NAME, or get NAME FILE".into()),
        }
    })?
}
