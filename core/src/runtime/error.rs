//! Between the standard library's errors and the machine's, which compare.

use std::io;

use crate::error::{IoFailure, IoKind, TimeoutError};

impl From<&io::Error> for IoFailure {
    fn from(e: &io::Error) -> IoFailure {
        use io::ErrorKind;
        let kind = match e.kind() {
            ErrorKind::ConnectionRefused => IoKind::Refused,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => IoKind::Reset,
            ErrorKind::BrokenPipe | ErrorKind::NotConnected | ErrorKind::WriteZero => IoKind::BrokenPipe,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => {
                IoKind::Unreachable
            }
            ErrorKind::TimedOut => IoKind::TimedOut,
            _ => IoKind::Other,
        };
        IoFailure { kind, os_code: e.raw_os_error() }
    }
}

impl From<TimeoutError> for io::Error {
    /// Keeps the value as the source, with [`io::ErrorKind::TimedOut`].
    fn from(e: TimeoutError) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, e)
    }
}
