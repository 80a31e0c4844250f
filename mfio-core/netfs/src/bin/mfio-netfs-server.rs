//! Exports one directory to clients of `mfio-netfs`.
//!
//! Data flow: arguments → listener and directory → [`Server`], with a line on standard error for
//! each connection that begins or ends.
//!
//! Not here: what is served (`mfio_netfs::server`).

use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use mfio_core::block_on;
use mfio_netfs::server::secret_of_file;
use mfio_netfs::{Event, Server, ServerConfig};
use mfio_rt::portable::Portable;
use mfio_rt::virt::VirtFs;
use mfio_rt::{Fs, ListenOptions, ListenerHandle, Tcp};

/// Files that the server itself may have open: what it listens and waits with, and what operations
/// on names open for a moment.
const FILES_APART: usize = 64;

const HELP: &str = "\
Exports one directory to clients of mfio-netfs. No path leads out of it.

usage: mfio-netfs-server [options] DIRECTORY
       mfio-netfs-server [options] --memory

  --memory                 export an empty file system in memory, gone with the server
  --bind ADDRESS:PORT      where to listen (default 127.0.0.1:4446; port 0 is any free one)
  --secret-file PATH       only clients with the same secret are let in (at least 16 bytes)
  --connections N          clients at the same time (default 64); together they may open what
                           `ulimit -n` leaves
  --idle SECONDS           cut off who is silent this long (default 60; 0 never)
  --open                   let everybody in who can connect
  --quiet                  say nothing of connections
  -h, --help               this text
  -V, --version            the version

examples:
  mfio-netfs-server /srv/data
  openssl rand -hex 32 > secret
  mfio-netfs-server --bind 0.0.0.0:4446 --secret-file secret /srv/data

What is sent is not encrypted: tunnel it through networks that others can listen to.
Addresses other than those of this machine want a secret, or --open to do without.

exit status: 2 for wrong arguments, 1 where it cannot listen or export, or cannot listen any
more; else it runs until it is stopped.
";

/// What the arguments ask for.
struct Wanted {
    directory: Option<PathBuf>,
    memory: bool,
    bind: SocketAddr,
    open: bool,
    quiet: bool,
    config: ServerConfig,
}

fn say(line: impl std::fmt::Display) {
    // Where nobody listens there is nobody to tell.
    let _unheard = writeln!(std::io::stderr().lock(), "mfio-netfs-server: {line}");
}

/// What the process may open, where the system tells.
fn files_max() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Handles that leave room for every connection, and for what the server opens for itself.
fn within_files_max(config: ServerConfig) -> ServerConfig {
    let Some(files_max) = files_max() else { return config };
    let sockets = config.connections_max.saturating_add(config.greetings_max);
    let left = files_max.saturating_sub(sockets).saturating_sub(FILES_APART);
    if left < config.connections_max {
        let connections = config.connections_max;
        let need = sockets.saturating_add(FILES_APART).saturating_add(connections);
        say(format_args!(
            "{connections} connections want more open files than `ulimit -n` allows \
             ({files_max}): raise it to {need} or more"
        ));
    }
    let handles = config.handles_all_max.min(left.max(1));
    config.handles_all_max(handles)
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Wanted>, String> {
    let bind = SocketAddr::from(([127, 0, 0, 1], 4446));
    let config = ServerConfig::default();
    let mut wanted =
        Wanted { directory: None, memory: false, bind, open: false, quiet: false, config };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let name = argument.to_string_lossy().into_owned();
        let mut value = || arguments.next().ok_or(format!("{name} wants a value"));
        let wrong = |value: &OsString| format!("{name} cannot be {}", value.display());
        match name.as_str() {
            "-h" | "--help" => {
                let _unheard = std::io::stdout().lock().write_all(HELP.as_bytes());
                return Ok(None);
            }
            "-V" | "--version" => {
                let version = env!("CARGO_PKG_VERSION");
                let _unheard = writeln!(std::io::stdout().lock(), "mfio-netfs-server {version}");
                return Ok(None);
            }
            "--memory" => wanted.memory = true,
            "--open" => wanted.open = true,
            "--quiet" => wanted.quiet = true,
            "--bind" => {
                let value = value()?;
                let address = value.to_str().and_then(|text| text.parse().ok());
                wanted.bind = address.ok_or_else(|| wrong(&value))?;
            }
            "--connections" => {
                let value = value()?;
                let number = value.to_str().and_then(|text| text.parse().ok());
                let number = number.filter(|&number| number > 0).ok_or_else(|| wrong(&value))?;
                wanted.config = wanted.config.connections_max(number);
            }
            "--idle" => {
                let value = value()?;
                let number = value.to_str().and_then(|text| text.parse::<u32>().ok());
                let idle = Duration::from_secs(number.ok_or_else(|| wrong(&value))?.into());
                wanted.config = wanted.config.idle_max(idle);
            }
            "--secret-file" => {
                let value = value()?;
                let bytes = std::fs::read(&value);
                let bytes = bytes.map_err(|error| format!("{}: {error}", value.display()))?;
                wanted.config = wanted.config.secret(Some(secret_of_file(&bytes)?));
            }
            _ if name.starts_with('-') => return Err(format!("there is no option {name}")),
            _ if wanted.directory.is_some() => return Err("one directory is exported".into()),
            _ => wanted.directory = Some(argument.into()),
        }
    }
    if wanted.directory.is_some() == wanted.memory {
        return Err("name one directory, or --memory".into());
    }
    let guarded = wanted.config.secret.is_some() || wanted.open;
    if !guarded && !wanted.bind.ip().is_loopback() {
        return Err(format!(
            "{} can be reached from elsewhere: give --secret-file, or --open to let everybody in",
            wanted.bind
        ));
    }
    Ok(Some(wanted))
}

fn run<F: Fs>(net: &Portable, fs: &F, wanted: &Wanted) -> Result<(), String> {
    let unshared = "nobody else blocks on it";
    let server = Server::new(fs.current_dir(), wanted.config.clone());
    let server = block_on(fs, server).expect(unshared).map_err(|error| error.to_string())?;
    let bind = wanted.bind;
    let no_listener =
        |error| format!("{bind}: {error}; --bind ADDRESS:PORT names another, port 0 any free one");
    let listener = block_on(net, net.bind(bind, &ListenOptions::new())).expect(unshared);
    let listener = listener.map_err(no_listener)?;
    say(format_args!("listening on {}", listener.local_addr().map_err(no_listener)?));
    let told = |event: Event| {
        if !wanted.quiet {
            say(event);
        }
    };
    // Both file systems wake by themselves: whoever waits for the sockets may wait for all.
    let ended = block_on(&listener, server.serve(&listener, told)).expect(unshared);
    Err(format!("{bind}: {ended}"))
}

fn main() -> ExitCode {
    let wanted = match parse(std::env::args_os().skip(1)) {
        Ok(Some(wanted)) => wanted,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("{error}; --help tells more"));
            return ExitCode::from(2);
        }
    };
    let wanted = match wanted.directory {
        Some(_) => Wanted { config: within_files_max(wanted.config), ..wanted },
        None => wanted,
    };
    let runtime = Portable::new().map_err(|error| error.to_string());
    let ran = runtime.and_then(|net| match &wanted.directory {
        Some(directory) => {
            let fs = Portable::at(directory).map_err(|error| error.to_string())?;
            run(&net, &fs, &wanted)
        }
        None => {
            let fs = VirtFs::new();
            run(&net, &fs, &wanted)
        }
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(error);
            ExitCode::FAILURE
        }
    }
}
