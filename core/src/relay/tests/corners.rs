//! Where two rules of `timeouts.md` meet: interim responses and slow clients, pipelines and deadlines,
//! limits of zero and faults that come at the same moment.

use super::*;
use crate::timeout::DeadlineKind as Kind;
use alloc::vec;

const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\n\r\n";

#[test]
fn an_interim_response_that_waits_for_the_client_holds_the_upstream_back() {
    let mut rig = Rig::relaying(TimeoutPolicy { client_write: None, ..profile() }, GET);
    rig.upstream_gets();
    rig.upstream(HINTS);
    // What follows cannot be looked at yet, so it stays where it is, and no read runs meanwhile.
    let flood = vec![b'x'; 4 << 20];
    assert!(rig.upstream(&flood) <= crate::buf::BLOCK);
    assert_eq!(rig.next(), None);
    rig.at(1000);
    assert!(rig.outcomes.is_empty());
    rig.client_gets();
    assert_eq!(rig.next(), Some((1150, Kind::Read)));
    rig.upstream(OK5);
    assert!(rig.client_gets().ends_with("hello"));
}

#[test]
fn a_client_that_takes_no_interim_response_is_reset() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    rig.upstream(HINTS);
    rig.actions();
    rig.at(150);
    assert_eq!(rig.actions(), [Action::Abort(Side::Upstream), Action::Report, Action::Abort(Side::Client)]);
    assert_eq!((rig.timeout().kind, rig.outcome().status), (Kind::ClientWrite, None));
}
