//! Where an upstream is: an address, a list of addresses, or a name with a port.
//!
//! Values alone: nothing here looks a name up, and nothing decides which address is tried when.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::str::FromStr;

/// The addresses of one upstream, in the order in which they are tried. A clone costs no allocation.
///
/// ```
/// use tidegate_core::Addresses;
///
/// let both: Addresses = ["[::1]:9000".parse()?, "127.0.0.1:9000".parse()?].into_iter().collect();
/// assert_eq!(both.to_string(), "[::1]:9000,127.0.0.1:9000");
/// assert_eq!(both.get(1), Some("127.0.0.1:9000".parse()?));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Addresses(Arc<Vec<SocketAddr>>);

impl Addresses {
    /// How many one upstream has at most; what is over it is left out.
    pub const MAX: usize = 16;

    /// The one at `index`.
    pub fn get(&self, index: usize) -> Option<SocketAddr> {
        self.0.get(index).copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether these are that very list, and not one that only says the same.
    #[cfg(feature = "driver")]
    pub(crate) fn is(&self, other: &Addresses) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().copied()
    }
}

impl FromIterator<SocketAddr> for Addresses {
    /// The first [`Addresses::MAX`]; one that was there before is left out.
    fn from_iter<I: IntoIterator<Item = SocketAddr>>(addrs: I) -> Addresses {
        let mut all = Vec::new();
        for addr in addrs {
            if all.len() < Addresses::MAX && !all.contains(&addr) {
                all.push(addr);
            }
        }
        Addresses(Arc::new(all))
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, addr) in self.0.iter().enumerate() {
            write!(f, "{}{addr}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

/// A host name and a port, to be looked up when a connection is to be made. A clone costs no allocation.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// `HOST:PORT`.
    text: Arc<str>,
    port: u16,
}

impl Name {
    /// The longest host, in bytes: what DNS can hold.
    pub const MAX_HOST: usize = 253;

    /// The host alone.
    pub fn host(&self) -> &str {
        self.text.rsplit_once(':').map_or(&*self.text, |(host, _)| host)
    }

    /// The port alone.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `HOST:PORT`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Name {
    type Err = TargetError;

    /// From `HOST:PORT`, as [`Target::from_str`], but an address is no name.
    fn from_str(given: &str) -> Result<Name, TargetError> {
        let (host, port) = given.rsplit_once(':').ok_or(TargetError::Form)?;
        let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let fits = (1..=Name::MAX_HOST).contains(&host.len());
        // No name begins with a hyphen (RFC 1123 section 2.1): it is a flag that stands where a value should.
        if !fits || host.starts_with('-') || !host.bytes().all(is_letter) {
            return Err(TargetError::Form);
        }
        // `parse` would take a sign.
        let port = port.parse().ok().filter(|_| port.bytes().all(|b| b.is_ascii_digit()));
        match port {
            Some(0) | None => Err(TargetError::Port),
            Some(port) => Ok(Name { text: Arc::from(given), port }),
        }
    }
}

/// Where an upstream is.
///
/// A list is one upstream: its addresses are tried in order, all within one connect timeout. So are the addresses of a
/// name, which is looked up when a connection is to be made (`Resolver`, with the feature `driver`).
///
/// ```
/// use tidegate_core::Target;
///
/// assert!(matches!("[::1]:9000".parse()?, Target::Addresses(_)));
/// let Target::Name(name) = "backend.example:9000".parse()? else { panic!("it is a name") };
/// assert_eq!((name.host(), name.port()), ("backend.example", 9000));
/// assert!("http://backend.example:9000".parse::<Target>().is_err());
/// # Ok::<(), tidegate_core::TargetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// At these addresses. An empty list cannot be reached.
    Addresses(Addresses),
    /// At the addresses that this name has.
    Name(Name),
}

impl fmt::Display for Target {
    /// `HOST:PORT`; several addresses with commas between them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Addresses(addresses) => addresses.fmt(f),
            Target::Name(name) => name.fmt(f),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    /// From `HOST:PORT`, where the host is an IP address (IPv6 in brackets) or a name in its ASCII form.
    fn from_str(given: &str) -> Result<Target, TargetError> {
        match given.parse::<SocketAddr>() {
            Ok(addr) if addr.port() == 0 => Err(TargetError::Port),
            Ok(addr) => Ok(Target::from(addr)),
            Err(_) => given.parse().map(Target::Name),
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Target {
        Target::from([addr])
    }
}

impl<const N: usize> From<[SocketAddr; N]> for Target {
    fn from(addrs: [SocketAddr; N]) -> Target {
        Target::Addresses(addrs.into_iter().collect())
    }
}

impl From<&[SocketAddr]> for Target {
    fn from(addrs: &[SocketAddr]) -> Target {
        Target::Addresses(addrs.iter().copied().collect())
    }
}

impl From<Vec<SocketAddr>> for Target {
    fn from(addrs: Vec<SocketAddr>) -> Target {
        Target::Addresses(addrs.into_iter().collect())
    }
}

impl From<Addresses> for Target {
    fn from(addresses: Addresses) -> Target {
        Target::Addresses(addresses)
    }
}

impl From<Name> for Target {
    fn from(name: Name) -> Target {
        Target::Name(name)
    }
}

/// What is no `HOST:PORT`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Not of that form.
    #[error("expected a host and a port, such as 127.0.0.1:9000, [::1]:9000 or backend.example:9000")]
    Form,
    /// The port is not one.
    #[error("expected a host and a port, and the port is a number from 1 to 65535")]
    Port,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn host_and_port_are_a_target_and_nothing_else_is() {
        for good in ["127.0.0.1:80", "[::1]:80", "localhost:9000", "a-b.c_d.example.:65535"] {
            assert_eq!(good.parse::<Target>().unwrap().to_string(), good);
        }
        for form in [
            "",
            "host",
            ":80",
            "::1:80",
            "[host]:80",
            "a b:80",
            "a/b:80",
            "u@h:80",
            "ü:80",
            "http://h:80",
            "-h:80",
        ] {
            assert_eq!(form.parse::<Target>(), Err(TargetError::Form), "{form:?}");
        }
        for port in ["h:", "h:0", "h:65536", "h:-1", "h:+80", "127.0.0.1:+80", "127.0.0.1:0", "h:http"] {
            assert_eq!(port.parse::<Target>(), Err(TargetError::Port), "{port:?}");
        }
    }

    #[test]
    fn a_list_is_bounded_and_holds_each_address_once() {
        let addr = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let twice = (0..40).map(|n| addr(n / 2));
        let list: Addresses = twice.collect();
        assert_eq!(list.len(), Addresses::MAX);
        assert!(list.iter().eq((0..16).map(addr)));
        assert_eq!(list.get(16), None);
        assert!(!list.is_empty() && Addresses::from_iter([]).is_empty());
    }

    #[test]
    fn what_is_shown_is_what_was_given() {
        let two: Vec<SocketAddr> = ["192.0.2.1:80", "[::1]:81"].map(|a| a.parse().unwrap()).to_vec();
        let target = Target::from(two);
        assert_eq!(target.to_string(), "192.0.2.1:80,[::1]:81");
        assert_eq!(alloc::format!("{target:?}"), "Addresses([192.0.2.1:80, [::1]:81])");
        let name: Name = "backend.example:9000".parse().unwrap();
        assert_eq!(
            (name.host(), name.port(), name.as_str()),
            ("backend.example", 9000, "backend.example:9000")
        );
        assert_eq!(alloc::format!("{name} {name:?}"), "backend.example:9000 backend.example:9000");
    }
}
