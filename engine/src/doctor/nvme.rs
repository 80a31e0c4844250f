//! Findings about an NVMe namespace: its controller, its formats, and what polling it takes.
//!
//! Data flow: descriptor of the namespace, or of its block device → identify, which changes
//! nothing → [`Identified`] → one finding each. What any disk has is told elsewhere.
//!
//! Not here: the queue of its block device (`target`), the words of identify (`nvme`).

use std::fs::File;
use std::path::Path;

use nix::errno::Errno;

use super::Finding;
use crate::nvme::identify::IDENTIFY_BYTES;
use crate::nvme::{Controller, Namespace};
use crate::sys;
use crate::target::{Bytes, Device};

/// The page that the longest transfer is counted in: that of every controller Linux drives.
const PAGE_BYTES: u64 = 4096;

/// One way in which the namespace could be formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format {
    index: u8,
    data_bytes: u32,
    metadata_bytes: u16,
    /// 0 is the best, 3 the worst.
    relative_performance: u8,
}

impl Format {
    fn shown(self) -> String {
        let metadata = match self.metadata_bytes {
            0 => String::new(),
            bytes => format!(" with {bytes} bytes of metadata"),
        };
        format!("{}{metadata} (lbaf {})", Bytes(self.data_bytes.into()), self.index)
    }
}

/// What identify told.
pub(super) struct Identified {
    controller: Controller,
    namespace: Namespace,
    used: u8,
    formats: Vec<Format>,
}

impl Identified {
    /// Reads both structures; `None` where they make no sense.
    fn parse(
        of_controller: &[u8; IDENTIFY_BYTES],
        of_namespace: &[u8; IDENTIFY_BYTES],
    ) -> Option<Self> {
        let namespace = Namespace::parse(of_namespace).ok()?;
        let count = of_namespace[25].min(63) + 1;
        let used = match count {
            ..=16 => of_namespace[26] & 0xf,
            _ => of_namespace[26] & 0xf | of_namespace[26] >> 1 & 0x30,
        };
        let described = (0..count).filter_map(|index| {
            let at = 128 + 4 * usize::from(index);
            let exponent = u32::from(of_namespace[at + 2]);
            (9..=16).contains(&exponent).then(|| Format {
                index,
                data_bytes: 1 << exponent,
                metadata_bytes: u16::from_le_bytes([of_namespace[at], of_namespace[at + 1]]),
                relative_performance: of_namespace[at + 3] & 3,
            })
        });
        let controller = Controller::parse(of_controller);
        Some(Self { controller, namespace, used, formats: described.collect() })
    }

    /// Asks the namespace that `file` is, or is the block device of.
    fn ask(file: &File) -> Result<Self, String> {
        let nsid = sys::nvme_namespace_id(file).map_err(refused)?;
        let ask = |cns| match sys::nvme_identify(file, nsid, cns) {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(status)) => Err(status.to_string()),
            Err(errno) => Err(refused(errno)),
        };
        let parsed = Self::parse(&*ask(1)?, &*ask(0)?);
        parsed.ok_or_else(|| "what it says of itself makes no sense".to_owned())
    }
}

fn refused(errno: Errno) -> String {
    match errno {
        Errno::EACCES | Errno::EPERM => "asking it is not permitted: run as root".to_owned(),
        errno => format!("asking it failed ({errno})"),
    }
}

/// What is found of the namespace below a target. `file` is the target where that is the
/// namespace or its whole block device; of files and partitions, the disk is opened. Nothing is
/// found of what is no NVMe.
pub(super) fn findings(file: Option<&File>, device: Option<&Device>) -> Vec<Finding> {
    let name = device.map(|device| device.name);
    let name = name.as_ref().map(|name| name.as_str()).filter(|name| is_nvme(name));
    let identified = match (file, name) {
        (Some(file), _) => Identified::ask(file),
        (None, Some(name)) => match File::open(Path::new("/dev").join(name)) {
            Ok(disk) => Identified::ask(&disk),
            Err(error) => Err(format!("/dev/{name} cannot be opened ({error}): run as root")),
        },
        (None, None) => return Vec::new(),
    };
    match identified {
        Ok(identified) => judge(&identified, name.unwrap_or("nvme0n1")),
        Err(why) => vec![Finding::new("controller", "unknown").unknown(why)],
    }
}

/// `nvme0n1`, and no fabric or path of one.
pub(super) fn is_nvme(name: &str) -> bool {
    name.strip_prefix("nvme").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// One finding each. `name` is the block device's.
fn judge(found: &Identified, name: &str) -> Vec<Finding> {
    let controller = &found.controller;
    let model = format!("{}, firmware {}", controller.model, controller.firmware);
    let longest = match controller.transfer_bytes_max(PAGE_BYTES) {
        Some(bytes) => format!("up to {}", Bytes(bytes)),
        None => "of any length".to_owned(),
    };
    let can = [
        (controller.volatile_cache, "volatile cache"),
        (true, "FUA"),
        (controller.deallocate, "deallocate"),
        (controller.write_zeroes, "write zeroes"),
        (controller.compare, "compare"),
        (controller.copy, "copy"),
    ];
    let can = can.iter().filter(|(has, _)| *has).map(|(_, what)| *what).collect::<Vec<_>>();
    vec![
        Finding::new("controller", model),
        lba_format(found, name),
        Finding::new("command_transfer", longest),
        power_fail_atomic(found),
        Finding::new("commands", can.join(", ")),
    ]
}

fn lba_format(found: &Identified, name: &str) -> Finding {
    let what = "lba_format";
    let Some(used) = found.formats.iter().find(|format| format.index == found.used) else {
        return Finding::new(what, "unknown").unknown("the one in use is not described");
    };
    let others = found.formats.iter().filter(|format| format.index != used.index);
    let shown: Vec<_> = others.clone().map(|format| format.shown()).collect();
    let value = match shown.as_slice() {
        [] => used.shown(),
        shown => format!("{}; also {}", used.shown(), shown.join(", ")),
    };
    let finding = Finding::new(what, value);
    // Longer blocks at the same speed mean fewer of them to keep track of, but nothing is won
    // that would be worth the data.
    let better = others
        .filter(|format| format.metadata_bytes == 0)
        .filter(|format| format.relative_performance < used.relative_performance)
        .min_by_key(|format| (format.relative_performance, format.data_bytes));
    let destroys = "which DESTROYS ALL DATA on it";
    match better {
        Some(better) => finding.degraded(
            format!("the drive says that it is quicker with blocks of {}", better.shown()),
            format!("nvme format /dev/{name} --lbaf={}, {destroys}", better.index),
        ),
        None if used.metadata_bytes > 0 => finding.degraded(
            "the engine sends no commands to a namespace with metadata",
            format!("use /dev/{name}, or nvme format it with another --lbaf, {destroys}"),
        ),
        None => finding,
    }
}

fn power_fail_atomic(found: &Identified) -> Finding {
    let what = "power_fail_atomic";
    let namespace = &found.namespace;
    let blocks = namespace.atomic_blocks.unwrap_or(found.controller.atomic_blocks);
    let bytes = Bytes(u64::from(blocks) * u64::from(namespace.format.data_bytes));
    let value = match namespace.atomic_boundary_blocks {
        None => bytes.to_string(),
        Some(1) => "one block".to_owned(),
        Some(blocks) => {
            let every = u64::from(blocks) * u64::from(namespace.format.data_bytes);
            format!("{bytes}, not across multiples of {}", Bytes(every))
        }
    };
    Finding::new(what, value)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    /// A namespace in format `used` of `formats`: exponent, metadata, relative performance.
    fn identified(used: u8, formats: &[(u8, u8, u8)]) -> Identified {
        let mut controller = [0; IDENTIFY_BYTES];
        controller[24..31].copy_from_slice(b"PM9A3  ");
        controller[64..68].copy_from_slice(b"GDC5");
        controller[77] = 7;
        controller[525] = 1;
        controller[520] = 1 << 2;
        controller[528] = 7;
        let mut namespace = [0; IDENTIFY_BYTES];
        namespace[0] = 1;
        namespace[25] = u8::try_from(formats.len()).unwrap() - 1;
        namespace[26] = used;
        for (at, (exponent, metadata, performance)) in formats.iter().enumerate() {
            let format = [*metadata, 0, *exponent, *performance];
            namespace[128 + 4 * at..132 + 4 * at].copy_from_slice(&format);
        }
        Identified::parse(&controller, &namespace).unwrap()
    }

    fn find(found: &Identified, what: &str) -> Finding {
        let found = judge(found, "nvme3n1").into_iter().find(|finding| finding.what == what);
        found.unwrap()
    }

    #[test]
    fn quicker_format_is_named_with_its_command_and_its_price() {
        let slow = identified(0, &[(9, 0, 2), (9, 8, 0), (12, 0, 0)]);
        let format = find(&slow, "lba_format");
        assert_eq!(format.state, State::Degraded);
        assert_eq!(
            format.value,
            "512 B (lbaf 0); also 512 B with 8 bytes of metadata (lbaf 1), 4 KiB (lbaf 2)"
        );
        assert!(format.remedy.starts_with("nvme format /dev/nvme3n1 --lbaf=2, which DESTROYS"));
        for good in
            [identified(2, &[(9, 0, 2), (9, 8, 0), (12, 0, 0)]), identified(0, &[(9, 0, 0)])]
        {
            assert_eq!(find(&good, "lba_format").state, State::Ok);
        }
        let metadata = find(&identified(0, &[(12, 8, 0)]), "lba_format");
        assert_eq!(metadata.state, State::Degraded);
        assert!(metadata.remedy.contains("/dev/nvme3n1"), "{metadata:?}");
    }

    #[test]
    fn controller_is_described() {
        let found = identified(0, &[(9, 0, 0)]);
        assert_eq!(find(&found, "controller").value, "PM9A3, firmware GDC5");
        assert_eq!(find(&found, "command_transfer").value, "up to 512 KiB");
        assert_eq!(find(&found, "power_fail_atomic").value, "4 KiB");
        assert_eq!(find(&found, "commands").value, "volatile cache, FUA, deallocate");
    }

    #[test]
    fn what_is_no_nvme_has_no_findings_and_what_cannot_be_asked_says_why() {
        assert!(findings(None, Some(&Device::named("vda"))).is_empty());
        assert!(findings(None, None).is_empty());
        let unknown = findings(None, Some(&Device::named("nvme987n1")));
        assert_eq!((unknown.len(), unknown[0].state), (1, State::Unknown));
        let null = File::open("/dev/null").unwrap();
        assert_eq!(findings(Some(&null), None)[0].state, State::Unknown);
        assert!(is_nvme("nvme0n1") && !is_nvme("nvme-fabrics") && !is_nvme("vda"));
    }
}
