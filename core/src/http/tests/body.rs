//! Bodies: lengths, the chunk grammar, trailers, limits.

use super::*;
use alloc::format;
use alloc::vec;

/// What a decoder makes of bytes that arrive in pieces of at most `piece` bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoding {
    pub(super) body: Vec<u8>,
    /// Bytes taken, or the error.
    pub(super) taken: Result<usize, HttpError>,
    pub(super) complete: bool,
}

pub(super) fn decode<'a>(framing: Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoding {
    let mut decoder = BodyDecoder::new(framing);
    let (mut body, mut taken) = (vec![], 0);
    for mut piece in pieces {
        loop {
            match decoder.decode(piece) {
                Ok(Decoded { skip: 0, data: 0 }) => break,
                Ok(Decoded { skip, data }) => {
                    body.extend_from_slice(&piece[skip..skip + data]);
                    piece = &piece[skip + data..];
                    taken += skip + data;
                }
                Err(e) => {
                    assert_eq!(decoder.decode(b"5\r\n"), Err(e), "an error lasts");
                    assert!(!decoder.is_complete() && !decoder.eof());
                    return Decoding { body, taken: Err(e), complete: false };
                }
            }
        }
        assert!(piece.is_empty() || decoder.is_complete(), "bytes are left only behind the end");
    }
    assert_eq!(decoder.framing(), framing);
    Decoding { body, taken: Ok(taken), complete: decoder.is_complete() }
}

/// A chunked body, which must be the same in whatever pieces it comes.
fn chunked(input: &[u8]) -> Decoding {
    let whole = decode(Framing::Chunked, [input]);
    for ends in segmentations(input.len()) {
        let begins = core::iter::once(0).chain(ends.iter().copied());
        let pieces = begins.zip(&ends).map(|(begin, &end)| &input[begin..end]);
        assert_eq!(whole, decode(Framing::Chunked, pieces), "G1 {:?} {ends:?}", text(input));
    }
    whole
}

#[test]
fn lengths_and_close() {
    for framing in [Framing::None, Framing::Length(0)] {
        let mut decoder = BodyDecoder::new(framing);
        assert!(decoder.is_complete());
        assert_eq!(decoder.decode(b"GET"), Ok(Decoded::default()));
        assert!(decoder.eof());
    }
    let mut decoder = BodyDecoder::new(Framing::Length(5));
    assert_eq!(decoder.decode(b"abc"), Ok(Decoded { skip: 0, data: 3 }));
    assert!(!decoder.is_complete() && !decoder.eof());
    assert_eq!(decoder.decode(b"deGET"), Ok(Decoded { skip: 0, data: 2 }));
    assert!(decoder.is_complete() && decoder.eof());
    let mut decoder = BodyDecoder::new(Framing::Length(u64::MAX));
    assert_eq!(decoder.decode(b"abc"), Ok(Decoded { skip: 0, data: 3 }));
    let mut decoder = BodyDecoder::new(Framing::UntilClose);
    assert_eq!(decoder.decode(b"abc"), Ok(Decoded { skip: 0, data: 3 }));
    assert!(!decoder.is_complete() && decoder.eof() && decoder.is_complete());
    assert_eq!(decoder.decode(b"abc"), Ok(Decoded::default()));
}

#[test]
fn framing_comes_before_data_in_one_call() {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    assert_eq!(decoder.decode(b"3\r\nabc\r\n2\r\nde"), Ok(Decoded { skip: 3, data: 3 }));
    assert_eq!(decoder.decode(b"\r\n2\r\nde"), Ok(Decoded { skip: 5, data: 2 }));
    assert_eq!(decoder.decode(b"\r\n0\r\n\r\nGET"), Ok(Decoded { skip: 7, data: 0 }));
    assert!(decoder.is_complete());
    assert_eq!(decoder.decode(b"GET"), Ok(Decoded::default()));
}

#[test]
fn f13_valid_chunks() {
    for (input, body) in [
        ("0\r\n\r\n", ""),
        ("000\r\n\r\n", ""),
        ("0000000000000005\r\nhello\r\n0\r\n\r\n", "hello"),
        ("a\r\n0123456789\r\nA\r\n0123456789\r\n00\r\n\r\n", "01234567890123456789"),
        ("1;a\r\nx\r\n0;a=b;c=\"d\"\r\n\r\n", "x"),
        ("1;a=\"\\\";\\\\ \t\u{e9}\"\r\nx\r\n0\r\n\r\n", "x"),
        ("1 ; a = b\t;\tc ;d=\"\" \t;e\r\nx\r\n0\r\n\r\n", "x"),
        ("1\r\n\r\r\n0\r\n\r\n", "\r"),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
        ("0\r\nA: b\r\nc:\r\nD:\te \u{e9} \r\n\r\n", ""),
    ] {
        let surplus = format!("{input}0\r\n\r\n");
        let expected = Decoding { body: body.as_bytes().to_vec(), taken: Ok(input.len()), complete: true };
        assert_eq!(chunked(surplus.as_bytes()), expected, "{input:?}");
        // R5: cut short anywhere, it is not complete.
        for end in 0..input.len() {
            assert!(!chunked(&input.as_bytes()[..end]).complete, "{input:?} cut at {end}");
        }
    }
}

#[test]
fn chunk_framing_that_is_refused() {
    for (row, body, inputs) in [
        (
            "F10",
            "",
            &[
                "\r\n",
                " 5\r\n",
                "\t5\r\n",
                "+5\r\n",
                "-5\r\n",
                "0x5\r\n",
                "0X5\r\n",
                "g\r\n",
                "5g\r\n",
                "5_0\r\n",
                "5.\r\n",
                ";a\r\n",
                "5\0\r\n",
                "5\x0b\r\n",
                "5\r\r\n",
                "5\r5\r\n",
                "5 \r\n",
                "5\t\r\n",
                "5 5\r\n",
                "5;\r\n",
                "5; \r\n",
                "5;;a\r\n",
                "5;a;\r\n",
                "5;a \r\n",
                "5;a=\r\n",
                "5;a= \r\n",
                "5;=b\r\n",
                "5;a=b \r\n",
                "5;a=b c\r\n",
                "5;a b\r\n",
                "5;a=\"b\r\n",
                "5;a=\"b\"c\r\n",
                "5;a=b\"c\"\r\n",
                "5;a=\"b\x7f\"\r\n",
                "5;a=\"b\\\r\n",
                "5;a\rb\r\n",
                "5;a\0\r\n",
                "5;\u{e9}\r\n",
                "5,a\r\n",
                "5;a=\"b\"=c\r\n",
                "5;a=b=c\r\n",
                "5\u{a0}\r\n",
            ][..],
        ),
        ("F4", "", &["10000000000000000\r\n", "00000000000000000\r\n", "fffffffffffffffff\r\n"][..]),
        (
            "F11",
            "",
            &["5\nhello", "5;a\nhello", "5;a=\"b\n\"\r\n", "0\n\n", "0\r\n\n", "0\r\nA: b\n\r\n", "\n5\r\n"]
                [..],
        ),
        ("F12", "", &["0\r\n\rX", "0\r\nGET / HTTP/1.1\r\n", "0\r\n0\r\n"][..]),
        (
            "F15",
            "",
            &[
                "0\r\nA : b\r\n",
                "0\r\n A: b\r\n",
                "0\r\nA\r\n\r\n",
                "0\r\n: b\r\n",
                "0\r\nA: b\r\n c\r\n",
                "0\r\nA: \0\r\n",
                "0\r\nA: b\rc\r\n",
                "0\r\nA: \x7f\r\n",
                "0\r\nA b: c\r\n",
                "0\r\n\u{e9}: c\r\n",
            ][..],
        ),
        (
            "F12",
            "abc",
            &["3\r\nabcd", "3\r\nabc\n", "3\r\nabc\rX", "3\r\nabc0\r\n\r\n", "3\r\nabc\r\r\n"][..],
        ),
    ] {
        for input in inputs {
            let expected =
                Decoding { body: body.as_bytes().to_vec(), taken: Err(HttpError::Chunk), complete: false };
            assert_eq!(chunked(input.as_bytes()), expected, "{row} {input:?}");
        }
    }
}

#[test]
fn f4_the_largest_size_does_not_wrap() {
    let decoding = chunked(b"ffffffffffffffff\r\nabc");
    assert_eq!((decoding.body.as_slice(), decoding.complete), (&b"abc"[..], false));
}

#[test]
fn b2_extensions_are_limited_in_total() {
    let line = format!("1;{}\r\nx\r\n", "a".repeat(1023));
    let four = line.repeat(4);
    assert_eq!(chunked(four.as_bytes()).body, b"xxxx");
    let five = format!("{four}1;a\r\nx\r\n");
    assert_eq!(chunked(five.as_bytes()).taken, Err(HttpError::Chunk));
    let one = format!("1;{}", "a".repeat(4096));
    assert_eq!(chunked(one.as_bytes()).taken, Err(HttpError::Chunk));
}

#[test]
fn b2_trailers_are_limited_in_lines_and_bytes() {
    let lines = |n: usize| chunked(format!("0\r\n{}\r\n", "A: b\r\n".repeat(n)).as_bytes());
    assert!(lines(64).complete);
    assert_eq!(lines(65).taken, Err(HttpError::Chunk));
    let bytes = |n: usize| chunked(format!("0\r\nA:{}\r\n\r\n", "b".repeat(n)).as_bytes());
    assert!(bytes(8192 - 6).complete);
    assert_eq!(bytes(8192 - 5).taken, Err(HttpError::Chunk));
}

#[test]
fn our_chunk_lines() {
    for (len, line) in [(0, "0\r\n"), (1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (65_536, "10000\r\n")] {
        assert_eq!(text(ChunkLine::new(len).as_bytes()), line);
    }
    assert_eq!(text(ChunkLine::new(usize::MAX).as_bytes()), format!("{:x}\r\n", usize::MAX));
    assert!(chunked(LAST_CHUNK).complete);
}
