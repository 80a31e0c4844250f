//! Makes companions when they are first needed, and keeps the table of what they serve.
//!
//! Data flow: descriptor → companion of its kind, made at the first → entries in the tables of
//! registered files → [`FileRef::Beside`].
//!
//! Not here: ops (`turn`).

use std::os::fd::AsRawFd;

use io_uring::opcode;
use nix::errno::Errno;

use super::{CommandRing, Companion, FileRef, KernelRing, Served};
use crate::buffer::{FixedSpan, Region};
use crate::nvme::Space;
use crate::ring::{Poll, Transfers};

/// What a companion that polls a file, or sends commands, submits.
const FILE_OPCODES: [u8; 8] = [
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::ReadFixed::CODE,
    opcode::WriteFixed::CODE,
    opcode::Readv::CODE,
    opcode::Writev::CODE,
    opcode::ReadvFixed::CODE,
    opcode::WritevFixed::CODE,
];
const COMMAND_OPCODES: [u8; 1] = [opcode::UringCmd80::CODE];

impl KernelRing {
    fn command_ring(&mut self, poll: Poll) -> Option<CommandRing> {
        let (main, limits) = (self.ring.get().as_raw_fd(), self.limits);
        let end = self.buffers.end();
        let ring = Companion::new(main, limits, poll, &COMMAND_OPCODES, end, &mut self.features);
        self.told(ring, "NVMe commands")
    }

    /// A ring polls in one way for all that it serves.
    fn polled_as_the_first(&mut self, first: Poll, poll: Poll) {
        let text = "IOPOLL: some targets of this shard were to be polled at once and some after a \
                    pause (HYBRID_IOPOLL); all are polled as the first of them was to be, give \
                    them shards of their own";
        if first != poll && !self.features.degraded.iter().any(|told| told == text) {
            self.features.degraded.push(text.to_owned());
        }
    }

    fn told<T>(&mut self, made: Result<T, Errno>, what: &str) -> Option<T> {
        match made {
            Ok(made) => Some(made),
            Err(errno) => {
                self.features.degraded.push(format!(
                    "{what}: the kernel refused a ring for them ({errno:?}); Linux 6.1 has it"
                ));
                None
            }
        }
    }

    /// As [`Ring::register_namespace`](crate::ring::Ring::register_namespace).
    pub(in super::super) fn add_namespace(
        &mut self,
        fd: i32,
        space: Space,
        poll: Poll,
    ) -> Option<FileRef> {
        let mut beside = self.beside.take().unwrap_or_default();
        if beside.commands.is_none() {
            beside.commands = self.command_ring(Poll::Interrupt);
        }
        let polled = poll != Poll::Interrupt;
        match &beside.polled_commands {
            Some(ring) if polled => self.polled_as_the_first(ring.poll(), poll),
            None if polled => beside.polled_commands = self.command_ring(poll),
            _ => {}
        }
        let features = &mut self.features;
        let file = beside.commands.as_mut().map(|ring| ring.add_file(fd, features));
        let polled = beside.polled_commands.as_mut().filter(|_| polled && file.is_some());
        let polled = polled.map(|ring| ring.add_file(fd, features));
        let served = file.map(|file| Served::Namespace { file, polled, refused: false, space });
        let file = served.map(|served| beside.add(served));
        self.beside = Some(beside);
        self.tell_of_commands(self.wake.is_watched());
        file
    }

    /// As [`Ring::register_polled`](crate::ring::Ring::register_polled).
    pub(in super::super) fn add_polled(&mut self, fd: i32, poll: Poll) -> Option<FileRef> {
        let mut beside = self.beside.take().unwrap_or_default();
        if let Some(ring) = &beside.files {
            self.polled_as_the_first(ring.poll(), poll);
        } else {
            let (main, limits) = (self.ring.get().as_raw_fd(), self.limits);
            let end = self.buffers.end();
            let ring = Companion::new(main, limits, poll, &FILE_OPCODES, end, &mut self.features);
            beside.files = self.told(ring, "IOPOLL");
        }
        let main = self.files.add(&self.submitter, fd, &mut self.features);
        let features = &mut self.features;
        let polled = beside.files.as_mut().map(|ring| ring.add_file(fd, features));
        let file = polled.map(|polled| beside.add(Served::Polled { polled, main, refused: false }));
        if file.is_none() {
            self.files.remove(&self.submitter, main);
        }
        self.beside = Some(beside);
        file
    }

    /// As [`Ring::register_flagged`](crate::ring::Ring::register_flagged).
    pub(in super::super) fn add_flagged(&mut self, fd: i32, transfers: Transfers) -> FileRef {
        let main = self.files.add(&self.submitter, fd, &mut self.features);
        let to_async = transfers.async_every;
        let served = Served::Flagged { main, transfers, to_async };
        self.beside.get_or_insert_default().add(served)
    }

    /// As [`Ring::unregister_file`](crate::ring::Ring::unregister_file).
    pub(in super::super) fn remove_beside(&mut self, index: u32) {
        let Some(beside) = &mut self.beside else { return };
        let Some(served) = beside.served.get_mut(index as usize).and_then(Option::take) else {
            return;
        };
        match served {
            Served::Polled { polled, main, .. } => {
                if let Some(ring) = &mut beside.files {
                    ring.remove_file(polled);
                }
                self.files.remove(&self.submitter, main);
            }
            Served::Flagged { main, .. } => self.files.remove(&self.submitter, main),
            Served::Namespace { file, polled, .. } => {
                if let Some(ring) = &mut beside.commands {
                    ring.remove_file(file);
                }
                if let (Some(ring), Some(file)) = (&mut beside.polled_commands, polled) {
                    ring.remove_file(file);
                }
            }
        }
    }

    /// `region` has become `span` of the main ring's table: so it does of those that the
    /// companions have cloned before.
    pub(in super::super) fn add_buffers_beside(&mut self, region: &Region, span: FixedSpan) {
        let Some(beside) = &mut self.beside else { return };
        let files = beside.files.as_mut().map_or(Ok(()), |ring| ring.add_buffers(region, span));
        let mut refusal = files.err();
        for ring in [&mut beside.commands, &mut beside.polled_commands].into_iter().flatten() {
            refusal = refusal.or(ring.add_buffers(region, span).err());
        }
        if let Some(errno) = refusal {
            let text = format!(
                "registered buffers: a companion ring could not take what was registered later \
                 ({errno:?}), its ops on that go unregistered; RLIMIT_MEMLOCK counts the memory \
                 once for each ring: raise it (ulimit -l, LimitMEMLOCK=), or register memory \
                 before the first target that is polled or driven by commands is opened"
            );
            if !self.features.degraded.contains(&text) {
                self.features.degraded.push(text);
            }
        }
    }

    /// The buffers of `span` are about to be others, or none: the companions do not use them
    /// any more, and keep no pages.
    pub(in super::super) fn empty_buffers_beside(&mut self, span: FixedSpan) {
        let Some(beside) = &mut self.beside else { return };
        if let Some(ring) = &mut beside.files {
            ring.empty_buffers(span);
        }
        for ring in [&mut beside.commands, &mut beside.polled_commands].into_iter().flatten() {
            ring.empty_buffers(span);
        }
    }

    /// Whoever sleeps, in a host's event loop or in this ring, hears from now on of completions
    /// of commands and of names. What has completed before is to be looked for.
    pub(in super::super) fn tell_of_commands(&mut self, to_host: bool) {
        let host = self.wake.host().filter(|_| to_host);
        let event = host.map_or(self.wake.event_fd(), AsRawFd::as_raw_fd);
        let Some(beside) = &mut self.beside else { return };
        if let Some(ring) = &beside.commands
            && beside.to_host != Some(to_host)
        {
            beside.to_host = ring.tell(event).is_ok().then_some(to_host);
        }
        if let Some(names) = &mut beside.names
            && names.to_host != Some(to_host)
        {
            names.to_host = names.ring.tell(event).is_ok().then_some(to_host);
        }
    }
}
