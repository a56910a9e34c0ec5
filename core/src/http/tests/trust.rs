//! What is passed on about the hops before us: from a stranger nothing, from a trusted proxy what is sound.

use super::*;
use alloc::format;
use alloc::string::ToString;
use core::net::IpAddr;

/// The head that goes upstream from `peer`, of whom 10.0.0.0/8 and 2001:db8::/32 are trusted.
fn sent(peer: &str, fields: &str) -> String {
    let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|p| p.parse::<Prefix>().unwrap());
    let peer = peer.parse::<IpAddr>().ok().map(|addr| PeerAddr::new(addr, &trusted));
    let mut out = Vec::new();
    let head = format!("GET / HTTP/1.1\r\nHost: h:80\r\n{fields}\r\n");
    rewrite_request(scan(head.as_bytes()).unwrap(), peer.as_ref(), &[], &mut ids(), &mut out).unwrap();
    text(&out)
}

const ALL: [&str; 4] = ["x-forwarded-for", "forwarded", "x-forwarded-proto", "x-forwarded-host"];

fn all(head: &str) -> [Vec<&str>; 4] {
    ALL.map(|name| values(head, name))
}

#[test]
fn h10_what_a_stranger_says_about_hops_is_replaced() {
    let lies = "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-FORWARDED-HOST: evil\r\n\
        X-Forwarded-For: 6.6.6.7\r\nX_Forwarded_For: 6.6.6.6\r\nx-forwarded_host: evil\r\nX-Real-IP: 6.6.6.6\r\n\
        X_Real_Ip: 6.6.6.6\r\nX-Forwarded-Port: 666\r\nX-Forwarded-Prefix: /evil\r\n\
        Proxy-Status: tidegate; error=http_request_error\r\nProxy_Status: evil\r\nX_Request-Id: evil\r\n\
        x_request_id: evil\r\n";
    for (peer, address, node) in [
        ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("2001:db9::1", "2001:db9::1", "\"[2001:db9::1]\""),
        ("11.0.0.1", "11.0.0.1", "11.0.0.1"),
    ] {
        let head = sent(peer, lies);
        let element = format!("for={node};by=_tidegate;host=\"h:80\";proto=http");
        assert_eq!(all(&head), [vec![address], vec![&element], vec!["http"], vec!["h:80"]], "{peer}");
        assert!(!head.contains("evil") && !head.contains("6.6.6") && !head.contains("666"), "{head}");
        assert!(!head.to_ascii_lowercase().contains("proxy-status"), "{head}");
    }
    // Where the client's address is not known, it is said that it is not.
    let unknown = sent("", lies);
    let element = "for=unknown;by=_tidegate;host=\"h:80\";proto=http";
    assert_eq!(all(&unknown), [vec![], vec![element], vec!["http"], vec!["h:80"]]);
}

/// There are servers (lighttpd, and older ones) to which everything in a name but letters and digits is `_`.
#[test]
fn h10_a_disguise_may_be_any_sign() {
    for sign in "!#$%&'*+.^_`|~".chars() {
        for name in ["X-Forwarded-For", "X-Forwarded-Port", "X-Real-IP", "X-Request-Id", "Proxy-Status"] {
            for name in [name.replace('-', &sign.to_string()), name.replacen('-', &sign.to_string(), 1)] {
                for peer in ["192.0.2.1", "10.1.2.3"] {
                    assert_eq!(sent(peer, &format!("{name}: 6.6.6.6\r\n")), sent(peer, ""), "{name} {peer}");
                }
            }
        }
    }
}

#[test]
fn h10_names_that_only_look_like_it_are_passed_on() {
    for name in
        ["X-Forwarded", "X-Forwarder-For", "X-Real-IPs", "Forwarded-For", "X-Forwardedfor", "Proxy", "X"]
    {
        assert_eq!(values(&sent("192.0.2.1", &format!("{name}: v\r\n")), name), ["v"], "{name}");
    }
}

#[test]
fn h11_a_trusted_proxy_is_believed_and_ours_comes_last() {
    let from = "10.1.2.3";
    let ours = "for=10.1.2.3;by=_tidegate;host=\"h:80\";proto=http";
    let both = sent(
        from,
        "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: site\r\n\
        X-Forwarded-Port: 443\r\nX-Real-IP: 192.0.2.1\r\nX_Forwarded_For: 6.6.6.6\r\nProxy-Status: x\r\n",
    );
    let forwarded = format!("for=192.0.2.1, {ours}");
    assert_eq!(
        all(&both),
        [vec!["192.0.2.1, 10.1.2.3"], vec![&forwarded], vec!["https"], vec!["site"]],
        "{both}"
    );
    assert_eq!(
        (values(&both, "x-forwarded-port"), values(&both, "x-real-ip")),
        (vec!["443"], vec!["192.0.2.1"])
    );
    assert!(!both.contains("6.6.6.6") && !both.contains("Proxy-Status"), "{both}");

    let neither = sent(from, "");
    assert_eq!(all(&neither), [vec!["10.1.2.3"], vec![ours], vec!["http"], vec!["h:80"]]);
    // A chain goes on in the form in which it came.
    let old = sent(from, "X-Forwarded-For: 192.0.2.1\r\n");
    assert_eq!(all(&old)[..2], [vec!["192.0.2.1, 10.1.2.3"], vec![]]);
    let new = sent(from, "Forwarded: for=192.0.2.1\r\n");
    assert_eq!(all(&new)[..2], [vec![], vec![forwarded.as_str()]]);

    let v6 = sent("2001:db8::7", "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=unknown\r\n");
    let forwarded = "for=unknown, for=\"[2001:db8::7]\";by=_tidegate;host=\"h:80\";proto=http";
    assert_eq!(all(&v6)[..2], [vec!["192.0.2.1, 2001:db8::7"], vec![forwarded]]);
    // A peer that came by IPv6 with an IPv4 address is that IPv4 address.
    assert_eq!(
        values(&sent("::ffff:10.0.0.1", "X-Forwarded-For: 1.1.1.1\r\n"), "x-forwarded-for"),
        ["1.1.1.1, 10.0.0.1"]
    );
}

#[test]
fn h11_of_a_list_of_addresses_nothing_is_kept_before_what_is_malformed() {
    for (given, kept) in [
        ("192.0.2.1", "192.0.2.1, "),
        ("192.0.2.1,\t198.51.100.2 ,::1", "192.0.2.1, 198.51.100.2, ::1, "),
        (
            "192.0.2.1:4711, [::1]:80, [2001:db8::5], unknown",
            "192.0.2.1:4711, [::1]:80, [2001:db8::5], unknown, ",
        ),
        ("192.0.2.1\r\nX-Forwarded-For: 192.0.2.2", "192.0.2.1, 192.0.2.2, "),
        ("192.0.2.1, Unknown", "192.0.2.1, Unknown, "),
        ("evil, 192.0.2.1", "192.0.2.1, "),
        ("1.1.1.1, \"x, 192.0.2.1", "192.0.2.1, "),
        ("1.1.1.1, , 192.0.2.1", "192.0.2.1, "),
        ("1.1.1.1\r\nX-Forwarded-For: <x>\r\nX-Forwarded-For: 192.0.2.1", "192.0.2.1, "),
        ("1.1.1.1, evil", ""),
        ("", ""),
        ("1.1.1.256", ""),
        ("1.1.1.1:", ""),
        ("1.1.1.1:123456", ""),
        ("01.1.1.1", ""),
        ("[::1", ""),
        ("[::1]x", ""),
        ("::1%eth0", ""),
        ("_hidden", ""),
        ("1.1.1.1\r\nConnection: x-forwarded-for", ""),
    ] {
        let head = sent("10.0.0.1", &format!("X-Forwarded-For: {given}\r\n"));
        assert_eq!(values(&head, "x-forwarded-for"), [format!("{kept}10.0.0.1")], "{given:?}");
    }
}

#[test]
fn h11_forwarded_is_read_by_its_grammar_and_written_anew() {
    let ours = "for=10.0.0.1;by=_tidegate;host=\"h:80\";proto=http";
    for (given, kept) in [
        ("for=192.0.2.1", "for=192.0.2.1"),
        ("For=\"[2001:db8::1]:80\";PROTO=https", "For=\"[2001:db8::1]:80\";PROTO=https"),
        ("for=192.0.2.1 ; proto=http ,\tfor=_a.B-c", "for=192.0.2.1;proto=http, for=_a.B-c"),
        ("for=unknown;by=_x;host=\"a:1\";proto=http", "for=unknown;by=_x;host=\"a:1\";proto=http"),
        ("for=\"_gazonk:_port\"", "for=\"_gazonk:_port\""),
        // What a grammar writes in quotes is in any case (RFC 5234 section 2.3).
        ("for=Unknown;by=\"UNKNOWN:80\"", "for=Unknown;by=\"UNKNOWN:80\""),
        ("for=1.1.1.1;secret=\"a, \\\"b\\\"; for=x\"", "for=1.1.1.1;secret=\"a, \\\"b\\\"; for=x\""),
        ("for=1.1.1.1\r\nForwarded: for=2.2.2.2", "for=1.1.1.1, for=2.2.2.2"),
        ("for=\"broken\r\nForwarded: for=2.2.2.2", "for=2.2.2.2"),
        ("for=1.1.1.1\r\nForwarded: for=\"broken", ""),
        ("for=\"1.1.1.1, for=2.2.2.2", ""),
        ("for=1.1.1.1:80", ""),
        ("for=[::1]", ""),
        ("for=\"::1\"", ""),
        ("for=evil", ""),
        ("for=_", ""),
        ("for=_a$b", ""),
        ("for=\"1.1.1.1:_\"", ""),
        ("for=\"1.1.1.\\1\"", ""),
        ("for=1.1.1.1;for=2.2.2.2", ""),
        // Empty elements and pairs say nothing.
        ("for=1.1.1.1;", "for=1.1.1.1"),
        ("; ;for=1.1.1.1 ;; proto=http", "for=1.1.1.1;proto=http"),
        ("for=1.1.1.1;,;for=2.2.2.2", "for=1.1.1.1, for=2.2.2.2"),
        ("for=1.1.1.1 proto=http", ""),
        ("for=\"_a\"proto=http", ""),
        ("for=\"_a\"\tproto=http", ""),
        ("for=1.1.1.1,", "for=1.1.1.1"),
        (" ,\t,for=1.1.1.1, ,,for=2.2.2.2 ,", "for=1.1.1.1, for=2.2.2.2"),
        ("for=1.1.1.1\r\nForwarded: \r\nForwarded: for=2.2.2.2", "for=1.1.1.1, for=2.2.2.2"),
        ("for=1.1.1.1\r\nForwarded: , x\r\nForwarded: ,for=2.2.2.2", "for=2.2.2.2"),
        (", ;", ""),
        ("for =1.1.1.1", ""),
        ("for= 1.1.1.1", ""),
        ("for=", ""),
        ("for", ""),
        ("", ""),
        ("host=\"a/b\"", ""),
        ("proto=\"ht tp\"", ""),
        ("proto=1http", ""),
        ("x=\"\\", ""),
        ("for=1.1.1.1\r\nConnection: forwarded", ""),
    ] {
        let head = sent("10.0.0.1", &format!("Forwarded: {given}\r\n"));
        let expected = if kept.is_empty() { ours.to_string() } else { format!("{kept}, {ours}") };
        assert_eq!(values(&head, "forwarded"), [expected], "{given:?}");
        // What was no chain at all does not keep the other one from being begun.
        assert_eq!(values(&head, "x-forwarded-for").len(), usize::from(kept.is_empty()), "{given:?}");
    }
}

#[test]
fn h11_one_sound_scheme_and_host_are_kept() {
    for (given, kept) in [
        ("https", "https"),
        ("wss", "wss"),
        ("https, http", "http"),
        ("https\r\nX-Forwarded-Proto: https", "http"),
        ("", "http"),
        ("\"https\"", "http"),
        ("1s", "http"),
        ("https\r\nConnection: x-forwarded-proto", "http"),
    ] {
        let head = sent("10.0.0.1", &format!("X-Forwarded-Proto: {given}\r\n"));
        assert_eq!(values(&head, "x-forwarded-proto"), [kept], "{given:?}");
    }
    for (given, kept) in [
        ("site:8443", "site:8443"),
        ("[::1]", "[::1]"),
        ("a, b", "h:80"),
        ("a\r\nX-Forwarded-Host: a", "h:80"),
        ("a/b", "h:80"),
        ("", "h:80"),
    ] {
        let head = sent("10.0.0.1", &format!("X-Forwarded-Host: {given}\r\n"));
        assert_eq!(values(&head, "x-forwarded-host"), [kept], "{given:?}");
    }
}

#[test]
fn h12_the_upstreams_proxy_status_reaches_the_client() {
    reaches_the_client("Proxy-Status: inner; error=dns_error\r\nX-Forwarded-For: x\r\nForwarded: x\r\n");
}

#[test]
fn prefixes() {
    let parse = |text: &str| text.parse::<Prefix>();
    for (prefix, inside, outside) in [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
        ("10.0.0.0/8", "::ffff:10.0.0.1", "::10.0.0.1"),
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("192.0.2.0/31", "192.0.2.1", "192.0.2.2"),
        ("0.0.0.0/0", "255.1.2.3", "::1"),
        ("::/0", "ffff::1", "1.2.3.4"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
        ("::1", "::1", "::2"),
        ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"),
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.0"),
    ] {
        let parsed = parse(prefix).unwrap();
        assert!(parsed.contains(inside.parse().unwrap()), "{prefix} {inside}");
        assert!(!parsed.contains(outside.parse().unwrap()), "{prefix} {outside}");
        assert_eq!(parse(&format!("{parsed}")), Ok(parsed));
    }
    for (wrong, why) in [
        ("", PrefixError::Address),
        ("10.0.0/8", PrefixError::Address),
        ("localhost", PrefixError::Address),
        ("10.0.0.0/33", PrefixError::Length),
        ("::/129", PrefixError::Length),
        ("::/256", PrefixError::Length),
        ("10.0.0.0/", PrefixError::Length),
        ("10.0.0.0/+8", PrefixError::Length),
        ("10.0.0.0/8/8", PrefixError::Length),
        ("10.0.0.1/8", PrefixError::HostBits),
        ("::ffff:10.0.0.0/64", PrefixError::HostBits),
        ("2001:db8::1/32", PrefixError::HostBits),
    ] {
        assert_eq!(parse(wrong), Err(why), "{wrong}");
    }
}
