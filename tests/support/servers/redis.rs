//! `redis-server`.

use std::{io, process::Command};

use super::process::Process;

/// Returns the command of a server on a port of 127.0.0.1 that keeps nothing on disk, unless
/// `options` say otherwise.
pub(crate) fn redis_command(port: u16, options: &[String]) -> Command {
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(options);
    command
}

/// Waits until a server that has just been spawned has loaded its data and takes connections. Its
/// own log says so: a connection could reach another server that has taken the port.
pub(crate) fn start_redis(mut process: Process) -> io::Result<Process> {
    process.wait_until(|process| process.log().contains("Ready to accept connections"))?;
    Ok(process)
}
