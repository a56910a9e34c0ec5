//! What a case has come to, in a few words: a status, a refusal, a cut. They name the kinds of ends that a target reaches,
//! of each of which `fuzz/corpus/` keeps an input. Nothing is judged here, and unless somebody asks nothing is noted.

use std::cell::RefCell;
use std::collections::BTreeSet;

use tidegate_core::Error;

use crate::strict::Message;
use crate::targets::Target;

thread_local! {
    static MARKS: RefCell<Option<BTreeSet<String>>> = const { RefCell::new(None) };
}

/// Notes what this case has come to.
pub(crate) fn mark(words: impl FnOnce() -> String) {
    MARKS.with_borrow_mut(|marks| {
        if let Some(marks) = marks {
            marks.insert(name(&words()));
        }
    });
}

/// What the target notes of an input. It panics as the target does.
pub fn of(target: Target, bytes: &[u8]) -> BTreeSet<String> {
    MARKS.set(Some(BTreeSet::new()));
    target.1(bytes);
    MARKS.take().unwrap_or_default()
}

/// A message as it was read.
pub(crate) fn message(to: &str, message: &Message) {
    mark(|| {
        let has = |name| !message.all(name).is_empty();
        let framing = match (has("transfer-encoding"), has("content-length")) {
            (true, _) => "chunked",
            (_, true) => "length",
            _ => "no framing",
        };
        // Methods make no difference, statuses do.
        let status = if message.start.len() == 1 { &message.start[0] } else { "" };
        let cut = if message.complete { "" } else { "cut" };
        let upgrade = if has("upgrade") { "upgrade" } else { "" };
        format!("{to} {status} {framing} {upgrade} {cut}")
    });
}

/// What became of a request.
pub(crate) fn outcome(status: Option<u16>, error: Option<Error>) {
    mark(|| {
        let error = match error {
            None => "well".to_owned(),
            Some(Error::Timeout(timeout)) => format!("timeout {}", timeout.kind.name()),
            Some(Error::BadRequest(why) | Error::UpstreamProtocol(why)) => format!("{why:?}"),
            // Without what is in it.
            Some(other) => format!("{other:?}").split('(').next().unwrap_or_default().to_owned(),
        };
        format!("ends {} {error}", status.map_or("none".to_owned(), |status| status.to_string()))
    });
}

/// Words that are the name of a file.
fn name(words: &str) -> String {
    let parts = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}
