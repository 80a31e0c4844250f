//! What parsing needs from the outside world, as a trait the caller implements.
//!
//! Data flow: parser asks -> the caller reads a file, an environment variable or a machine fact.
//!
//! Not here: any implementation; this crate opens nothing and asks the system nothing.

/// Everything a job description may refer to outside its own text.
pub trait Source {
    /// Returns the text of the job file at `path`; `-` conventionally means standard input.
    ///
    /// # Errors
    /// A one-line reason such as `No such file or directory`; it becomes part of a
    /// [`ParseError`](crate::ParseError).
    fn read_job_file(&self, path: &str) -> Result<String, String>;

    /// The first `most` bytes of the file at `path`, for `verify_pattern='path'`.
    ///
    /// # Errors
    /// A one-line reason, as for job files. Unless it is implemented, there are no such files.
    fn read_bytes(&self, path: &str, most: usize) -> Result<Vec<u8>, String> {
        let _ = (path, most);
        Err("patterns cannot be read from files here".to_owned())
    }

    /// The value of an environment variable, for `${NAME}`.
    fn env(&self, name: &str) -> Option<String>;

    /// Number of CPUs, for `$ncpus` and the check of `cpus_allowed`.
    fn cpus(&self) -> u32;

    /// Size of a memory page in bytes, for `$pagesize`.
    fn page_size(&self) -> u64;

    /// Size of memory in MiB, for `$mb_memory`.
    fn memory_mib(&self) -> u64;
}
