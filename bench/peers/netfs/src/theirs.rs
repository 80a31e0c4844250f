//! The published mfio-netfs 0.1.0: its server as its program runs it, its client as its example
//! does.
//!
//! Data flow: `depth` readers → one connection → server → the file, and back.
//!
//! Not here: the backends of its runtime; `MFIO_FS_BACKENDS` chooses, as its documentation says.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use futures::future::try_join_all;
use their_mfio::backend::IoBackendExt as _;
use their_mfio::traits::IoRead as _;
use their_netfs::NetworkFs;
use their_rt::{Fs as _, NativeRt, OpenOptions, Tcp as _, TcpListenerHandle as _};

use crate::{Client, Failure, Work, digest, listening, parted};

/// Serves for ever.
pub fn serve(path: &Path) -> Result<ExitCode, Failure> {
    let (directory, _) = parted(path)?;
    std::env::set_current_dir(directory)?;
    let fs = NativeRt::default();
    fs.block_on(async {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = fs.bind(any).await.map_err(failed)?;
        listening(listener.local_addr().map_err(failed)?)?;
        their_netfs::server(&fs, listener).await;
        Ok(ExitCode::SUCCESS)
    })
}

fn failed(error: their_mfio::error::Error) -> Failure {
    format!("mfio-netfs 0.1.0: {error}").into()
}

/// A connection and its file.
pub struct Reader {
    fs: NetworkFs,
    name: String,
    buffers: Vec<Vec<u8>>,
}

impl Reader {
    /// Connects to [`serve`].
    pub fn connect(address: SocketAddr, path: &Path) -> Result<Self, Failure> {
        let fs = NetworkFs::with_fs(address, NativeRt::default().into(), true).map_err(failed)?;
        let (_, name) = parted(path)?;
        Ok(Self { fs, name: name.into(), buffers: Vec::new() })
    }
}

impl Client for Reader {
    fn run(&mut self, work: Work) -> Result<u64, Failure> {
        self.buffers.resize(work.depth, vec![0; work.read_bytes]);
        let (fs, name, buffers) = (&self.fs, &self.name, &mut self.buffers);
        fs.block_on(async {
            let options = OpenOptions::new().read(true);
            let file = fs.open(Path::new(name), options).await.map_err(failed)?;
            let file = &file;
            let lanes = buffers.iter_mut().enumerate().map(async |(lane, buffer)| {
                let mut sum = 0_u64;
                for (at, many) in work.lane(lane) {
                    file.read_all(at, &mut buffer[..many]).await.map_err(failed)?;
                    sum = sum.wrapping_add(digest(&buffer[..many]));
                }
                Ok::<_, Failure>(sum)
            });
            let sums = try_join_all(lanes).await?;
            Ok(sums.into_iter().fold(0, u64::wrapping_add))
        })
    }
}
