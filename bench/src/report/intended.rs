//! Latency against the schedule, which no key of fio's has.
//!
//! An I/O of a job with a rate is due at a time, whether or not the harness or the device gets
//! round to it. Measured from then on, a stall shows in every I/O it delayed; measured from when
//! the I/O was made, it shows in one (coordinated omission).
//!
//! Data flow: what the recorder has -> an object per direction under our own key.
//!
//! Not here: when an I/O is due (`run::paced`).

use fio_compat::Job;
use fio_compat::stats::LatencyStat;
use serde_json::{Map, Value, json};

use crate::measure::Recorder;

/// The object of one job; `None` where it has no schedule.
pub(super) fn object(recorder: &Recorder, job: &Job) -> Option<Value> {
    let intended = recorder.intended.as_ref()?;
    let named = ["read", "write", "trim"].into_iter().zip(intended.iter());
    let used = named.filter(|(_, stat)| stat.count() > 0);
    let of = |(name, stat): (&str, &LatencyStat)| {
        let percentiles = job.percentile_list.iter().filter_map(|percent| {
            Some((format!("{percent:.6}"), Value::from(stat.percentile(*percent)?)))
        });
        let object = json!({
            "min": stat.moments.min(),
            "max": stat.moments.max(),
            "mean": stat.moments.mean(),
            "stddev": stat.moments.stddev(),
            "N": stat.count(),
            "percentile": percentiles.collect::<Map<String, Value>>(),
        });
        (name.to_owned(), object)
    };
    Some(Value::Object(used.map(of).collect()))
}
