//! Connections: a bounded number, of clients that say what they want and read what they are told. HTTP/1.1 only.
//!
//! * beyond [`Limits::connections`] further ones wait to be accepted. One address has [`Limits::each`] of them, and what it opens beyond these is
//!   closed: a stranger leaves places to others;
//! * who has not sent the whole head of a request after [`Limits::head`] is closed, also between two requests;
//! * who lets writes of an answer wait for [`Limits::stalled`] in sum before [`Limits::least`] of it are taken is closed, and what works for the
//!   answer ends with it. The kernel has little on its way ([`listen`]): it lets a write go on when a third of that is gone, and with the megabytes
//!   that it would have otherwise that takes minutes of a steady reader of 20 kB/s. So it does of one of 6 kB/s, who is closed. Less would slow down who is far away. A stream of events lasts as long as its client reads the comments that keep it alive;
//! * bodies of requests are read by handlers, which have a limit on time ([`crate::middleware`]).

use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep};

use crate::places::Places;

/// Bytes that the kernel has on their way to a client; it takes twice as much for them.
const SENT: u32 = 512 << 10;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at the same time.
    pub(crate) connections: u32,
    /// Of these from one address, which may be a proxy's.
    pub(crate) each: usize,
    /// Until the head of a request is there.
    pub(crate) head: Duration,
    /// How long writes may wait until [`Self::least`] is taken.
    pub(crate) stalled: Duration,
    /// Bytes that make good for what waited.
    pub(crate) least: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            each: 192,
            head: Duration::from_secs(30),
            stalled: Duration::from_mins(1),
            least: 64 << 10,
        }
    }
}

/// Listens; connections have what the listener has.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SENT)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `shutdown` ends, then lets open requests finish.
pub(crate) async fn serve(
    mut listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(limits.connections as usize));
    let addresses = Places::new();
    let (stop, stopped) = watch::channel(());
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            // It says itself what cannot be accepted, and tries again.
            (place, Listener::accept(&mut listener).await)
        };
        let (place, client) = tokio::select! {
            () = &mut shutdown => break,
            next = next => next,
        };
        let Ok(place) = place else { break };
        let Some(address) = Places::place(&addresses, network(client.1.ip()), limits.each) else { continue };
        let (router, stopped) = (router.clone(), stopped.clone());
        tokio::spawn(async move {
            answer(client, router, limits, stopped).await;
            drop((address, place));
        });
    }
    drop(listener);
    let _ = stop.send(());
    // All have ended when all places are free.
    let _ = places.acquire_many(limits.connections).await;
}

/// Answers one client until it goes, or until it is told to stop and the request at hand is answered.
async fn answer(
    (stream, peer): (TcpStream, SocketAddr),
    router: Router,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    let stream = TokioIo::new(Attended::new(stream, limits));
    let mut http = http1::Builder::new();
    let connection = http.timer(TokioTimer::new()).header_read_timeout(limits.head).serve_connection(stream, service);
    let mut connection = pin!(connection);
    // How a connection ends is the client's affair.
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Whose places an address takes: one of IPv6 is of a network of 64 bits, which one host has.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// A connection that fails if writes wait too long for what is taken meanwhile.
struct Attended<S> {
    stream: S,
    limits: Limits,
    /// Since when a write waits, and the end of patience with it.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Patience that is left until enough is taken.
    left: Duration,
    /// Bytes that were taken of it.
    taken: usize,
}

impl<S> Attended<S> {
    fn new(stream: S, limits: Limits) -> Self {
        Self { stream, limits, waiting: None, left: limits.stalled, taken: 0 }
    }

    fn attend<T>(&mut self, done: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            if let Some((since, _)) = self.waiting.take() {
                self.left = self.left.saturating_sub(since.elapsed());
            }
            return done;
        }
        let left = self.left;
        let (_, end) = self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
        ready!(end.as_mut().poll(context));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }

    fn attend_write(&mut self, written: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let attended = self.attend(written, context);
        if let Poll::Ready(Ok(bytes)) = &attended {
            self.taken += bytes;
            if self.taken >= self.limits.least {
                (self.left, self.taken) = (self.limits.stalled, 0);
            }
        }
        attended
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Attended<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Attended<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let own = self.get_mut();
        let written = Pin::new(&mut own.stream).poll_write(context, bytes);
        own.attend_write(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let own = self.get_mut();
        let written = Pin::new(&mut own.stream).poll_write_vectored(context, parts);
        own.attend_write(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        let flushed = Pin::new(&mut own.stream).poll_flush(context);
        own.attend(flushed, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        let ended = Pin::new(&mut own.stream).poll_shutdown(context);
        own.attend(ended, context)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, Bytes};
    use axum::response::sse::{Event, KeepAlive, Sse};
    use axum::routing::get;
    use futures_util::stream;
    use std::convert::Infallible;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{mpsc, oneshot};
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);
    const PATIENCE: Duration = Duration::from_secs(20);
    const LIMITS: Limits = Limits { connections: 2, each: 2, head: PATIENCE, stalled: PATIENCE, least: 1 };

    struct Server {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        done: JoinHandle<()>,
    }

    impl Server {
        fn start(limits: Limits, router: Router) -> Self {
            let listener = listen(([127, 0, 0, 1], 0).into()).expect("a socket");
            let address = listener.local_addr().expect("its address");
            let (stop, stopped) = oneshot::channel::<()>();
            let done = tokio::spawn(serve(listener, router, limits, async {
                let _ = stopped.await;
            }));
            Self { address, stop, done }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.expect("a connection")
        }

        async fn ask(&self, path: &str) -> TcpStream {
            let mut stream = self.connect().await;
            let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("it is sent");
            stream
        }
    }

    /// Reads until there is `text`.
    async fn read_until(stream: &mut TcpStream, text: &str) {
        let read = async {
            let mut all = String::new();
            while !all.contains(text) {
                let byte = stream.read_u8().await.unwrap_or_else(|error| panic!("{error} after {all:?}"));
                all.push(char::from(byte));
            }
        };
        timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("no {text:?}"));
    }

    async fn is_closed(mut stream: TcpStream) {
        let mut rest = Vec::new();
        // A reset is as good an end as another.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it is closed");
    }

    fn hello() -> Router {
        Router::new()
            .route("/", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { format!("hello {peer}") }))
    }

    #[tokio::test]
    async fn who_says_nothing_is_closed() {
        let server = Server::start(Limits { head: SHORT, ..LIMITS }, hello());
        is_closed(server.connect().await).await;
        let mut slow = server.connect().await;
        slow.write_all(b"GET / HTTP/1.1\r\nhost: lo").await.expect("it is sent");
        is_closed(slow).await;
        let mut idle = server.ask("/").await;
        let own = idle.local_addr().expect("its address");
        read_until(&mut idle, &format!("hello {own}")).await;
        is_closed(idle).await;
    }

    #[tokio::test]
    async fn connections_are_bounded_and_the_next_ones_wait() {
        let server = Server::start(LIMITS, hello());
        let (first, second) = (server.connect().await, server.connect().await);
        let mut third = server.ask("/").await;
        let nothing = timeout(SHORT, third.read_u8()).await;
        assert!(nothing.is_err(), "{nothing:?}: there are only two");
        drop(first);
        read_until(&mut third, "hello").await;
        drop(second);
    }

    #[tokio::test]
    async fn one_address_leaves_places_to_others() {
        let server = Server::start(Limits { each: 1, ..LIMITS }, hello());
        let mut first = server.ask("/").await;
        read_until(&mut first, "hello").await;
        is_closed(server.connect().await).await;
        let other = TcpSocket::new_v4().expect("a socket");
        other.bind(([127, 0, 0, 2], 0).into()).expect("another address of this host");
        let mut other = other.connect(server.address).await.expect("a connection");
        other.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("it is sent");
        read_until(&mut other, "hello").await;
        drop(first);
        drop(other);
        let mut again = server.ask("/").await;
        while timeout(PATIENCE, again.read_u8()).await.expect("an end").is_err() {
            again = server.ask("/").await;
        }
    }

    /// What is sent is the answer to one request.
    fn long_answer() -> (mpsc::Sender<Bytes>, Router) {
        let (sender, chunks) = mpsc::channel(1);
        let body = stream::unfold(chunks, |mut chunks: mpsc::Receiver<Bytes>| async move {
            let chunk = chunks.recv().await?;
            Some((Ok::<_, Infallible>(chunk), chunks))
        });
        let body = Arc::new(Mutex::new(Some(Body::from_stream(body))));
        let answer = get(move || async move { body.lock().expect("one").take().expect("asked once") });
        (sender, Router::new().route("/", answer))
    }

    #[tokio::test]
    async fn an_answer_begins_before_its_first_byte_and_ends_when_its_client_goes() {
        let (sender, router) = long_answer();
        let server = Server::start(LIMITS, router);
        let mut stream = server.ask("/").await;
        read_until(&mut stream, "200 OK").await;
        drop(stream);
        timeout(PATIENCE, sender.closed()).await.expect("there was nothing to write, and yet it is seen");
    }

    #[tokio::test]
    async fn who_does_not_read_is_closed_and_the_answer_ends() {
        let (sender, router) = long_answer();
        let server = Server::start(Limits { stalled: SHORT, ..LIMITS }, router);
        let stream = server.ask("/").await;
        let all = async { while sender.send(Bytes::from(vec![0; 1 << 16])).await.is_ok() {} };
        timeout(PATIENCE, all).await.expect("nobody makes what nobody reads");
        drop(stream);
    }

    #[tokio::test]
    async fn who_reads_a_little_now_and_then_is_closed_too() {
        let (sender, router) = long_answer();
        let server = Server::start(Limits { stalled: SHORT, least: 1 << 30, ..LIMITS }, router);
        let mut stream = server.ask("/").await;
        let all = async { while sender.send(Bytes::from(vec![0; 1 << 16])).await.is_ok() {} };
        let reading = async {
            let mut bytes = vec![0; 1 << 18];
            loop {
                // The end, or what was sent before it, is the affair of the other side.
                if !matches!(stream.read(&mut bytes).await, Ok(1..)) {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(SHORT / 8).await;
            }
        };
        let both = async {
            tokio::select! {
                () = all => {}
                () = reading => {}
            }
        };
        timeout(PATIENCE, both).await.expect("nobody makes what is not read in time");
    }

    #[tokio::test]
    async fn who_reads_slowly_and_steadily_is_not_closed() {
        let (sender, router) = long_answer();
        let limits = Limits { stalled: Duration::from_millis(1500), least: 1 << 16, ..LIMITS };
        let server = Server::start(limits, router);
        let mut stream = server.ask("/").await;
        let all = async { while sender.send(Bytes::from(vec![0; 1 << 16])).await.is_ok() {} };
        let reading = async {
            let mut bytes = vec![0; 1 << 15];
            for _ in 0..80 {
                stream.read_exact(&mut bytes).await.expect("it goes on");
                sleep(Duration::from_millis(60)).await;
            }
        };
        tokio::select! {
            () = all => panic!("it was closed"),
            () = reading => {}
        }
    }

    #[tokio::test]
    async fn a_stream_of_events_lasts_longer_than_patience() {
        let events = get(|| async {
            let silence = stream::pending::<Result<Event, Infallible>>();
            Sse::new(silence).keep_alive(KeepAlive::new().interval(SHORT / 4))
        });
        let limits = Limits { head: SHORT, stalled: SHORT, ..LIMITS };
        let server = Server::start(limits, Router::new().route("/", events));
        let mut stream = server.ask("/").await;
        for _ in 0..12 {
            read_until(&mut stream, ":\n\n").await;
        }
    }

    #[tokio::test]
    async fn a_stop_lets_requests_finish() {
        let (begun, mut begins) = mpsc::channel::<()>(1);
        let (go_on, goes_on) = watch::channel(());
        let slow = get(move || async move {
            let _ = begun.send(()).await;
            let _ = goes_on.clone().changed().await;
            "the end"
        });
        let server = Server::start(LIMITS, Router::new().route("/", slow));
        let mut stream = server.ask("/").await;
        begins.recv().await.expect("it is asked");
        server.stop.send(()).expect("it runs");
        let mut done = server.done;
        assert!(timeout(SHORT, &mut done).await.is_err(), "a request is open");
        go_on.send(()).expect("somebody waits");
        read_until(&mut stream, "the end").await;
        timeout(PATIENCE, done).await.expect("it stops").expect("well");
        assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens");
    }
}
