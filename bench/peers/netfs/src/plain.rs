//! The plain TCP copy.
//!
//! Data flow: file → 1 MiB buffer → socket → the reader's buffer.
//!
//! Not here: requests; the length of what is wanted starts a copy.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::ExitCode;

use crate::{Client, Failure, Work, digest, listening};

/// Serves one connection.
pub fn serve(path: &Path) -> Result<ExitCode, Failure> {
    let (file, mut buffer) = (File::open(path)?, Vec::new());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listening(listener.local_addr()?)?;
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut wanted = [0; 16];
    loop {
        if stream.read_exact(&mut wanted).is_err() {
            return Ok(ExitCode::SUCCESS);
        }
        let [bytes, piece] = [0, 8].map(|at| wanted[at..].first_chunk().copied());
        let (bytes, piece) = bytes.zip(piece).ok_or("two numbers")?;
        let bytes = u64::from_le_bytes(bytes);
        buffer.resize(usize::try_from(u64::from_le_bytes(piece))?, 0);
        let mut at = 0;
        while at < bytes {
            let read = file.read_at(&mut buffer, at)?;
            stream.write_all(&buffer[..read])?;
            at += read as u64;
        }
    }
}

/// Reads what comes.
pub struct Reader(TcpStream);

impl Reader {
    /// Connects to [`serve`].
    pub fn connect(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }
}

impl Client for Reader {
    fn run(&mut self, work: Work) -> Result<u64, Failure> {
        let piece = (work.read_bytes as u64).to_le_bytes();
        self.0.write_all(&[work.file_bytes.to_le_bytes(), piece].concat())?;
        // As much memory as the others fill.
        let mut buffers = vec![vec![0; work.read_bytes]; work.depth];
        let (mut left, mut sum, mut turn) = (work.file_bytes, 0_u64, 0);
        while left > 0 {
            let many = left.min(work.read_bytes as u64) as usize;
            let buffer = &mut buffers[turn % work.depth][..many];
            self.0.read_exact(buffer)?;
            sum = sum.wrapping_add(digest(buffer));
            left -= many as u64;
            turn += 1;
        }
        Ok(sum)
    }
}
