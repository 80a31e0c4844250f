//! Finds the best ring that this kernel grants, and says what it would not grant and why.
//!
//! Data flow: [`KernelConfig`] → `io_uring_setup(2)` with the richest flags, then poorer ones
//! → probe of opcodes → [`Features`]. Nothing is concluded from a kernel
//! version; the versions in the texts are for people (F33).
//!
//! Not here: registered buffers and files (`register`), using the ring (`kernel`).

use core::fmt;
use std::io;

use io_uring::{Builder, IoUring, Probe, opcode};
use nix::errno::Errno;

use super::{restrict, worker};
use crate::ring::{Features, RingKind, SqPoll};

/// The most submission queue entries that the kernel makes (`IORING_MAX_ENTRIES`).
pub const QUEUE_DEPTH_MAX: u32 = 32_768;

/// How large a kernel ring is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelConfig {
    /// Submission queue entries, rounded up to a power of two; 1 to [`QUEUE_DEPTH_MAX`].
    pub queue_depth: u32,
    /// Completion queue entries; at least `queue_depth`, else twice as many. With
    /// [connections](crate::net), at least twice as many as there are of them are worth while:
    /// what overflows is kept, but fetched by a call more.
    pub cq_entries: Option<u32>,
    /// The most kernel worker threads per NUMA node for ops that must block (F30); 0 leaves
    /// the kernel's own limit.
    pub iowq_workers_max: u32,
    /// The most entries of the registered file table, which never has more than the process
    /// may open (`RLIMIT_NOFILE`); files beyond it go as plain descriptors. An entry is 8 bytes
    /// of the kernel's memory.
    pub files_max: u32,
    /// Allows the ring only what storage needs (see the module `restrict`): a forbidden opcode
    /// completes with `EACCES`.
    pub restricted: bool,
    /// Has the kernel start one worker thread with the ring, which stays as long as the thread
    /// that made it: a limit on processes that is reached later then does no harm (F30). To be
    /// switched off where the process must stay single-threaded, as for `unshare(2)` with
    /// `CLONE_NEWUSER`.
    pub first_worker: bool,
    /// Let a thread of the kernel submit. Never by default: see [`SqPoll`].
    pub sqpoll: Option<SqPoll>,
}

impl KernelConfig {
    /// The default sizes for a submission queue of `queue_depth`.
    #[must_use]
    pub const fn new(queue_depth: u32) -> Self {
        Self {
            queue_depth,
            cq_entries: None,
            iowq_workers_max: 8,
            files_max: 1 << 16,
            restricted: true,
            first_worker: true,
            sqpoll: None,
        }
    }

    /// The size of the submission queue that is asked for.
    fn sq_entries(&self) -> u32 {
        let entries = if self.sqpoll.is_some() { 2 * self.queue_depth } else { self.queue_depth };
        entries.min(QUEUE_DEPTH_MAX)
    }

    /// Whether a flag can be asked for.
    fn takes(&self, flag: &SetupFlag) -> bool {
        // Task work is that thread's, whenever it likes.
        self.sqpoll.is_none() || !flag.name.ends_with("TASKRUN") && !flag.name.ends_with("_FLAG")
    }

    /// The size of the completion queue that is asked for.
    fn cq_entries(&self) -> u32 {
        let least = self.sq_entries().next_power_of_two();
        self.cq_entries.unwrap_or(least.saturating_mul(2)).max(least)
    }
}

/// Why there is no ring. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingError {
    /// The kernel has io_uring, and something forbids it to this process.
    Forbidden {
        /// `EPERM` or `EACCES`.
        errno: Errno,
        /// The value of the sysctl `kernel.io_uring_disabled`, where it could be read.
        sysctl: Option<u8>,
    },
    /// The kernel was built without io_uring, or a seccomp profile pretends so (`ENOSYS`).
    Missing,
    /// The kernel's io_uring lacks something that the engine cannot do without.
    TooOld {
        /// What is lacking, and since which Linux there is it.
        lacks: &'static str,
    },
    /// A queue of no entries, or of more than the kernel makes.
    QueueDepth {
        /// The entries asked for.
        queue_depth: u32,
    },
    /// The process or the system has no descriptor left (`EMFILE`, `ENFILE`).
    Files {
        /// Which of the two.
        errno: Errno,
    },
    /// The kernel has no memory for the queues (`ENOMEM`).
    Memory {
        /// `RLIMIT_MEMLOCK` in bytes, to which the queues count without `CAP_IPC_LOCK`.
        memlock_bytes_max: u64,
    },
    /// The kernel refused with an errno that has no better explanation.
    Os {
        /// The call that failed.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
}

impl RingError {
    /// Whether another backend is the answer, rather than other parameters.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        let forbidden = matches!(self, Self::Forbidden { .. } | Self::Memory { .. });
        forbidden || matches!(self, Self::Missing | Self::TooOld { .. })
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden { errno, sysctl: Some(value @ 1..) } => write!(
                f,
                "io_uring is not available ({errno:?} from io_uring_setup): the sysctl \
                 kernel.io_uring_disabled={value} forbids it; set it to 0, or to 1 and run the \
                 process in the group kernel.io_uring_group"
            ),
            Self::Forbidden { errno, .. } => write!(
                f,
                "io_uring is not available ({errno:?} from io_uring_setup): a seccomp profile \
                 or a security module forbids it; allow io_uring_setup, io_uring_enter and \
                 io_uring_register there (containers: --security-opt seccomp=PROFILE)"
            ),
            Self::Missing => f.write_str(
                "io_uring is not available (ENOSYS from io_uring_setup): the kernel was built \
                 without CONFIG_IO_URING, is older than Linux 5.1, or a sandbox hides it",
            ),
            Self::TooOld { lacks } => {
                write!(f, "the kernel's io_uring is too old: it lacks {lacks}; use a newer Linux")
            }
            Self::QueueDepth { queue_depth } => write!(
                f,
                "a ring of {queue_depth} entries cannot be made: use 1 to {QUEUE_DEPTH_MAX}"
            ),
            Self::Files { errno } => write!(
                f,
                "no descriptor is left for a ring ({errno:?}): raise RLIMIT_NOFILE (ulimit -n) \
                 or fs.file-max"
            ),
            Self::Memory { memlock_bytes_max } => write!(
                f,
                "no memory for the queues of a ring (ENOMEM from io_uring_setup): use a smaller \
                 queue depth, raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=), now \
                 {memlock_bytes_max} bytes, or grant CAP_IPC_LOCK"
            ),
            Self::Os { call, errno } => write!(f, "{call} failed: {errno}"),
        }
    }
}

impl std::error::Error for RingError {}

/// The errno in an error of the `io-uring` crate.
pub(super) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

type Flag = fn(&mut Builder) -> &mut Builder;

/// One setup flag: its name, what sets it, and the first Linux that has it.
struct SetupFlag {
    name: &'static str,
    set: Flag,
    since: &'static str,
}

const SUBMIT_ALL: SetupFlag =
    SetupFlag { name: "SUBMIT_ALL", set: Builder::setup_submit_all, since: "5.18" };
const COOP_TASKRUN: SetupFlag =
    SetupFlag { name: "COOP_TASKRUN", set: Builder::setup_coop_taskrun, since: "5.19" };
const TASKRUN_FLAG: SetupFlag =
    SetupFlag { name: "TASKRUN_FLAG", set: Builder::setup_taskrun_flag, since: "5.19" };
const SINGLE_ISSUER: SetupFlag =
    SetupFlag { name: "SINGLE_ISSUER", set: Builder::setup_single_issuer, since: "6.0" };
const DEFER_TASKRUN: SetupFlag =
    SetupFlag { name: "DEFER_TASKRUN", set: Builder::setup_defer_taskrun, since: "6.1" };
const NO_SQARRAY: SetupFlag =
    SetupFlag { name: "NO_SQARRAY", set: Builder::setup_no_sqarray, since: "6.6" };

/// From the richest to the plain one; each is tried once, the next one on `EINVAL`.
const LADDER: [&[SetupFlag]; 6] = [
    &[SUBMIT_ALL, SINGLE_ISSUER, DEFER_TASKRUN, NO_SQARRAY],
    &[SUBMIT_ALL, SINGLE_ISSUER, DEFER_TASKRUN],
    &[SUBMIT_ALL, SINGLE_ISSUER, COOP_TASKRUN, TASKRUN_FLAG],
    &[SUBMIT_ALL, COOP_TASKRUN, TASKRUN_FLAG],
    &[SUBMIT_ALL],
    &[],
];

/// What [`Features::in_use`] calls an op that changes the length of a file.
pub(super) const FTRUNCATE: &str = "FTRUNCATE";

/// What [`Features::in_use`] calls commands to drivers, of which a block device takes discards.
pub(super) const URING_CMD: &str = "URING_CMD";

/// What [`Features::in_use`] calls ops on sockets.
pub(super) const SEND_RECV: &str = "SEND_RECV";

/// What [`Features::in_use`] calls taking many connections by one op.
pub(super) const ACCEPT_MULTISHOT: &str = "ACCEPT_MULTISHOT";

/// What [`Features::in_use`] calls ops on ranges of a file.
pub(super) const FALLOCATE: &str = "FALLOCATE";

/// Makes the ring. Its thread is the one that calls this (F24).
pub(super) fn build(config: &KernelConfig) -> Result<(IoUring, Features), RingError> {
    let queue_depth = config.queue_depth;
    if !(1..=QUEUE_DEPTH_MAX).contains(&queue_depth) {
        return Err(RingError::QueueDepth { queue_depth });
    }
    let (mut ring, rung) = climb_down(config)?;
    require_features(&ring)?;
    let probe = require_opcodes(&ring)?;
    let mut features = Features::new(RingKind::Kernel);
    for (code, name, since) in
        [(opcode::Ftruncate::CODE, FTRUNCATE, "6.9"), (opcode::Fallocate::CODE, FALLOCATE, "5.6")]
    {
        if probe.is_supported(code) {
            features.in_use.push(name);
        } else {
            features.degraded.push(format!(
                "{name}: the kernel has no such op, the call blocks the shard; Linux {since} \
                 has it"
            ));
        }
    }
    if probe.is_supported(opcode::UringCmd16::CODE) {
        features.in_use.push(URING_CMD);
    }
    let sockets = [opcode::Send::CODE, opcode::Recv::CODE, opcode::Accept::CODE];
    if sockets.into_iter().all(|code| probe.is_supported(code)) {
        features.in_use.push(SEND_RECV);
        // A flag of an op, which no probe knows; this op came with the same release.
        if probe.is_supported(opcode::Socket::CODE) {
            features.in_use.push(ACCEPT_MULTISHOT);
        }
    }
    let vectored = [opcode::ReadvFixed::CODE, opcode::WritevFixed::CODE];
    features.vectored_fixed = vectored.into_iter().all(|code| probe.is_supported(code));
    if features.vectored_fixed {
        features.in_use.push("READV_FIXED");
    } else {
        features.degraded.push(
            "READV_FIXED: the kernel has no such op (Linux 6.15 has it); coalesced ops whose \
             memory is not contiguous go unregistered"
                .to_owned(),
        );
    }
    features.in_use.extend(rung.iter().filter(|flag| config.takes(flag)).map(|flag| flag.name));
    if config.sqpoll.is_some() {
        features.in_use.push("SQPOLL");
    }
    for wanted in LADDER[0] {
        if config.takes(wanted) && !features.in_use.contains(&wanted.name) {
            let SetupFlag { name, since, .. } = wanted;
            let text = format!("{name}: the kernel refused it (EINVAL); Linux {since} has it");
            features.degraded.push(text);
        }
    }
    limit_workers(&ring, config.iowq_workers_max, &mut features);
    if !rung.is_empty() {
        let opcodes = if config.restricted { &restrict::OPCODES[..] } else { &[] };
        restrict::enable(&ring.submitter(), opcodes, &mut features)
            .map_err(|errno| RingError::Os { call: "io_uring_register", errno })?;
    } else if config.restricted {
        features.degraded.push(restrict::unrestricted(Errno::EINVAL));
    }
    // With SQPOLL, the workers are those of the kernel's own thread.
    if config.first_worker && config.sqpoll.is_none() {
        worker::start(&mut ring, &mut features);
    }
    Ok((ring, features))
}

fn climb_down(config: &KernelConfig) -> Result<(IoUring, &'static [SetupFlag]), RingError> {
    let mut refusal = Errno::EINVAL;
    for rung in LADDER {
        let mut builder = IoUring::builder();
        // DONTFORK: a child that used the inherited ring would take the parent's completions
        // (F26). It faults instead.
        builder.dontfork().setup_clamp().setup_cqsize(config.cq_entries());
        // Restrictions are taken only by a ring that does not run yet. The plain rung is for
        // kernels that do not know even that; they are told what they lack.
        if !rung.is_empty() {
            builder.setup_r_disabled();
        }
        for flag in rung.iter().filter(|flag| config.takes(flag)) {
            (flag.set)(&mut builder);
        }
        if let Some(SqPoll { idle_ms, cpu }) = config.sqpoll {
            builder.setup_sqpoll(idle_ms);
            cpu.map(|cpu| builder.setup_sqpoll_cpu(cpu));
        }
        match builder.build(config.sq_entries()) {
            Ok(ring) => return Ok((ring, rung)),
            Err(error) => refusal = errno_of(&error),
        }
        if refusal != Errno::EINVAL {
            break;
        }
    }
    Err(explain(refusal))
}

/// What an errno of `io_uring_setup(2)` means to an operator.
pub(super) fn explain(errno: Errno) -> RingError {
    match errno {
        Errno::EPERM | Errno::EACCES => RingError::Forbidden { errno, sysctl: read_sysctl() },
        Errno::ENOSYS => RingError::Missing,
        Errno::EMFILE | Errno::ENFILE => RingError::Files { errno },
        Errno::ENOMEM => RingError::Memory { memlock_bytes_max: crate::sys::memlock_bytes_max() },
        errno => RingError::Os { call: "io_uring_setup", errno },
    }
}

fn read_sysctl() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

fn require_features(ring: &IoUring) -> Result<(), RingError> {
    if !ring.params().is_feature_nodrop() {
        return Err(RingError::TooOld { lacks: "completions that are never dropped (Linux 5.5)" });
    }
    if !ring.params().is_feature_ext_arg() {
        return Err(RingError::TooOld { lacks: "waits with a time limit (Linux 5.11)" });
    }
    Ok(())
}

fn require_opcodes(ring: &IoUring) -> Result<Probe, RingError> {
    let mut probe = Probe::new();
    let probed = ring.submitter().register_probe(&mut probe);
    probed.map_err(|_| RingError::TooOld { lacks: "the opcode probe (Linux 5.6)" })?;
    for (code, lacks) in [
        (opcode::Nop::CODE, "NOP"),
        (opcode::Read::CODE, "READ (Linux 5.6)"),
        (opcode::Write::CODE, "WRITE (Linux 5.6)"),
        (opcode::ReadFixed::CODE, "READ_FIXED"),
        (opcode::WriteFixed::CODE, "WRITE_FIXED"),
        (opcode::Fsync::CODE, "FSYNC"),
        (opcode::Readv::CODE, "READV"),
        (opcode::Writev::CODE, "WRITEV"),
        (opcode::PollAdd::CODE, "POLL_ADD"),
        (opcode::AsyncCancel::CODE, "ASYNC_CANCEL (Linux 5.5)"),
    ] {
        if !probe.is_supported(code) {
            return Err(RingError::TooOld { lacks });
        }
    }
    Ok(probe)
}

fn limit_workers(ring: &IoUring, workers_max: u32, features: &mut Features) {
    if workers_max == 0 {
        return;
    }
    let mut bounded_and_unbounded = [workers_max; 2];
    match ring.submitter().register_iowq_max_workers(&mut bounded_and_unbounded) {
        Ok(()) => features.in_use.push("IOWQ_MAX_WORKERS"),
        Err(error) => features.degraded.push(format!(
            "kernel worker threads are not limited ({:?}); Linux 5.15 can limit them",
            errno_of(&error)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f31_refusals_say_what_forbids_the_ring_and_how_to_change_it() {
        let text = |errno, sysctl| RingError::Forbidden { errno, sysctl }.to_string();
        let by_sysctl = text(Errno::EPERM, Some(2));
        assert!(by_sysctl.contains("EPERM"), "{by_sysctl}");
        assert!(by_sysctl.contains("kernel.io_uring_disabled=2"), "{by_sysctl}");
        let by_seccomp = text(Errno::EPERM, Some(0));
        assert!(by_seccomp.contains("seccomp"), "{by_seccomp}");
        assert_eq!(by_seccomp, text(Errno::EPERM, None));
        assert!(explain(Errno::EACCES).is_unavailable());
        assert!(explain(Errno::ENOSYS).is_unavailable());
        assert!(!explain(Errno::EMFILE).is_unavailable());
        assert!(explain(Errno::EMFILE).to_string().contains("RLIMIT_NOFILE"));
        assert!(explain(Errno::ENOMEM).to_string().contains("RLIMIT_MEMLOCK"));
    }

    #[test]
    fn queue_depth_out_of_range_is_refused_before_any_call() {
        for queue_depth in [0, QUEUE_DEPTH_MAX + 1] {
            let refused = build(&KernelConfig::new(queue_depth)).map(drop);
            assert_eq!(refused, Err(RingError::QueueDepth { queue_depth }));
        }
    }

    /// Every rung by itself: what the kernel takes of it makes a ring that works, restricted and
    /// not, so whichever rung an older kernel stops at is one that has been walked on.
    #[test]
    fn f33_every_rung_of_the_ladder_makes_a_ring_that_works() {
        for (rung, restricted) in LADDER.iter().flat_map(|rung| [(rung, true), (rung, false)]) {
            let mut builder = IoUring::builder();
            if !rung.is_empty() {
                builder.setup_r_disabled();
            }
            for flag in *rung {
                (flag.set)(&mut builder);
            }
            let names: Vec<_> = rung.iter().map(|flag| flag.name).collect();
            let Ok(mut ring) = builder.build(4) else { continue };
            assert_eq!(require_features(&ring), Ok(()), "{names:?}");
            assert!(require_opcodes(&ring).is_ok(), "{names:?}");
            let mut features = Features::new(RingKind::Kernel);
            if !rung.is_empty() {
                let opcodes = if restricted { &restrict::OPCODES[..] } else { &[] };
                restrict::enable(&ring.submitter(), opcodes, &mut features).unwrap();
            }
            for tag in 0..3 {
                let nop = opcode::Nop::new().build().user_data(tag);
                // SAFETY: no memory is named.
                assert!(unsafe { ring.submission().push(&nop) }.is_ok(), "there is room");
            }
            assert_eq!(ring.submit_and_wait(3).unwrap(), 3, "{names:?}");
            let done: Vec<_> =
                ring.completion().map(|cqe| (cqe.user_data(), cqe.result())).collect();
            assert_eq!(done, [(0, 0), (1, 0), (2, 0)], "{names:?}");
        }
    }

    #[test]
    fn f33_ladder_descends_by_dropping_and_ends_plain() {
        assert!(LADDER[LADDER.len() - 1].is_empty());
        for rung in LADDER {
            let has = |name| rung.iter().any(|flag| flag.name == name);
            // DEFER_TASKRUN needs SINGLE_ISSUER and excludes COOP_TASKRUN.
            assert!(!has("DEFER_TASKRUN") || has("SINGLE_ISSUER"));
            assert!(!(has("DEFER_TASKRUN") && has("COOP_TASKRUN")));
        }
    }
}
