//! Windows of time: what is early, late or neither, here and in virtual time. They judge transcripts made by hand.

use super::*;
use crate::board::{Board, lock};
use crate::recorder::Receives;

fn at(from: u64, to: u64) -> Transcript {
    let board = Board::default();
    board.mark("from", ms(from));
    board.mark("to", ms(to));
    board.transcript()
}

#[test]
fn a_window_is_wider_on_a_real_machine_and_not_in_virtual_time() {
    let (from, to) = (Moment::Mark("from"), Moment::Mark("to"));
    let late = |expect: Expect, tolerance| expect.check(&at(50, 300), tolerance).is_err();
    let real = Tolerance { slack: SLACK };
    assert!(!late(window_wider(from, to, ms(150), ms(100)), real));
    assert!(late(window_wider(from, to, ms(150), ms(100)), Tolerance::VIRTUAL));
    assert!(late(window_wider(from, to, ms(150), ms(40)), real));
    assert!(!late(window_within(from, to, ms(150), ms(100)), Tolerance::VIRTUAL));
}

#[test]
fn what_waits_for_no_deadline_has_what_the_machine_was_late_and_no_more() {
    let prompt = within(Moment::Mark("from"), Moment::Mark("to"), ms(20));
    let holds = |to, slack| prompt.check(&at(50, to), Tolerance { slack }).is_ok();
    assert!(holds(69, SLACK) && !holds(70, SLACK));
    assert!(holds(99, SLACK + ms(30)) && holds(159, SLACK_CI));
    // Whoever tells of both is not always told in order.
    assert!(holds(40, SLACK));
    assert!(prompt.check(&at(50, 56), Tolerance::VIRTUAL).is_err());
    assert!(prompt.is_late_only(&at(50, 70)));
}

#[test]
fn late_is_not_early_and_not_never() {
    let expect = window(Moment::Mark("from"), Moment::Mark("to"), ms(150));
    assert!(expect.is_late_only(&at(50, 500)) && !expect.is_late_only(&at(50, 199)));
    assert!(!expect.is_late_only(&Board::default().transcript()));
    assert!(!outcomes(1).is_late_only(&at(50, 500)));
}

#[test]
fn a_status_is_one_that_can_be_read() {
    let answered = |start: &str| {
        let board = Board::default();
        let log = board.connection(Receives::Responses);
        lock(&log).received.feed(format!("{start}\r\ncontent-length: 0\r\n\r\n").as_bytes(), ms(1));
        status(0, 0, 200).check(&board.transcript(), Tolerance::VIRTUAL).is_ok()
    };
    assert!(answered("HTTP/1.1 200 OK") && answered("HTTP/1.1 200 "));
    assert!(!answered("HTTP/1.1 2OO OK") && !answered("HTTP/1.1 502 OK") && !answered("nonsense"));
}

#[test]
fn early_is_what_comes_early_after_a_peer_that_was_in_time() {
    let expect = window(Moment::Mark("from"), Moment::Mark("to"), ms(150));
    let oracle = at(50, 200);
    assert!(expect.is_early(&at(50, 199), &oracle));
    assert!(expect.is_early(&at(90, 200), &oracle));
    assert!(!expect.is_early(&at(90, 240), &oracle));
    // The peer was to say something at 50, and was given up at 150.
    assert!(!expect.is_early(&at(204, 152), &oracle));
    // The check itself misses nothing.
    assert!(expect.check(&at(204, 205), Tolerance { slack: SLACK }).is_err());
}
