//! A TCP proxy of a test's own, which fails as networks do.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// The condition of the network between the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Fair,
    /// Delays each piece, in both directions.
    Slow(Duration),
    /// Drops the server's replies.
    NoReplies,
    /// Drops the server's replies from that to the first call with this text on.
    NoRepliesTo(&'static str),
    /// Drops everything in both directions.
    BlackHole,
}

/// A proxy between the service and Redis.
pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
    accepting: AbortHandle,
}

struct State {
    weather: Mutex<Weather>,
    /// Connections with a lower number carry no data any more.
    first_alive: AtomicU64,
    next: AtomicU64,
    half_closes: watch::Sender<u64>,
    connections: Mutex<JoinSet<()>>,
}

impl Proxy {
    /// Starts a proxy in front of a port of 127.0.0.1.
    pub(crate) async fn to(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            weather: Mutex::new(Weather::Fair),
            first_alive: AtomicU64::new(0),
            next: AtomicU64::new(0),
            half_closes: watch::Sender::new(0),
            connections: Mutex::default(),
        });
        let accepting = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                let server = SocketAddr::from(([127, 0, 0, 1], server_port));
                loop {
                    let Ok((client, _)) = listener.accept().await else { return };
                    let number = state.next.fetch_add(1, Ordering::Relaxed);
                    let carried = carry(Arc::clone(&state), number, client, server);
                    state.connections.lock().unwrap().spawn(carried);
                }
            }
        });
        Self { port, state, accepting: accepting.abort_handle() }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn set(&self, weather: Weather) {
        *self.state.weather.lock().unwrap() = weather;
    }

    /// Ends all connections at once.
    pub(crate) fn cut(&self) {
        self.state.connections.lock().unwrap().abort_all();
    }

    /// Forgets all connections, as a firewall does: they stay open and carry no data, and new ones
    /// work.
    pub(crate) fn strand(&self) {
        let next = self.state.next.load(Ordering::Relaxed);
        self.state.first_alive.store(next, Ordering::Relaxed);
    }

    pub(crate) fn strand_all_but_the_last(&self) {
        let next = self.state.next.load(Ordering::Relaxed);
        self.state.first_alive.store(next - 1, Ordering::Relaxed);
    }

    /// Closes the server's half of all connections, and still accepts what clients send.
    pub(crate) fn half_close(&self) {
        self.state.half_closes.send_modify(|times| *times += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn carry(state: Arc<State>, number: u64, client: TcpStream, server: SocketAddr) {
    let mut half_closes = state.half_closes.subscribe();
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let has_made_call = AtomicBool::new(false);
    let way = |are_replies| Way { number, are_replies, has_made_call: &has_made_call };
    let replies = async {
        let mut to_client = to_client;
        tokio::select! {
            () = pass(&state, way(true), from_server, &mut to_client) => {}
            _ = half_closes.changed() => {
                let _ = to_client.shutdown().await;
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        () = pass(&state, way(false), from_client, to_server) => {}
        () = replies => {}
    }
}

/// One direction of a connection.
struct Way<'a> {
    number: u64,
    are_replies: bool,
    /// True once the client has made a call of [`Weather::NoRepliesTo`].
    has_made_call: &'a AtomicBool,
}

/// Copies bytes until either side ends.
async fn pass(
    state: &State,
    way: Way<'_>,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) {
    let Way { number, are_replies, has_made_call } = way;
    let mut bytes = vec![0; 65_536];
    let mut has_lost = false;
    loop {
        let Ok(count @ 1..) = from.read(&mut bytes).await else { return };
        let weather = *state.weather.lock().unwrap();
        let is_stranded = number < state.first_alive.load(Ordering::Relaxed);
        if let Weather::NoRepliesTo(text) = weather
            && !are_replies
            && contains(&bytes[..count], text)
        {
            has_made_call.store(true, Ordering::Relaxed);
        }
        // A connection that has lost data carries no more data after that.
        has_lost |= is_stranded
            || weather == Weather::BlackHole
            || (weather == Weather::NoReplies && are_replies)
            || (are_replies && has_made_call.load(Ordering::Relaxed));
        if has_lost {
            continue;
        }
        if let Weather::Slow(delay) = weather {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
