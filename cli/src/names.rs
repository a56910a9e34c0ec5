//! The names of upstreams: looked up while the program runs, and a line in the log when one stops being found.
//!
//! Who waits for a lookup and for how long is not decided here.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use tidegate_core::runtime::{Resolution, Resolver, ResolverPool, system_lookup};
use tidegate_core::{Name, Target, Upstreams};

use crate::log;

/// The system's resolver. It says which names it does not find: when that begins and when it is over.
pub(crate) fn resolver() -> ResolverPool {
    let missing = Mutex::new(HashSet::new());
    ResolverPool::with_lookup(ResolverPool::THREADS, ResolverPool::KEEP, move |name| {
        let found = system_lookup(name);
        let mut missing = missing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((level, text)) = news(&mut missing, name, &found) {
            match level {
                log::Level::Warn => log::warn(text),
                _ => log::info(text),
            }
        }
        found
    })
}

/// Looks every name up for the first time, so that one which is not found is said at the start, and no request has to
/// wait for those that are. Nobody waits for this; it goes on for as long as the answers are held.
pub(crate) fn look_up(resolver: &ResolverPool, upstreams: &Upstreams) -> Vec<Resolution> {
    let name = |target| match target {
        Target::Name(name) => Some(name),
        Target::Addresses(_) => None,
    };
    let names = upstreams.list().into_iter().filter_map(|(_, target)| name(target));
    names.map(|name| resolver.resolve(&name)).collect()
}

/// What is worth a line.
fn news(
    missing: &mut HashSet<Name>,
    name: &Name,
    found: &io::Result<Vec<SocketAddr>>,
) -> Option<(log::Level, String)> {
    match found {
        Err(e) if missing.insert(name.clone()) => Some((
            log::Level::Warn,
            format!("the upstream's name {name} is not found, and is asked for again at each request: {e}"),
        )),
        Ok(_) if missing.remove(name) => {
            Some((log::Level::Info, format!("the upstream's name {name} is found again")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_missing_is_said_once_and_so_is_its_return() {
        let name: Name = "backend.test:80".parse().expect("a name");
        let mut missing = HashSet::new();
        let mut said =
            |found: io::Result<Vec<SocketAddr>>| news(&mut missing, &name, &found).map(|(_, text)| text);
        assert_eq!(said(Ok(Vec::new())), None);
        let first = said(Err(io::Error::other("why"))).expect("it is news");
        assert!(first.contains("backend.test:80") && first.ends_with("why"), "{first}");
        assert_eq!(said(Err(io::Error::other("why"))), None);
        assert!(said(Ok(Vec::new())).expect("it is news").contains("found again"));
        assert_eq!(said(Ok(Vec::new())), None);
    }
}
