//! What a test may use of the guest, or why it does not run.

use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use mfio_core::AlignedBuf;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::target::DeviceWrite;
use mfio_engine::{Config, DirectMode, File, OpenOptions, Shard};

pub(crate) type Kernel = Shard<KernelRing>;
pub(crate) type KernelFile = File<KernelRing>;

/// The guest, for one test at a time: there is one device of each kind.
pub(crate) struct Guest {
    _alone: MutexGuard<'static, ()>,
}

impl Guest {
    /// `None`, with the reason printed, anywhere else.
    pub(crate) fn alone() -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        if std::env::var("MFIO_GUEST").as_deref() != Ok("1") {
            println!("SKIP: not in the guest (scripts/guest/smoke runs this there)");
            return None;
        }
        // A test that failed has left its devices as they are: the next one says so.
        Some(Self { _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner) })
    }

    /// The device that this variable names; `None`, with the reason printed, where it is gone
    /// or this QEMU has none.
    pub(crate) fn device(&self, variable: &str) -> Option<PathBuf> {
        let named = std::env::var_os(variable).map(PathBuf::from);
        let there = named.filter(|path| path.exists());
        if there.is_none() {
            println!("SKIP: {variable} names no device here");
        }
        there
    }
}

pub(crate) fn kernel_ring(queue_depth: u32) -> KernelRing {
    KernelRing::new(&KernelConfig::new(queue_depth)).unwrap()
}

pub(crate) fn kernel_shard() -> Kernel {
    Shard::with_ring(kernel_ring(64), &Config::new()).unwrap()
}

/// For writing, on devices too.
pub(crate) const fn destructive(direct: DirectMode) -> OpenOptions {
    OpenOptions::new().write(true).device_write(DeviceWrite::Overwrite).direct(direct)
}

/// Numbers that depend on their seed alone.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Less than `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Tries until the kernel has let go of what was just closed, and runs the shard meanwhile: up
/// to Linux 6.12 a registered file is closed some time after the last op on it.
pub(crate) fn patiently<T, E>(shard: &Kernel, mut attempt: impl FnMut() -> Result<T, E>) -> T
where
    E: std::fmt::Debug,
{
    for _ in 0..500 {
        if let Ok(done) = attempt() {
            return done;
        }
        shard.block_on(shard.sleep_ns(10_000_000)).unwrap();
    }
    attempt().unwrap()
}

/// One of many futures that [`all`] polls.
pub(crate) type Work<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Polls all futures whenever one of them may have something to do.
pub(crate) async fn all(mut works: Vec<Work<'_>>) {
    poll_fn(|cx| {
        works.retain_mut(|work| work.as_mut().poll(cx).is_pending());
        if works.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A page full of `byte`.
pub(crate) fn page(byte: u8) -> AlignedBuf {
    let mut page = AlignedBuf::new(4096, 4096);
    page.fill(byte);
    page
}
