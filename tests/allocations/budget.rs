//! The budget of memory for a POST: allocations cost more of a request's time than anything that
//! it computes. The allocator counts for the whole process, so each store has a binary.

use std::{
    alloc::System,
    fs,
    future::pending,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use anomaly_counter::{
    app::{Application, Prepared},
    config::LoadedConfig,
    counter::SystemClock,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tempfile::TempDir;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Number of clients. They post at the same time, so that a batch has several occurrences: the
/// embedded store's file allocates memory for each batch.
const CLIENTS: usize = 64;
/// Number of tries, of which the best counts: on a busy machine batches are small, and the
/// service's periodic work falls into some tries.
const TRIES: usize = 10;
const ROUNDS: usize = 10;
/// Rounds before the measurement, after which the maps that grow with use have their size.
const WARM_UP_ROUNDS: usize = 10;

/// The budget of a POST.
pub(crate) struct Budget {
    pub(crate) allocations: usize,
    pub(crate) bytes: usize,
}

/// The parts of a body before and after the number that makes each body different.
struct Template {
    kind: &'static str,
    before: String,
    behind: String,
    /// True if the number is that of the client, and not of the request.
    is_of_client: bool,
}

impl Template {
    fn anomaly_of_each_client() -> Self {
        let before = r#"{"alert_name":"HighLoad","namespace":"shop","service":"api-"#.to_owned();
        let behind = r#"","pod":"api-1"}"#.to_owned();
        Self { kind: "an anomaly of each client", before, behind, is_of_client: true }
    }

    fn one_anomaly() -> Self {
        let before = r#"{"alert_name":"HighCPU","service":"api","namespace":"shop","pod":"api-"#;
        let (before, behind) = (before.to_owned(), "\"}".to_owned());
        Self { kind: "one anomaly", before, behind, is_of_client: false }
    }

    fn with_id_and_time() -> Self {
        let before = r#"{"alert_name":"HighMemory","service":"api","event_id":"deploy-"#.to_owned();
        let at = SystemClock.now().minus_seconds(60);
        let behind = format!("\",\"occurred_at\":\"{at}\"}}");
        Self { kind: "one anomaly, with id and time", before, behind, is_of_client: false }
    }
}

struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Box<[u8; 4096]>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, request: Vec::with_capacity(4096), answer: Box::new([0; 4096]) }
    }

    /// Sends a POST without allocating.
    fn send(&mut self, number: usize, Template { before, behind, .. }: &Template) {
        let length = before.len() + 8 + behind.len();
        self.request.clear();
        write!(
            self.request,
            "POST /anomalies HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{before}{number}{behind}"
        )
        .unwrap();
        self.stream.write_all(&self.request).unwrap();
    }

    /// Reads an answer without allocating.
    fn receive(&mut self) {
        let mut read = 0;
        // An answer ends with a newline.
        while !self.answer[..read].ends_with(b"}\n") {
            let length = self.stream.read(&mut self.answer[read..]).unwrap();
            assert_ne!(length, 0, "the connection is closed");
            read += length;
        }
        let answer = &self.answer[..read];
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(answer));
    }
}

/// Runs a service in this process, and measures its POSTs.
pub(crate) fn check(budget: &Budget, redis_url: Option<&str>) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("config.toml");
    let data_dir = dir.path().join("data");
    let redis = redis_url.map(|url| format!("[redis]\nurl = {url:?}\n")).unwrap_or_default();
    fs::write(&file, format!("listen = \"127.0.0.1:0\"\ndata_dir = {data_dir:?}\n{redis}"))
        .unwrap();
    let config = LoadedConfig::load(Some(&file)).unwrap().config;
    let (prepared, traces) = Prepared::new(&config).unwrap();
    let runtime = Runtime::new().unwrap();
    let address = runtime.block_on(async {
        let application = Application::build(&config, prepared).await.unwrap();
        let hangups = signal(SignalKind::hangup()).unwrap();
        let address = application.address();
        tokio::spawn(application.run(pending(), hangups));
        address
    });
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::connect(address)).collect();
    let mut number = 10_000_000;
    let first = number;
    let templates =
        [Template::anomaly_of_each_client(), Template::one_anomaly(), Template::with_id_and_time()];
    for template in &templates {
        let kind = template.kind;
        let mut post = |rounds| {
            for _ in 0..rounds {
                for (index, client) in clients.iter_mut().enumerate() {
                    number += 1;
                    let number = if template.is_of_client { first + index } else { number };
                    client.send(number, template);
                }
                clients.iter_mut().for_each(Client::receive);
            }
        };
        post(WARM_UP_ROUNDS);
        let mut tries = (0..TRIES).map(|_| {
            let region = Region::new(ALLOCATOR);
            post(ROUNDS);
            let used = region.change();
            let posts = ROUNDS * CLIENTS;
            ((used.allocations + used.reallocations) / posts, used.bytes_allocated / posts)
        });
        let first = tries.next().unwrap();
        let (allocations, bytes) =
            tries.fold(first, |best, other| (best.0.min(other.0), best.1.min(other.1)));
        println!("{kind}: {allocations} allocations and {bytes} bytes a POST");
        assert!(allocations <= budget.allocations, "{kind}: {allocations} allocations");
        assert!(bytes <= budget.bytes, "{kind}: {bytes} bytes");
    }
    drop(runtime);
    traces.end();
}
