//! A file system across a network.
//!
//! A server exports one directory of any [`Fs`](mfio_rt::Fs); a client is an
//! [`Fs`](mfio_rt::Fs) again, over any stream of bytes.
//!
//! ```
//! use mfio_netfs::{Config, Duplex, NetFs, Server};
//! use mfio_rt::{DirHandle, DirHandleExt, Fs, virt::VirtFs};
//!
//! let (ours, theirs) = Duplex::pair(64 << 10);
//! std::thread::spawn(move || {
//!     let fs = VirtFs::new();
//!     let server = mfio_core::block_on(&fs, Server::new(fs.current_dir(), Default::default()));
//!     let server = server.unwrap().unwrap();
//!     mfio_core::block_on(&fs, server.serve_connection(theirs)).unwrap()
//! });
//! let fs = NetFs::over(ours, Config::default()).unwrap();
//! mfio_core::block_on(&fs, async {
//!     fs.current_dir().create_dir_all("notes/today", 0o755).await.unwrap();
//!     assert!(fs.current_dir().exists("notes/today").await.unwrap());
//! }).unwrap();
//! ```
//!
//! By TCP it is [`NetFs::connect`], to a [`Server`] of one's own or to the program
//! `mfio-netfs-server`, which exports a directory (`examples/netfs.rs` lists one and copies from
//! and to it).
//!
//! | module | turns what into what |
//! |---|---|
//! | [`wire`] | messages into bytes, and any bytes into messages or an error (`no_std`) |
//! | [`auth`] | a secret into proofs |
//! | [`client`] | packets and operations into requests |
//! | [`server`] | requests into packets and operations on one directory |
//! | [`duplex`] | memory into a connection |
//!
//! Bytes of packets go to and come from the connection without a copy, where they have an
//! address; replies come in any order, and those to a long read in parts, as they are ready.
//!
//! # What a peer can do
//!
//! A [`Secret`] says who may connect: each side proves that it knows it before the other serves
//! or uses it. It says nothing of what is sent afterwards, which others on the way can read and
//! change. All who know it have the same rights: those of the server's own user in the exported
//! directory. They may set every permission bit there is, set-user-ID among them: export with
//! the least of users, from a file system mounted `nosuid` where that matters.
//!
//! Whoever is let in has bounds of his own, all of them in [`ServerConfig`]: requests and bytes
//! under way, open handles, patience; and the server's thread takes turns between connections.
//! Whoever is not, has bounds apart from those: he is cut after
//! [`greeting_max`](field@ServerConfig::greeting_max), or when
//! [`greetings_max`](field@ServerConfig::greetings_max) others have come after him. Without a
//! secret everybody who can connect is let in, and may take every connection there is. What a
//! client fills of the exported file system is not bounded.
//!
//! Files past the page cache ([`OpenOptions::direct`](field@mfio_rt::OpenOptions::direct)) are
//! refused: memory of the server is not aligned as the client's is.
//!
//! Not here: encryption. Tunnel connections through networks that others can listen to.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod wire;

#[cfg(feature = "std")]
pub mod auth;
#[cfg(feature = "std")]
mod carrier;
#[cfg(feature = "std")]
pub mod client;
#[cfg(feature = "std")]
pub mod duplex;
#[cfg(feature = "std")]
pub mod server;

#[cfg(feature = "std")]
pub use auth::Secret;
#[cfg(feature = "std")]
pub use carrier::{Carrier, Cut};
#[cfg(feature = "std")]
pub use client::{Config, Driver, NetDir, NetEntries, NetFile, NetFs};
#[cfg(feature = "std")]
pub use duplex::Duplex;
#[cfg(feature = "std")]
pub use server::{Event, Server, ServerConfig};
