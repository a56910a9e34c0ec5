//! The names of upstreams: looked up while the program runs, and a line in the log when one stops being found.
//!
//! Who waits for a lookup and for how long is not decided here.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use tidegate_core::runtime::{Resolution, Resolver, ResolverPool, system_lookup};
use tidegate_core::{Name, Target, Upstreams};
use tracing::{info, warn};

/// The system's resolver. It says which names it does not find: when that begins and when it is over.
pub(crate) fn resolver() -> ResolverPool {
    let missing = Mutex::new(HashSet::new());
    ResolverPool::with_lookup(ResolverPool::THREADS, ResolverPool::KEEP, move |name| {
        let found = system_lookup(name);
        match news(&mut missing.lock().unwrap_or_else(PoisonError::into_inner), name, &found) {
            Some(News::Missing(why)) => {
                warn!(%name, "an upstream's name is not found, and is asked for again at each request: {why}");
            }
            Some(News::Found) => info!(%name, "an upstream's name is found again"),
            None => {}
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
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// A name is not found, for this reason. It was before, or this is its first lookup.
    Missing(String),
    /// It is found again.
    Found,
}

fn news(missing: &mut HashSet<Name>, name: &Name, found: &io::Result<Vec<SocketAddr>>) -> Option<News> {
    match found {
        Err(e) => missing.insert(name.clone()).then(|| News::Missing(e.to_string())),
        Ok(_) => missing.remove(name).then_some(News::Found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_missing_is_said_once_and_so_is_its_return() {
        let name: Name = "backend.test:80".parse().expect("a name");
        let mut missing = HashSet::new();
        let mut said = |found: io::Result<Vec<SocketAddr>>| news(&mut missing, &name, &found);
        let fails = || Err(io::Error::other("why"));
        assert_eq!(said(Ok(Vec::new())), None);
        assert_eq!(said(fails()), Some(News::Missing("why".to_owned())));
        assert_eq!(said(fails()), None);
        assert_eq!(said(Ok(Vec::new())), Some(News::Found));
        assert_eq!(said(Ok(Vec::new())), None);
    }
}
