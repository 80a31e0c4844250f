//! This repository: what `mfio-netfs-server` runs, and its client.
//!
//! Data flow: `depth` readers → one connection → server → the file, and back.
//!
//! Not here: anything that is not in the documentation.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use futures::future::try_join_all;
use mfio_core::{IoRead as _, block_on};
use mfio_netfs::{Config, NetFile, NetFs, Server, ServerConfig};
use mfio_rt::portable::Portable;
use mfio_rt::{Fs as _, ListenOptions, ListenerHandle as _, OpenOptions, Tcp as _};

use crate::{Client, Failure, Work, digest, listening, parted};

/// Serves for ever.
pub fn serve(path: &Path) -> Result<ExitCode, Failure> {
    let (directory, _) = parted(path)?;
    let fs = Portable::at(directory)?;
    let server = Server::new(fs.current_dir(), ServerConfig::default());
    let server = block_on(&fs, server)??;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = block_on(&fs, fs.bind(any, &ListenOptions::new()))??;
    listening(listener.local_addr()?)?;
    // As the program: whoever waits for the sockets waits for all.
    Err(block_on(&listener, server.serve(&listener, |_| {}))?.into())
}

/// A connection and its file.
pub struct Reader {
    fs: NetFs,
    file: NetFile,
    buffers: Vec<Vec<u8>>,
}

impl Reader {
    /// Connects to [`serve`].
    pub fn connect(address: SocketAddr, path: &Path) -> Result<Self, Failure> {
        let fs = NetFs::connect(address, Config::default())?;
        let (_, name) = parted(path)?;
        let file = block_on(&fs, fs.open(name, &OpenOptions::new().read(true)))??;
        Ok(Self { fs, file, buffers: Vec::new() })
    }
}

impl Client for Reader {
    fn run(&mut self, work: Work) -> Result<u64, Failure> {
        self.buffers.resize(work.depth, vec![0; work.read_bytes]);
        let file = &self.file;
        let lanes = self.buffers.iter_mut().enumerate().map(async |(lane, place)| {
            let mut sum = 0_u64;
            for (at, many) in work.lane(lane) {
                let mut buffer = std::mem::take(place);
                buffer.truncate(many);
                let (read, buffer) = file.read_exact(at, buffer).await;
                read?;
                sum = sum.wrapping_add(digest(&buffer));
                *place = buffer;
                place.resize(work.read_bytes, 0);
            }
            Ok::<_, mfio_core::Error>(sum)
        });
        let sums = block_on(&self.fs, try_join_all(lanes))??;
        Ok(sums.into_iter().fold(0, u64::wrapping_add))
    }
}
