//! The orderly end of a client's connection: what its stream has to say before it is dropped.

use super::connection::{profile, rig};
use super::*;

/// A stream that has more to say at its end than FIN (TLS: `close_notify`) says it wherever nothing is cut, also to a client
/// that has closed its own direction.
#[test]
fn a_connection_that_ends_in_order_is_not_merely_dropped() {
    const CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    const OLD: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
    for (request, fin) in [(CLOSE, false), (CLOSE, true), (OLD, true), (GET, true)] {
        let asked = |no_fin| {
            let mut rig = rig(profile());
            at(&rig.client, |p| (p.fin, p.no_fin) = (fin, no_fin));
            send(&rig.client, request);
            assert!(!rig.task.run());
            let upstream = rig.fake.upstream(0);
            send(&upstream, b"HTTP/1.1 200 OK\r\n\r\nhello");
            at(&upstream, |p| p.fin = true);
            let over = rig.task.run();
            assert!(got(&rig.client).contains("hello"));
            assert!(upstream.borrow().got_fin && upstream.borrow().closed, "so is the upstream's");
            (rig, over)
        };
        let (rig, over) = asked(None);
        assert!(over && rig.client.borrow().got_fin && rig.client.borrow().closed, "{fin}");
        // Its stream has to wait first, and is waited for.
        let (mut rig, over) = asked(Some(Poll::Pending));
        assert!(!over && !rig.client.borrow().closed && rig.outcomes.borrow().len() == 1);
        assert!(!rig.at(79));
        at(&rig.client, |p| p.no_fin = None);
        assert!(rig.task.run() && rig.client.borrow().got_fin && rig.client.borrow().closed);
        assert_eq!(rig.proxy.gauges().tasks, 0);
        // But not for longer than linger, nor if it fails, nor if the proxy is stopped.
        let (mut rig, _) = asked(Some(Poll::Pending));
        assert!(rig.at(80) && rig.client.borrow().closed && !rig.client.borrow().aborted);
        let (rig, over) = asked(Some(Poll::Ready(())));
        assert!(over && rig.client.borrow().closed && !rig.client.borrow().aborted);
        let (mut rig, _) = asked(Some(Poll::Pending));
        rig.proxy.stop();
        assert!(rig.task.run() && rig.client.borrow().closed && !rig.client.borrow().aborted);
        let (mut rig, _) = asked(Some(Poll::Pending));
        rig.task.cancel();
        assert!(rig.client.borrow().closed && rig.fake.open() == 0);
    }
}
