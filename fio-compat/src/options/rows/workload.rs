//! Options about sizes, places and files of I/O.
//!
//! Data flow: row -> parser -> field of `Workload`.
//!
//! Not here: direction and single block sizes (`pattern`), drawing (the bench).

use super::{Kind, Row, digit, extent, row};
use crate::error::Complaint;
use crate::job::{
    BlockShare, Distribution, FileService, Job, RandomGenerator, Sequencer, Strided, Zone,
};
use crate::options::parts::{bytes, decimal, percent, range, shares, triple, word};
use crate::options::units::without_stray_parenthesis;

pub(super) const ROWS: &[Row] = &[
    row(
        "rw_sequencer",
        &[],
        Kind::Parsed(|job, text| {
            let choices =
                [("sequential", Sequencer::Sequential), ("identical", Sequencer::Identical)];
            word(text, &choices).map(|value| job.workload.rw_sequencer = value)
        }),
        |job| format!("{:?}", job.workload.rw_sequencer).to_lowercase(),
        "what follows a random offset in rw=randread:N",
    ),
    row("bsrange", &["blocksize_range"], Kind::NotedSizes(set_range), show_range, "range of sizes"),
    row(
        "bssplit",
        &[],
        Kind::ParsedSizes(set_split),
        show_split,
        "sizes with their shares in percent",
    ),
    row(
        "bs_unaligned",
        &["blocksize_unaligned"],
        Kind::Flag(|job, value| job.workload.bs_unaligned = value),
        |job| digit(job.workload.bs_unaligned),
        "any length of a bsrange",
    ),
    row(
        "bs_is_seq_rand",
        &[],
        Kind::Bool(|job, value| job.workload.bs_is_seq_rand = value),
        |job| digit(job.workload.bs_is_seq_rand),
        "bs=sequential,random instead of read,write",
    ),
    row(
        "blockalign",
        &["ba"],
        Kind::ParsedSizes(|job, text| {
            let values = triple(text, positive)?;
            job.workload.block_align = values;
            Ok(())
        }),
        |job| by_direction(&job.workload.block_align, |value| value.unwrap_or(0).to_string()),
        "alignment of random offsets; 0 is the smallest block",
    ),
    row(
        "percentage_random",
        &[],
        Kind::Parsed(|job, text| {
            let one = |text: &str| percent(text).map(|value| u8::try_from(value).unwrap_or(100));
            for (field, value) in job.workload.percentage_random.iter_mut().zip(triple(text, one)?)
            {
                *field = value.unwrap_or(100);
            }
            Ok(())
        }),
        |job| by_direction(&job.workload.percentage_random, u8::to_string),
        "share of random I/Os in a random job",
    ),
    row(
        "random_distribution",
        &[],
        Kind::ParsedSizes(set_distribution),
        |job| by_direction(&job.workload.distribution, show_distribution),
        "distribution of random offsets",
    ),
    row(
        "softrandommap",
        &[],
        Kind::Bool(|job, value| job.workload.softrandommap = value),
        |job| digit(job.workload.softrandommap),
        "do without a random map if there is no memory for it",
    ),
    row(
        "random_generator",
        &[],
        Kind::Parsed(|job, text| {
            let choices = [
                ("tausworthe", RandomGenerator::Tausworthe),
                ("tausworthe64", RandomGenerator::Tausworthe64),
                ("lfsr", RandomGenerator::Lfsr),
            ];
            word(text, &choices).map(|value| job.workload.random_generator = value)
        }),
        |job| format!("{:?}", job.workload.random_generator).to_lowercase(),
        "source of offsets; lfsr is a full cycle without a map",
    ),
    row(
        "allrandrepeat",
        &[],
        Kind::Bool(|job, value| {
            job.workload.allrandrepeat = value;
            job.randrepeat = value;
        }),
        |job| digit(job.workload.allrandrepeat),
        "randrepeat for everything that is drawn",
    ),
    row(
        "nrfiles",
        &[],
        Kind::Count { min: 1, max: 1 << 20, set: |job, value| job.workload.nrfiles = value },
        |job| job.workload.nrfiles.to_string(),
        "number of files made of the job's name",
    ),
    row(
        "openfiles",
        &[],
        Kind::Count { min: 0, max: 1 << 20, set: |job, value| job.workload.openfiles = value },
        |job| job.workload.openfiles.to_string(),
        "files in use at a time; 0 is all",
    ),
    row(
        "file_service_type",
        &[],
        Kind::Parsed(set_file_service),
        |job| {
            let ios = job.workload.file_service_ios;
            match job.workload.file_service {
                FileService::RoundRobin => format!("roundrobin:{ios}"),
                FileService::Random => format!("random:{ios}"),
                FileService::Sequential => format!("sequential:{ios}"),
                FileService::Zipf(theta) => format!("zipf:{theta}"),
                FileService::Pareto(power) => format!("pareto:{power}"),
                FileService::Normal(deviation) => format!("normal:{deviation}"),
            }
        },
        "how the next file is chosen",
    ),
    row(
        "filesize",
        &[],
        Kind::NotedSizes(|job, text| {
            job.workload.filesize = Some(range(text)?);
            Ok(without_stray_parenthesis(text).1)
        }),
        |job| job.workload.filesize.map_or(String::new(), |(low, high)| format!("{low}-{high}")),
        "size of each file, or a range it is drawn from",
    ),
    row(
        "filename_format",
        &[],
        Kind::Text(|job, text| job.workload.filename_format = Some(text.to_owned())),
        |job| job.workload.filename_format.clone().unwrap_or_default(),
        "names of files: $jobname, $jobnum, $filenum",
    ),
    row(
        "offset_increment",
        &[],
        Kind::Extent(|job, value| job.workload.offset_increment = value),
        |job| extent(job.workload.offset_increment),
        "added to the offset for each clone",
    ),
    row(
        "offset_align",
        &[],
        Kind::Number { min: 0, set: |job, value| job.workload.offset_align = value },
        |job| job.workload.offset_align.to_string(),
        "alignment of an offset in percent; 0 is the block",
    ),
    row(
        "fill_device",
        &["fill_fs"],
        Kind::Bool(|job, value| job.workload.fill_device = value),
        |job| digit(job.workload.fill_device),
        "write until the target is full",
    ),
    row(
        "zonemode",
        &[],
        Kind::Parsed(set_zone_mode),
        |job| if job.workload.strided.is_some() { "strided" } else { "none" }.to_owned(),
        "none, or strided: zones with gaps",
    ),
    row(
        "zonesize",
        &[],
        Kind::ParsedSizes(|job, text| {
            bytes(text).map(|value| set_zone(job, |zone| zone.size_bytes = value))
        }),
        |job| job.workload.zone.size_bytes.to_string(),
        "bytes done in a zone before the next",
    ),
    row(
        "zonerange",
        &[],
        Kind::ParsedSizes(|job, text| {
            bytes(text).map(|value| set_zone(job, |zone| zone.range_bytes = value))
        }),
        |job| job.workload.zone.range_bytes.to_string(),
        "length of a zone",
    ),
    row(
        "zoneskip",
        &[],
        Kind::ParsedSizes(|job, text| {
            bytes(text).map(|value| set_zone(job, |zone| zone.skip_bytes = value))
        }),
        |job| job.workload.zone.skip_bytes.to_string(),
        "bytes between two zones",
    ),
];

fn by_direction<T>(values: &[T; 3], show: impl Fn(&T) -> String) -> String {
    values.iter().map(show).collect::<Vec<_>>().join(",")
}

fn positive(text: &str) -> Result<u64, Complaint> {
    match bytes(text)? {
        0 => Err(Complaint::new("a block cannot have 0 bytes")),
        value => Ok(value),
    }
}

/// A range, and the block size that unsuspecting readers of `bs` should see.
/// Some of fio's own job files give a bssplit here, of which fio takes the first two sizes.
fn set_range(job: &mut Job, text: &str) -> Result<Option<&'static str>, Complaint> {
    let is_split = text.contains('/');
    let size = |part: &str| part.split('/').next().unwrap_or_default().to_owned();
    let first_two = |part: &str| part.split(':').take(2).map(size).collect::<Vec<_>>().join(":");
    let values = triple(text, |part| if is_split { range(&first_two(part)) } else { range(part) })?;
    if values.iter().flatten().any(|(low, _)| *low == 0) {
        return Err(Complaint::new("a block cannot have 0 bytes"));
    }
    let fields = job.workload.bs_range.iter_mut().zip(values);
    for (field, value) in fields {
        *field = value.or(*field);
    }
    Ok(is_split.then_some(
        "looks like a bssplit; as in fio, the range goes from its first size to its second",
    ))
}

fn show_range(job: &Job) -> String {
    by_direction(&job.workload.bs_range, |range| {
        range.map_or(String::new(), |(low, high)| format!("{low}-{high}"))
    })
}

fn set_split(job: &mut Job, text: &str) -> Result<(), Complaint> {
    let values = triple(text, |text: &str| {
        let list = shares(text)?;
        if list.iter().any(|(bytes, _)| *bytes == 0) {
            return Err(Complaint::new("a block cannot have 0 bytes"));
        }
        Ok(list.iter().map(|&(bytes, percent)| BlockShare { bytes, percent }).collect::<Vec<_>>())
    })?;
    for (field, value) in job.workload.bs_split.iter_mut().zip(values) {
        *field = value.unwrap_or_default();
    }
    Ok(())
}

fn show_split(job: &Job) -> String {
    by_direction(&job.workload.bs_split, |list| {
        let part = |share: &BlockShare| format!("{}/{}", share.bytes, share.percent);
        list.iter().map(part).collect::<Vec<_>>().join(":")
    })
}

fn set_distribution(job: &mut Job, text: &str) -> Result<(), Complaint> {
    let values = triple(text, one_distribution)?;
    for (field, value) in job.workload.distribution.iter_mut().zip(values) {
        *field = value.unwrap_or_default();
    }
    Ok(())
}

fn one_distribution(text: &str) -> Result<Distribution, Complaint> {
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    let skew = || -> Result<(Option<f64>, Option<f64>), Complaint> {
        let (skew, center) = rest.split_once(':').unwrap_or((rest, ""));
        let parse = |text: &str| if text.is_empty() { Ok(None) } else { decimal(text).map(Some) };
        let center = parse(center)?;
        if center.is_some_and(|center| !(0.0..=1.0).contains(&center)) {
            return Err(Complaint::new("the center is a number from 0 to 1"));
        }
        Ok((parse(skew)?, center))
    };
    match name {
        "random" => Ok(Distribution::Random),
        "zipf" => {
            let (theta, center) = skew()?;
            let theta = theta.unwrap_or(1.1);
            if theta <= 0.0 || (theta - 1.0).abs() < f64::EPSILON {
                return Err(Complaint::new("the theta of zipf is above 0 and not 1"));
            }
            Ok(Distribution::Zipf { theta, center })
        }
        "pareto" => {
            let (h, center) = skew()?;
            let h = h.unwrap_or(0.2);
            if h <= 0.0 || h >= 1.0 {
                return Err(Complaint::new("the h of pareto lies between 0 and 1"));
            }
            Ok(Distribution::Pareto { h, center })
        }
        "normal" => {
            let (deviation, center) = skew()?;
            let deviation_percent = deviation.unwrap_or(0.0);
            if !(0.0..=100.0).contains(&deviation_percent) {
                return Err(Complaint::new("the deviation of normal is 0 to 100 percent"));
            }
            Ok(Distribution::Normal { deviation_percent, center })
        }
        "zoned" => zones(rest, true).map(Distribution::Zoned),
        "zoned_abs" => zones(rest, false).map(Distribution::ZonedAbs),
        _ => {
            let remedy = "valid values are random, zipf, pareto, normal, zoned, zoned_abs";
            Err(Complaint::new("no such value").with_remedy(remedy))
        }
    }
}

/// `access/length:…`, the shares of access adding up to 100; relative lengths that are left
/// out share the rest.
fn zones(text: &str, relative: bool) -> Result<Vec<Zone>, Complaint> {
    let mut zones = Vec::new();
    let mut open = Vec::new();
    for part in text.split(':') {
        let (access, length) = part.split_once('/').unwrap_or((part, ""));
        let length = match (length.trim(), relative) {
            ("", true) => {
                open.push(zones.len());
                0
            }
            ("", false) => {
                return Err(Complaint::new(format!("`{part}` is not access/length")));
            }
            (text, true) => u64::from(percent(text)?),
            (text, false) => bytes(text)?,
        };
        zones.push(Zone { access_percent: percent(access)?, length });
    }
    let given: u64 = zones.iter().map(|zone| zone.length).sum();
    let mut left = 100_u64.saturating_sub(given);
    for (index, at) in open.iter().enumerate() {
        let share = left / (open.len() - index) as u64;
        zones[*at].length = share;
        left -= share;
    }
    let access: u32 = zones.iter().map(|zone| zone.access_percent).sum();
    if access != 100 {
        let message = format!("the shares of access add up to {access} instead of 100");
        return Err(Complaint::new(message));
    }
    let length: u64 = zones.iter().map(|zone| zone.length).sum();
    if relative && length != 100 {
        let message = format!("the lengths of the zones add up to {length} instead of 100 percent");
        return Err(Complaint::new(message));
    }
    Ok(zones)
}

fn show_distribution(distribution: &Distribution) -> String {
    let list = |name: &str, zones: &[Zone]| {
        let part = |zone: &Zone| format!("{}/{}", zone.access_percent, zone.length);
        format!("{name}:{}", zones.iter().map(part).collect::<Vec<_>>().join(":"))
    };
    match distribution {
        Distribution::Random => "random".to_owned(),
        Distribution::Zipf { theta, .. } => format!("zipf:{theta}"),
        Distribution::Pareto { h, .. } => format!("pareto:{h}"),
        Distribution::Normal { deviation_percent, .. } => format!("normal:{deviation_percent}"),
        Distribution::Zoned(zones) => list("zoned", zones),
        Distribution::ZonedAbs(zones) => list("zoned_abs", zones),
    }
}

fn set_file_service(job: &mut Job, text: &str) -> Result<(), Complaint> {
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    let skew = |usual: f64| if rest.is_empty() { Ok(usual) } else { decimal(rest) };
    let (service, counted) = match name {
        "roundrobin" => (FileService::RoundRobin, true),
        "random" => (FileService::Random, true),
        "sequential" => (FileService::Sequential, true),
        "zipf" => (FileService::Zipf(skew(1.1)?), false),
        "pareto" => (FileService::Pareto(skew(0.2)?), false),
        "normal" | "gauss" => (FileService::Normal(skew(0.0)?), false),
        _ => {
            let words = "random, roundrobin, sequential, zipf, pareto, normal";
            let remedy = format!("valid values are {words}");
            return Err(Complaint::new("no such value").with_remedy(remedy));
        }
    };
    job.workload.file_service = service;
    job.workload.file_service_ios =
        if counted && !rest.is_empty() { bytes(rest)?.max(1) } else { 1 };
    Ok(())
}

fn set_zone_mode(job: &mut Job, text: &str) -> Result<(), Complaint> {
    match text {
        "none" => job.workload.strided = None,
        "strided" => job.workload.strided = Some(job.workload.zone),
        "zbd" => {
            let complaint = Complaint::new("zoned block devices are not supported");
            return Err(complaint.with_remedy("use zonemode=strided or none"));
        }
        _ => {
            let remedy = "valid values are none, strided";
            return Err(Complaint::new("no such value").with_remedy(remedy));
        }
    }
    Ok(())
}

fn set_zone(job: &mut Job, set: impl FnOnce(&mut Strided)) {
    set(&mut job.workload.zone);
}
