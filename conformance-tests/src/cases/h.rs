//! H: hygiene. Every case checks that sockets, connections and tasks are back where
//! they were when it is over; H-01 looks earlier, at the moment of the outcome, for every kind of
//! deadline and every framing of a body.

use tidegate_core::DeadlineKind::{
    self, ClientBody, ClientHead, ClientWrite, Connect, Drain, Queue, Read, Total, Tunnel, TunnelFin, Write,
};

use super::BIG;
use super::u::{switch, upgrade};
use crate::expect::*;
use crate::script::{Case, Command, Script, Upstream, ms, script};
use crate::transcript::End;

/// How a body is framed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// No body.
    None,
    /// Content-Length.
    Length,
    /// Chunks.
    Chunked,
    /// To the end of the connection (responses only).
    Close,
}

use BodyFraming::{Chunked, Close, Length};

/// A message head for a body of this framing.
fn head(start: &str, framing: BodyFraming) -> Script {
    let field = match framing {
        BodyFraming::None => "",
        Length => "\ncontent-length: 1099511627776",
        Chunked => "\ntransfer-encoding: chunked",
        Close => "\nconnection: close",
    };
    script().head(&format!("{start}{field}"))
}

fn request(framing: BodyFraming) -> Script {
    head("POST / HTTP/1.1\nhost: conformance", framing)
}

fn response(framing: BodyFraming) -> Script {
    head("HTTP/1.1 200 OK", framing)
}

/// The first `len` bytes of such a body.
fn part(framing: BodyFraming, len: u64) -> Script {
    const CHUNK: u64 = 1 << 20;
    match framing {
        BodyFraming::None => script(),
        Length | Close => script().body(len),
        Chunked if len > CHUNK => {
            (0..len / CHUNK).fold(script(), |s, _| s.chunk(usize::try_from(CHUNK).unwrap_or(usize::MAX)))
        }
        Chunked => script().chunk(usize::try_from(len).unwrap_or(usize::MAX)),
    }
}

/// A whole small body.
fn whole(start: &str, framing: BodyFraming) -> Script {
    match framing {
        Chunked => head(start, Chunked).chunk(5).last_chunk(),
        _ => script().head(&format!("{start}\ncontent-length: 5")).body(5),
    }
}

fn h_01(title: &'static str, kind: DeadlineKind) -> Case {
    Case::new("H-01", title)
        .expect(snapshot("outcome", 0, 0))
        .expect(timeout(0, kind, None))
        .expect(outcomes(1))
}

/// The client looks at the proxy's upstream connections when it holds the first byte of the answer.
fn looks_at_the_answer() -> Script {
    script().read_some().snapshot("outcome").read_to_end()
}

/// The client looks when its connection has ended.
fn looks_at_the_end() -> Script {
    script().read_to_end().snapshot("outcome")
}

fn connect(title: &'static str, framing: BodyFraming) -> Case {
    h_01(title, Connect)
        .upstream_is(Upstream::FullBacklog { freed_by: None })
        .client(script().connect().then(request(framing)).then(part(framing, 10)).then(looks_at_the_answer()))
}

/// The wait for an upstream that takes nobody.
fn queue(title: &'static str, framing: BodyFraming) -> Case {
    h_01(title, Queue)
        .max_conns(0)
        .client(script().connect().then(request(framing)).then(part(framing, 10)).then(looks_at_the_answer()))
        .expect(status(0, 0, 503))
        .expect(attempts(0, 0))
        .expect(accepted(0))
}

fn write(title: &'static str, framing: BodyFraming) -> Case {
    h_01(title, Write)
        // Full at once, so that at the limit it is the upstream that is waited for.
        .small_buffers()
        .upstream(script().wait_for("over").read_to_end())
        .expect(upstream_end(0, End::Rst))
        .client(
            script()
                .connect()
                .then(request(framing))
                .background(part(framing, BIG))
                .then(looks_at_the_answer())
                .mark("over"),
        )
}

fn client_body(title: &'static str, framing: BodyFraming) -> Case {
    h_01(title, ClientBody)
        .upstream(script().read_to_end())
        .expect(upstream_end(0, End::Rst))
        .client(script().connect().then(request(framing)).then(part(framing, 10)).then(looks_at_the_answer()))
}

fn read(title: &'static str, framing: BodyFraming) -> Case {
    h_01(title, Read)
        .upstream(script().read_message().then(response(framing)).then(part(framing, 10)).read_to_end())
        .expect(upstream_end(0, End::Rst))
        .client(script().connect().get("/").then(looks_at_the_end()))
}

fn total(title: &'static str, framing: BodyFraming) -> Case {
    h_01(title, Total)
        .policy(|p| p.total = Some(ms(100)))
        .upstream(script().read_message().then(response(framing)).then(part(framing, 10)).read_to_end())
        .expect(upstream_end(0, End::Rst))
        .client(script().connect().get("/").then(looks_at_the_end()))
}

fn drain(title: &'static str, framing: BodyFraming) -> Case {
    h_01(title, Drain)
        .patient()
        .policy(|p| p.drain = Some(ms(100)))
        .command("drain", Command::Drain)
        .upstream(script().read_message().then(response(framing)).then(part(framing, 10)).read_to_end())
        .expect(upstream_end(0, End::Rst))
        .client(script().connect().get("/").read_body(10).mark("drain").then(looks_at_the_end()))
}

fn client_write(title: &'static str, framing: BodyFraming) -> Case {
    h_01(title, ClientWrite)
        .upstream(script().read_message().then(response(framing)).then(part(framing, BIG)).read_to_end())
        .expect(upstream_end(0, End::Rst))
        .client(
            script()
                .connect()
                .get("/")
                .read_head()
                .wait_until("let go", 0, 0)
                .snapshot("outcome")
                .read_to_end(),
        )
        .expect(client_end(0, End::Rst))
}

/// Idle limits are no failures: the request was a success, and the proxy closes with FIN.
fn keep_alive(title: &'static str, framing: BodyFraming) -> Case {
    Case::new("H-01", title)
        .policy(|p| p.pool_idle = Some(ms(50)))
        .upstream(script().read_message().then(whole("HTTP/1.1 200 OK", framing)).read_to_end())
        .client(
            script()
                .connect()
                .mark("asks")
                .then(whole("POST / HTTP/1.1\nhost: conformance", framing))
                .read_message()
                .then(looks_at_the_end()),
        )
        .expect(status(0, 0, 200))
        .expect(success(0))
        .expect(client_end(0, End::Fin))
        .expect(window(Moment::Mark("asks"), Moment::ClientEnd(0), ms(150)))
        .expect(snapshot("outcome", 0, 0))
        .expect(outcomes(1))
}

fn pool_idle(title: &'static str, framing: BodyFraming) -> Case {
    Case::new("H-01", title)
        .upstream(
            script()
                .read_message()
                .mark("answers")
                .then(whole("HTTP/1.1 200 OK", framing))
                .read_to_end()
                .snapshot("outcome"),
        )
        .client(script().connect().then(whole("POST / HTTP/1.1\nhost: conformance", framing)).read_message())
        .expect(status(0, 0, 200))
        .expect(success(0))
        .expect(upstream_end(0, End::Fin))
        .expect(window(Moment::Mark("answers"), Moment::UpstreamEnd(0), ms(150)))
        .expect(snapshot("outcome", 0, 0))
        .expect(outcomes(1))
}

macro_rules! matrix {
    ($($name:ident = $make:ident($title:literal, $framing:expr);)*) => {
        $(
            #[doc = concat!("When the outcome is known, no upstream socket is left: ", $title, ".")]
            pub fn $name() -> Case {
                $make($title, $framing)
            }
        )*
    };
}

matrix! {
    h_01_queue_without_a_body = queue("queue, without a body", BodyFraming::None);
    h_01_queue_content_length = queue("queue, Content-Length", Length);
    h_01_queue_chunked = queue("queue, chunked", Chunked);
    h_01_connect_without_a_body = connect("connect, without a body", BodyFraming::None);
    h_01_connect_content_length = connect("connect, Content-Length", Length);
    h_01_connect_chunked = connect("connect, chunked", Chunked);
    h_01_write_content_length = write("write, Content-Length", Length);
    h_01_write_chunked = write("write, chunked", Chunked);
    h_01_client_body_content_length = client_body("client body, Content-Length", Length);
    h_01_client_body_chunked = client_body("client body, chunked", Chunked);
    h_01_read_content_length = read("read, Content-Length", Length);
    h_01_read_chunked = read("read, chunked", Chunked);
    h_01_read_close_delimited = read("read, close-delimited", Close);
    h_01_total_content_length = total("total, Content-Length", Length);
    h_01_total_chunked = total("total, chunked", Chunked);
    h_01_total_close_delimited = total("total, close-delimited", Close);
    h_01_drain_content_length = drain("drain, Content-Length", Length);
    h_01_drain_chunked = drain("drain, chunked", Chunked);
    h_01_drain_close_delimited = drain("drain, close-delimited", Close);
    h_01_client_write_content_length = client_write("client write, Content-Length", Length);
    h_01_client_write_chunked = client_write("client write, chunked", Chunked);
    h_01_client_write_close_delimited = client_write("client write, close-delimited", Close);
    h_01_keep_alive_content_length = keep_alive("keep-alive, Content-Length", Length);
    h_01_keep_alive_chunked = keep_alive("keep-alive, chunked", Chunked);
    h_01_pool_idle_content_length = pool_idle("pool idle, Content-Length", Length);
    h_01_pool_idle_chunked = pool_idle("pool idle, chunked", Chunked);
}

/// When the outcome is known, no upstream socket is left: client head, which has no body yet.
pub fn h_01_client_head() -> Case {
    h_01("client head", ClientHead)
        .client(script().connect().bytes("POST / HTTP/1.1\r\n").then(looks_at_the_answer()))
        .expect(accepted(0))
}

/// When the outcome is known, no upstream socket is left: a tunnel, whose body has no framing.
pub fn h_01_tunnel() -> Case {
    h_01("tunnel", Tunnel)
        .patient()
        .policy(|p| p.tunnel = Some(ms(100)))
        .upstream(switch().read_body(10).read_to_end())
        .client(script().connect().then(upgrade()).read_head().body(10).then(looks_at_the_end()))
        .expect(client_end(0, End::Fin))
        .expect(upstream_end(0, End::Fin))
}

/// Likewise one of which a half is closed, and the other silent.
pub fn h_01_half_closed_tunnel() -> Case {
    h_01("half-closed tunnel", TunnelFin)
        .patient()
        .policy(|p| p.tunnel_fin = Some(ms(100)))
        .upstream(switch().read_to_end().hold())
        .client(script().connect().then(upgrade()).read_head().fin().then(looks_at_the_end()))
        .expect(client_end(0, End::Fin))
        .expect(upstream_end(0, End::Fin))
}

/// The upstream connection is closed before the first byte of the 504 is written: in the proxy's own
/// order of events, and in the kernel's table when the client holds that byte.
pub fn h_02_order() -> Case {
    Case::new("H-02", "order")
        .logged()
        .upstream(script().read_to_end())
        .client(script().connect().get("/").read_some().snapshot("first byte").read_message())
        .expect(status(0, 0, 504))
        .expect(ordered("upstream 0: closed", "client 0: first write"))
        .expect(snapshot("first byte", 0, 0))
        .expect(upstream_end(0, End::Rst))
}
