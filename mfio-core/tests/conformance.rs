//! The rules that every target must pass, on the in-memory target and on every layer over it.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::cell::Cell;
use std::task::{Context, Poll};

use mfio_core::conformance::{Shape, check, check_shaped};
use mfio_core::layer::Target;
use mfio_core::layer::concat::Concat;
use mfio_core::layer::fault::{Fault, Request, Verdict};
use mfio_core::layer::map::{Extent, Map};
use mfio_core::layer::stripe::Stripe;
use mfio_core::layer::throttle::{Clock, Rate, Throttle};
use mfio_core::layer::window::Window;
use mfio_core::mem::Mem;
use mfio_core::{
    BackendBusy, BackendHandle, ErrorKind, IoBackend, IoWrite, PacketIo, Read, Refused, View,
    Write, block_on,
};

/// How many views the targets below accept before they are driven; 0 completes at once.
const DEPTHS: &[usize] = if cfg!(miri) { &[2] } else { &[0, 1, 2, 16] };

/// Short enough for an interpreter that is a thousand times slower.
fn shape() -> Shape {
    if cfg!(miri) { Shape { len: 600, ..Shape::default() } } else { Shape::default() }
}

fn mem(bytes: Vec<u8>, depth: usize) -> Mem {
    if depth == 0 { Mem::from(bytes) } else { Mem::polled(bytes, depth) }
}

fn zeros(len: u64, depth: usize) -> Mem {
    mem(vec![0; usize::try_from(len).unwrap()], depth)
}

/// Gives a target its contents through itself.
fn filled<T: Target>(target: T, contents: Vec<u8>) -> T {
    let (result, _) = block_on(&target, target.write_exact(0, contents)).unwrap();
    assert_eq!(result, Ok(()));
    target
}

#[test]
fn memory_conforms_at_every_depth() {
    for &depth in DEPTHS {
        check_shaped(|contents| mem(contents, depth), shape());
    }
}

#[test]
fn window_conforms() {
    for &depth in DEPTHS {
        let make = |contents: Vec<u8>| {
            let window = Window::new(zeros(11_000, depth), 77, contents.len() as u64);
            filled(window, contents)
        };
        check_shaped(make, shape());
    }
}

#[test]
fn concat_conforms() {
    for &depth in DEPTHS {
        let make = |contents: Vec<u8>| {
            let len = contents.len() as u64;
            let lens = [0, len / 2, 1, 0, 13, len - len / 2 - 14, 0];
            filled(Concat::new(lens.map(|len| (len, zeros(len, depth)))), contents)
        };
        check_shaped(make, shape());
    }
}

#[test]
fn stripe_conforms() {
    let stripes = [(0, 64, 3), (1, 64, 3), (2, 100, 5), (16, 512, 2), (3, 7, 1)];
    for &(depth, unit, targets) in if cfg!(miri) { &stripes[..2] } else { &stripes } {
        let row = unit * targets;
        let len = shape().len / row * row;
        let make = |contents: Vec<u8>| {
            let below = (0..targets).map(|_| zeros(len / targets + 3, depth)).collect();
            filled(Stripe::new(below, unit, len / targets + unit / 2), contents)
        };
        check_shaped(make, Shape { len, ..shape() });
    }
}

#[test]
fn map_conforms() {
    for &depth in DEPTHS {
        let make = |contents: Vec<u8>| {
            // Extents of growing length, the first ones last on the target.
            let len = contents.len() as u64;
            let (mut extents, mut from, mut share) = (Vec::new(), 0, 40);
            while from < len {
                let part = share.min(len - from);
                extents.push(Extent { from, len: part, to: len - from - part });
                (from, share) = (from + part, share + 11);
            }
            extents.reverse();
            filled(Map::new(zeros(len, depth), extents).unwrap(), contents)
        };
        check_shaped(make, shape());
    }
}

/// Time that passes by being looked at.
#[derive(Default)]
struct Ticks(Cell<u64>);

impl Clock for Ticks {
    fn now_ns(&self) -> u64 {
        self.0.set(self.0.get() + 1);
        self.0.get()
    }
}

#[test]
fn throttle_conforms() {
    for &depth in DEPTHS {
        let rate = Rate { bytes: 4096, ops: 3, interval_ns: 5 };
        let make = |contents| Throttle::new(mem(contents, depth), rate, Ticks::default());
        check_shaped(make, shape());
    }
}

#[test]
fn fault_that_never_fails_conforms() {
    for &depth in DEPTHS {
        check_shaped(|contents| Fault::new(mem(contents, depth), |_| Vec::new()), shape());
        let shreds = if cfg!(miri) { 3 } else { 20 };
        let shreds = |request: Request| {
            vec![Verdict::Pass(request.len / shreds + 1); usize::try_from(shreds).unwrap()]
        };
        check_shaped(|contents| Fault::new(mem(contents, depth), shreds), shape());
    }
}

#[test]
fn layers_over_layers_conform() {
    for &depth in DEPTHS {
        let make = |contents: Vec<u8>| {
            let len = contents.len() as u64;
            let half = len.div_ceil(2).next_multiple_of(32);
            let stripes = [0, 1].map(|_| {
                let below = vec![zeros(half / 2, depth), zeros(half / 2, depth)];
                (half, Stripe::new(below, 16, half / 2))
            });
            let shreds = |request: Request| vec![Verdict::Pass(request.len / 5 + 1); 5];
            let fault = Fault::new(Concat::new(stripes), shreds);
            filled(Window::new(fault, 3, len - 10), contents[..contents.len() - 10].to_vec())
        };
        check_shaped(
            |contents| {
                let mut padded = contents;
                padded.extend([0; 10]);
                make(padded)
            },
            shape(),
        );
    }
}

#[test]
fn layers_of_aligned_targets_conform() {
    let len = shape().len / 512 * 512;
    let shape = Shape { len, read_align: 64, write_align: 512, grows: false };
    check_shaped(|contents| Window::new(Mem::polled(contents, 4), 0, len), shape);
}

#[test]
#[cfg_attr(miri, ignore = "takes hours there, and says nothing of memory")]
fn default_shape_is_what_check_uses() {
    check(Mem::from);
}

/// What is wrong with a [`Broken`] target.
#[derive(Clone, Copy, Debug)]
enum Defect {
    ShortReadIsSuccess,
    DropsTheTail,
    EmptyFails,
    /// Only where no file has an offset.
    EmptyFailsFarAway,
    MisplacesSecondParts,
    WritesBehindTheEndSucceed,
    ReservesWithoutRoom,
    /// An empty part of every view, which fails.
    DropsNothing,
    OffByOne,
}

struct Broken(Mem, Defect);

impl PacketIo<Read, u64> for Broken {
    fn send_io(&self, at: u64, mut view: View<Read>) -> Result<(), Refused<Read>> {
        match self.1 {
            Defect::ShortReadIsSuccess => {
                let mut bytes = self.0.snapshot();
                let start = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                bytes.drain(..start);
                bytes.resize(usize::try_from(view.len()).unwrap(), 0);
                view.write_at(0, &bytes);
                view.filled();
                Ok(())
            }
            Defect::DropsTheTail if view.len() > 4096 => {
                let (head, tail) = view.split_at(4096);
                drop(tail);
                self.0.send_io(at, head)
            }
            Defect::EmptyFails if view.is_empty() => {
                view.fail(ErrorKind::Misaligned);
                Ok(())
            }
            Defect::EmptyFailsFarAway if view.is_empty() && at > i64::MAX as u64 => {
                view.fail(ErrorKind::OutOfRange);
                Ok(())
            }
            Defect::DropsNothing => {
                let (_, tail) = view.split_at(0);
                self.0.send_io(at, tail)
            }
            Defect::OffByOne if view.start() > 0 => self.0.send_io(at.saturating_add(1), view),
            _ => self.0.send_io(at, view),
        }
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        PacketIo::<Read, u64>::poll_ready(&self.0, cx)
    }

    fn reserve(&self, views: usize) -> bool {
        matches!(self.1, Defect::ReservesWithoutRoom)
            || PacketIo::<Read, u64>::reserve(&self.0, views)
    }

    fn release(&self, views: usize) {
        PacketIo::<Read, u64>::release(&self.0, views);
    }
}

impl PacketIo<Write, u64> for Broken {
    fn send_io(&self, at: u64, view: View<Write>) -> Result<(), Refused<Write>> {
        match self.1 {
            Defect::MisplacesSecondParts if view.start() > 0 => {
                self.0.send_io(at.saturating_sub(1), view)
            }
            Defect::WritesBehindTheEndSucceed if at >= 10_007 => {
                view.written();
                Ok(())
            }
            _ => self.0.send_io(at, view),
        }
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        PacketIo::<Write, u64>::poll_ready(&self.0, cx)
    }

    fn reserve(&self, views: usize) -> bool {
        PacketIo::<Write, u64>::reserve(&self.0, views)
    }

    fn release(&self, views: usize) {
        PacketIo::<Write, u64>::release(&self.0, views);
    }
}

impl IoBackend for Broken {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        self.0.get_backend()
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes hours there, and says nothing of memory")]
fn broken_targets_are_found_out() {
    for defect in [
        Defect::ShortReadIsSuccess,
        Defect::DropsTheTail,
        Defect::EmptyFails,
        Defect::EmptyFailsFarAway,
        Defect::MisplacesSecondParts,
        Defect::WritesBehindTheEndSucceed,
        Defect::ReservesWithoutRoom,
        Defect::DropsNothing,
        Defect::OffByOne,
    ] {
        let found = std::panic::catch_unwind(|| {
            check(|contents| Broken(Mem::polled(contents, 4), defect));
        });
        assert!(found.is_err(), "{defect:?} passes");
    }
}
