//! What must hold of the wire format and of a server, whatever comes.
//!
//! Data flow: bytes of the fuzzer → decoder → a message that says the same again, or an error;
//! bytes of the fuzzer, behind a proper hello → server → a file system in memory, from which
//! nothing was lost that the bytes cannot name.
//!
//! Not here: particular cases (the crate's own tests).

use core::future::{Future as _, poll_fn};
use core::pin::pin;

use mfio_core::{Packet, PacketIo, PacketIoExt as _, Read, Write, block_on};
use mfio_netfs::wire::{
    BODY_BYTES_MAX, DATA_BYTES_MAX, Flags, HEADER_BYTES, Header, Hello, Limits, Reply, Request,
    frame,
};
use mfio_netfs::{Duplex, Server, ServerConfig};
use mfio_rt::{DirHandle, Follow, Fs, Whole, virt::VirtFs};

/// A header and a body.
pub fn message(data: &[u8]) {
    let Some((header, body)) = data.split_first_chunk::<HEADER_BYTES>() else { return };
    if let Ok(header) = Header::decode(header) {
        assert!(header.body_len as usize <= BODY_BYTES_MAX);
        assert!(header.data_len as usize <= DATA_BYTES_MAX);
    }
    let kind = header[8];
    if let Ok(request) = Request::decode(kind, body) {
        assert_eq!(Request::decode(kind, &request.body()), Ok(request));
    }
    if let Ok(reply) = Reply::decode(kind, body) {
        assert_eq!(Reply::decode(kind, &reply.body()), Ok(reply));
    }
}

/// The frames of a client that was let in, up to where its connection ends.
pub fn session(data: &[u8]) {
    let fs = VirtFs::new();
    let ended = block_on(&fs, async {
        let dir = fs.current_dir();
        dir.create_dir("exported", 0o755).await.expect("an empty file system takes a directory");
        dir.create_dir("kept", 0o700).await.expect("and another");
        let exported = dir.open_dir("exported").await.expect("it was made");
        let server = Server::new(&exported, ServerConfig::default()).await;
        let server = server.expect("memory can be confined");
        let (ours, theirs) = Duplex::pair(1 << 20);
        let proof = Request::Proof { code: [0; 32] };
        let body = proof.body();
        let head = frame(proof.kind(), 0, &body, 0).expect("it is short").encode();
        let hello = Hello { flags: Flags::default(), nonce: [0; 32], limits: Limits::default() };
        let bytes = [&hello.encode()[..], &head, &body, data].concat();
        let (_sent, view) = Packet::<Write, _>::new(bytes).send();
        PacketIo::<Write, ()>::send_io(&ours, (), view).expect("memory takes it");
        ours.finish();
        let mut serving = pin!(server.serve_connection(theirs));
        let mut hearing = pin!(async {
            // Takes all the answers there can be.
            while ours.io(Whole, Packet::<Read, _>::new(vec![0; 4096])).await.is_ok() {}
        });
        let mut heard = false;
        poll_fn(|cx| {
            heard = heard || hearing.as_mut().poll(cx).is_ready();
            serving.as_mut().poll(cx).map(drop)
        })
        .await;
        dir.metadata("kept", Follow::No).await.map(|facts| facts.mode)
    });
    assert_eq!(ended, Ok(Ok(0o700)), "what is outside stays as it is");
}
