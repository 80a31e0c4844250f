//! Options of fio that change nothing here: refused for now, or accepted without effect.
//!
//! Data flow: name -> refusal or warning. Supporting an option moves its name to `rows`.
//!
//! Not here: options that work (`rows`).

/// An option that is accepted because ignoring it cannot change the I/O or the results.
pub(crate) struct Ignored {
    pub(crate) name: &'static str,
    /// Whether it may stand without a value on the command line.
    pub(crate) is_flag: bool,
    /// Completes "`x` is ignored: …".
    pub(crate) reason: &'static str,
}

const fn ignored(name: &'static str, is_flag: bool, reason: &'static str) -> Ignored {
    Ignored { name, is_flag, reason }
}

/// Accepted without effect.
pub(crate) static IGNORED: &[Ignored] = &[
    ignored("userspace_reap", true, "it belongs to libaio, and io_uring always reaps this way"),
    ignored("libaio_vectored", false, "it belongs to libaio, which runs on io_uring here"),
    ignored("write_barrier", false, "no engine acts on it, those of fio included"),
    ignored("unique_filename", false, "it belongs to fio's network clients"),
    ignored("clocksource", false, "time always comes from the monotonic clock"),
    ignored("gtod_cpu", false, "no CPU is set aside for reading the clock"),
    ignored("job_start_clock_id", false, "job_start is always the wall clock"),
    ignored("block_error_percentiles", false, "trim errors are not classified"),
    ignored("log_compression", false, "log lines are written as they come, so none wait in memory"),
    ignored("log_compression_cpus", false, "logs are not compressed"),
    ignored("threads", false, "it is no job option; numjobs sets the number of clones"),
];

/// Known to fio, refused here until they are implemented.
pub(crate) static NOT_YET: &[&str] = &[
    // target, size, geometry
    "zonecapacity",
    "max_open_zones",
    "job_max_open_zones",
    "read_beyond_wp",
    "zone_reset_threshold",
    "zone_reset_frequency",
    "ignore_zone_limits",
    "opendir",
    "filetype",
    "ioscheduler",
    // type and pattern
    "random_sequence_stride",
    // engine
    "sqthread_poll_cpu",
    "cmdprio_percentage",
    "cmdprio_class",
    "cmdprio",
    "cmdprio_hint",
    "cmdprio_bssplit",
    "prio",
    "prioclass",
    "priohint",
    "fdp",
    "plids",
    "fdp_pli",
    "fdp_pli_select",
    "dataplacement",
    "pi_act",
    "pi_chk",
    "apptag",
    "apptag_mask",
    "md_per_io_size",
    "write_mode",
    "num_range",
    // time and rate
    "ramp_size",
    "flow_watermark",
    // jobs
    "numa_cpu_nodes",
    "numa_mem_policy",
    "uid",
    "gid",
    "cgroup",
    "cgroup_weight",
    "cgroup_nodelete",
    "comm",
    // buffers and verify
    "dedupe_mode",
    "dedupe_working_set_percentage",
    "dedupe_global",
    "verifysort",
    "merge_blktrace_file",
    "merge_blktrace_scalars",
    "merge_blktrace_iters",
    // reporting
    "log_store_compressed",
];

/// Options of engines that do not exist here: named in complaints, never matched by a prefix.
static FOREIGN: &[&str] = &[
    "address",
    "arguments",
    "bindname",
    "brick",
    "busy_poll",
    "busy_wait_polling",
    "chunk_size",
    "clientname",
    "clustername",
    "conf",
    "cont",
    "cpuchunks",
    "cpuload",
    "cpumode",
    "cuda_io",
    "direct_write_to_pmem",
    "donorname",
    "exit_on_io_done",
    "gpu_dev_ids",
    "grace_time",
    "hdfsdirectory",
    "host",
    "hostname",
    "https",
    "http_host",
    "http_mode",
    "http_object_mode",
    "http_pass",
    "http_s3_key",
    "http_s3_keyid",
    "http_s3_region",
    "http_s3_security_token",
    "http_s3_sse_customer_algorithm",
    "http_s3_sse_customer_key",
    "http_s3_storage_class",
    "http_swift_auth_token",
    "http_user",
    "http_verbose",
    "inplace",
    "interface",
    "intr_pin",
    "libblkio_driver",
    "libblkio_path",
    "listen",
    "mss",
    "namenode",
    "nfs_url",
    "nodelay",
    "object_class",
    "pingpong",
    "pool",
    "port",
    "program",
    "proto",
    "protocol",
    "rbdname",
    "serverip",
    "sg_write_mode",
    "single_instance",
    "skip_bad",
    "split_read_write",
    "stat_type",
    "std_redirect",
    "svc",
    "touch_objects",
    "ttl",
    "uri",
    "verb",
    "volume",
    "window_size",
    "xnvme_admin",
    "xnvme_async",
    "xnvme_be",
    "xnvme_dev_nsid",
    "xnvme_dev_subnqn",
    "xnvme_iovec",
    "xnvme_mem",
    "xnvme_sync",
];

/// Whether fio has an option of this name for an engine that does not exist here.
pub(crate) fn is_foreign(name: &str) -> bool {
    FOREIGN.contains(&name)
}
