//! What the kernel knows of this process: its sockets, and the rows of its connections.
//!
//! Read from `/proc` and asked of the kernel, so Linux only, from outside the code under test. A reading is taken when asked
//! for; waiting for a value is a bounded poll, never a blind sleep.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::diag;

/// The network sockets that this process holds. Event queues, timers and Unix sockets are not counted: runtimes
/// open them when they please (tokio with its signal driver holds a pair).
pub fn sockets() -> usize {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return 0 };
    let unix = unix_sockets();
    entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|target| inode(&target.to_string_lossy()))
        .filter(|inode| !unix.contains(inode))
        .count()
}

/// The inode of what `socket:[123]` names.
fn inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn unix_sockets() -> BTreeSet<u64> {
    let table = fs::read_to_string("/proc/self/net/unix").unwrap_or_default();
    table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(6)?.parse().ok()).collect()
}

/// A TCP state, as `/proc/net/tcp` numbers them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// 01.
    Established,
    /// 02.
    SynSent,
    /// Any other.
    Other(u8),
}

/// A row of `/proc/net/tcp`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Of the end that the row is about.
    pub local_port: u16,
    /// Of the other end.
    pub remote_port: u16,
    /// What it is doing.
    pub state: TcpState,
    /// Of its socket; zero if no descriptor refers to it any more.
    pub inode: u64,
    /// Bytes that the other end has not acknowledged, a FIN among them.
    pub queued: u32,
}

/// The rows whose other end is at one of `remote_ports`: the ends of those who connected there.
pub fn rows_to(remote_ports: &[u16]) -> Vec<Row> {
    rows(remote_ports).filter(|row| remote_ports.contains(&row.remote_port)).collect()
}

/// The row of the end at `local_port` of a connection to `remote_port`.
pub fn row(local_port: u16, remote_port: u16) -> Option<Row> {
    rows(&[remote_port]).find(|row| (row.local_port, row.remote_port) == (local_port, remote_port))
}

/// The descriptor of this process that refers to a socket.
pub(crate) fn descriptor(socket: u64) -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?;
    entries.flatten().find_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        (inode(&target.to_string_lossy())? == socket).then(|| entry.file_name().to_str()?.parse().ok())?
    })
}

/// The rows that name one of `ports`, at either end.
fn rows(ports: &[u16]) -> impl Iterator<Item = Row> {
    let named = |row: &Row| ports.contains(&row.local_port) || ports.contains(&row.remote_port);
    all_rows(ports).into_iter().filter(named)
}

/// Asked for by netlink; without it, from `/proc/net/tcp`, where thousands of old rows are not even taken apart.
fn all_rows(ports: &[u16]) -> Vec<Row> {
    if let Ok(rows) = diag::rows() {
        return rows;
    }
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    let ports: Vec<String> = ports.iter().map(|port| format!(":{port:04X} ")).collect();
    let names_one = |line: &&str| ports.iter().any(|port| line.contains(port));
    table.lines().filter(names_one).filter_map(parse).collect()
}

fn parse(line: &str) -> Option<Row> {
    let mut words = line.split_whitespace().skip(1);
    let port = |word: &str| u16::from_str_radix(word.split_once(':')?.1, 16).ok();
    let (local_port, remote_port) = (port(words.next()?)?, port(words.next()?)?);
    let state = match u8::from_str_radix(words.next()?, 16).ok()? {
        1 => TcpState::Established,
        2 => TcpState::SynSent,
        other => TcpState::Other(other),
    };
    let queued = u32::from_str_radix(words.next()?.split_once(':')?.0, 16).ok()?;
    // Timer, retransmits, user and timeout are between.
    let inode = words.nth(4)?.parse().ok()?;
    Some(Row { local_port, remote_port, state, inode, queued })
}

/// Resident memory of this process, in bytes.
pub(crate) fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// The limit on descriptors as it was, to be restored when this is dropped.
pub(crate) struct DescriptorLimit(Rlimit);

/// Lets this process have at most `more` descriptors beyond those that are open. Hold it only while this case alone
/// runs.
pub(crate) fn limit_descriptors(more: u64) -> DescriptorLimit {
    let was = getrlimit(Resource::Nofile);
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let highest = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok()).max();
    let current = highest.map(|highest| highest + 1 + more);
    // The soft limit may always be lowered.
    let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum: was.maximum });
    DescriptorLimit(was)
}

impl Drop for DescriptorLimit {
    fn drop(&mut self) {
        let _ = setrlimit(Resource::Nofile, Rlimit { ..self.0 });
    }
}

/// Waits until `reading` gives what `wanted` accepts, at most for `bound`; the last reading either way.
pub fn settle<T>(bound: Duration, reading: impl Fn() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let until = Instant::now() + bound;
    loop {
        let value = reading();
        if wanted(&value) || Instant::now() >= until {
            return value;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    #[test]
    fn sees_the_row_of_a_connection() -> std::io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        let (from, to) = (stream.local_addr()?.port(), listener.local_addr()?.port());
        let found = row(from, to).expect("a row");
        assert_eq!((found.state, found.queued), (TcpState::Established, 0));
        assert_eq!(descriptor(found.inode), u64::try_from(stream.as_raw_fd()).ok());
        assert!(sockets() >= 2);
        Ok(())
    }

    #[test]
    fn reads_a_line_of_the_table() {
        let line = "   0: 0100007F:A2C6 0100007F:1F90 04 0000BEEF:00000000 01:00000014 00000000     0        0 0 4 0000000000000000 20 4 30 10 -1";
        let row = parse(line).expect("a row");
        assert_eq!((row.local_port, row.remote_port), (0xa2c6, 0x1f90));
        assert_eq!((row.state, row.queued, row.inode), (TcpState::Other(4), 0xbeef, 0));
        let line = line.replace(" 0 4 0000", " 98765 4 0000");
        assert_eq!(parse(&line).map(|row| row.inode), Some(98765));
    }
}
