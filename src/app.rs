//! The application: checks the configuration, opens the store, starts the counter, listens, and
//! stops in order.

use std::{
    fs,
    future::Future,
    io::{self, ErrorKind},
    net::SocketAddr,
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, signal::unix::Signal, task::JoinHandle, time};

use crate::{
    auth::{AuthConfigError, Authenticator},
    config::{Config, ListenAddress},
    counter::{Counter, CounterConfig, SystemClock, TrustedClock},
    http::{self, AppState, Exposure, HttpConfig, HttpService, SharedState, Tls, TlsError},
    redb_file::folder_text,
    rules::{Rules, RulesError},
    spool::{SPOOL_FILE_NAME, SpoolOpenError},
    store::{
        EMBEDDED_FILE_NAME, EmbeddedOpenError, EmbeddedStore, RedisExamination, RedisReport,
        RedisStore, RedisTlsError, Store, StoreError,
    },
    telemetry::{self, Recorder},
    traces::{Traces, TracesError},
};

/// Interval of [`Counter::maintain`], which also reads the clock: often enough to notice that the
/// clock was set.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// Minimum time for closing the store and the spool, even if requests have used all of
/// `http.shutdown_timeout_seconds`.
const MIN_CLOSE_TIME: Duration = Duration::from_secs(1);

/// The service, ready to run.
#[derive(Debug)]
pub struct Application {
    listener: TcpListener,
    address: SocketAddr,
    service: Arc<HttpService>,
    counter: Arc<Counter>,
    authenticator: Arc<Authenticator>,
    recorder: Arc<Recorder>,
    tls: Option<Arc<Tls>>,
    limits: HttpConfig,
}

/// The reason why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The name in `listen` resolves to no address.
    #[error(
        "the address of `listen` ({listen}) can't be resolved: {source}. Use a name that this \
         machine can resolve, or an address such as 127.0.0.1:8080"
    )]
    Resolve {
        /// The configured address.
        listen: ListenAddress,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The operating system refused to listen on the address.
    #[error(
        "can't listen on {address}: {source}. {}set another `listen` (ANOMALY_COUNTER__LISTEN)",
        listen_advice(source)
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The data directory, or a file in it, can't be written.
    #[error("{}", folder_text(dir, source))]
    DataDir {
        /// The configured folder.
        dir: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Traces can't be sent as configured.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// The configuration would let in nobody, or everybody.
    #[error(transparent)]
    Auth(#[from] AuthConfigError),
    /// The TLS configuration can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The embedded store can't be opened.
    #[error(transparent)]
    Store(#[from] EmbeddedOpenError),
    /// The TLS configuration of Redis can't be used.
    #[error(transparent)]
    RedisTls(#[from] RedisTlsError),
    /// The rules can't be used.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The spool can't be opened.
    #[error(transparent)]
    Spool(#[from] SpoolOpenError),
    /// The process has a metrics recorder already.
    #[error("metrics can't be recorded: {0}")]
    Telemetry(#[from] metrics_exporter_prometheus::BuildError),
    /// Opening the store or the spool was aborted.
    #[error("opening the store or the spool was aborted: {0}")]
    Aborted(#[from] tokio::task::JoinError),
}

/// Returns what to do, unless another address is the only way.
fn listen_advice(source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::AddrInUse => "Stop the process that listens there, or ",
        ErrorKind::AddrNotAvailable => "This machine does not have the address: ",
        ErrorKind::PermissionDenied => "Permit the service to use the port, or ",
        _ => "Fix that, or ",
    }
}

/// The parts of the configuration that a start needs and the command `check-config` tries. One
/// function makes both, so that a configuration that passes the check also starts.
#[derive(Debug)]
pub struct Prepared {
    listen: Vec<SocketAddr>,
    authenticator: Authenticator,
    tls: Option<Tls>,
    rules: Rules,
    redis: Option<RedisExamination>,
}

impl Prepared {
    /// Applies the configuration as far as that needs neither the port nor the store. Leaves
    /// nothing on the disk. Starts the traces: both this call and their end must be outside of a
    /// runtime.
    ///
    /// # Errors
    /// Fails if a value or a file can't be used.
    pub fn new(config: &Config) -> Result<(Self, Traces), StartError> {
        let listen = config.listen.resolve();
        let listen = listen
            .map_err(|source| StartError::Resolve { listen: config.listen.clone(), source })?;
        let data_dir = &config.data_dir;
        let now = SystemClock.now();
        let auth = config.auth.clone();
        let authenticator = Authenticator::open(auth, listen.clone(), data_dir, now)?;
        let tls = Tls::load(&config.tls)?;
        let rules = Rules::load(config.rules.clone(), config.thresholds, now)?;
        let redis = match &config.redis.url {
            Some(url) => Some(RedisExamination::new(&config.redis, config.recording(), url)?),
            None => None,
        };
        let file = if redis.is_some() { SPOOL_FILE_NAME } else { EMBEDDED_FILE_NAME };
        must_be_writable(data_dir, file)
            .map_err(|source| StartError::DataDir { dir: data_dir.clone(), source })?;
        let traces = Traces::start(&config.traces)?;
        Ok((Self { listen, authenticator, tls, rules, redis }, traces))
    }

    /// Returns the rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Reads the embedded store's file without changing it, unless another process has it open.
    ///
    /// # Errors
    /// Fails if a start could not open it.
    pub fn try_store(&self, config: &Config) -> Result<(), StartError> {
        if self.redis.is_none() {
            EmbeddedStore::try_open(&config.data_dir)?;
        }
        Ok(())
    }

    /// Checks whether Redis can be used; `None` if none is configured.
    pub async fn examine_redis(&self) -> Option<Result<RedisReport, StoreError>> {
        let redis = self.redis.as_ref()?;
        Some(redis.run().await)
    }
}

/// Creates and removes a file in `dir`, and the folders that are missing. Opens `file` in it for
/// writing if it exists.
fn must_be_writable(dir: &Path, file: &str) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut folder = dir;
    while !folder.as_os_str().is_empty() && !folder.try_exists()? {
        missing.push(folder);
        let Some(parent) = folder.parent() else { break };
        folder = parent;
    }
    let written = fs::create_dir_all(dir).and_then(|()| {
        let probe = dir.join(format!(".writable-{}", process::id()));
        fs::write(&probe, "")?;
        fs::remove_file(&probe)?;
        match fs::File::options().read(true).write(true).open(dir.join(file)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(io::Error::new(error.kind(), format!("{file}: {error}")))
            }
            _ => Ok(()),
        }
    });
    for folder in missing {
        // The innermost folder first. A folder in which another process has put a file stays.
        let _ = fs::remove_dir(folder);
    }
    written
}

/// Listens on the first of the addresses that this machine has.
async fn listener(addresses: &[SocketAddr]) -> Result<TcpListener, StartError> {
    let mut absent = None;
    for &address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(source) if source.kind() == ErrorKind::AddrNotAvailable => {
                absent.get_or_insert(StartError::Listen { address, source });
            }
            // Another address would belong to another service, or be one that no caller looks for.
            Err(source) => return Err(StartError::Listen { address, source }),
        }
    }
    let no_address = || StartError::Listen {
        address: SocketAddr::from(([0, 0, 0, 0], 0)),
        source: ErrorKind::AddrNotAvailable.into(),
    };
    Err(absent.unwrap_or_else(no_address))
}

impl Application {
    /// Listens, opens the store and starts the counter.
    ///
    /// # Errors
    /// Fails if the address is in use, or a file can't be opened. An unreachable Redis is no error.
    pub async fn build(config: &Config, prepared: Prepared) -> Result<Self, StartError> {
        let Prepared { listen, authenticator, tls, rules, redis } = prepared;
        let listener = listener(&listen).await?;
        let listening = |source| StartError::Listen { address: listen[0], source };
        let address = listener.local_addr().map_err(listening)?;
        let (authenticator, tls) = (Arc::new(authenticator), tls.map(Arc::new));

        // Runs next to the store's own connections, so that a problem is known in time.
        let examined = redis.map(|redis| tokio::spawn(async move { redis.run().await }));
        let store = open_store(config).await?;
        let recorder = Recorder::install(store.name())?;
        let counting = CounterConfig {
            batch: config.batch,
            catalogue: config.catalogue,
            degraded: config.degraded,
            spool: config.spool,
            write_timeout: config.store.write_timeout(),
        };
        // A spool would be on the same disk as the embedded store, and fail with it.
        let spool_dir = config.redis.url.as_ref().map(|_| config.data_dir.clone());
        let starting = move || {
            let clock = Arc::new(TrustedClock::start());
            Counter::start(store, clock, Arc::new(rules), counting, spool_dir.as_deref())
        };
        let counter = Arc::new(tokio::task::spawn_blocking(starting).await??);
        // With Redis, it is the spool that creates the data directory.
        authenticator.remember_tokens();
        let tokens = authenticator.tokens();
        if tokens > 0 {
            tracing::info!(tokens, "tokens in force: {tokens}");
        }
        if let Some(examined) = examined {
            tokio::spawn(report_redis(examined, Arc::clone(&counter)));
        }
        let recorder = Arc::new(recorder);
        let keys = config.key_mapping();
        telemetry::key_checksum(keys.checksum());
        let state = SharedState {
            counter: Arc::clone(&counter),
            authenticator: Arc::clone(&authenticator),
            recorder: Arc::clone(&recorder),
            keys: Arc::new(keys),
            anomaly: config.anomaly,
            http: config.http,
            alertmanager: config.alertmanager,
            page: config.page,
        };
        let exposure = Exposure {
            browser: config.browser.clone(),
            proxy: config.proxy.clone(),
            is_local: address.ip().is_loopback(),
            has_tls: tls.is_some(),
        };
        let service = Arc::new(http::service(AppState::from(state), exposure));
        Ok(Self {
            listener,
            address,
            service,
            counter,
            authenticator,
            recorder,
            tls,
            limits: config.http,
        })
    }

    /// Returns the address that it listens on; port 0 is replaced by the actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` completes, then answers the accepted requests and closes the store.
    /// Reloads the files of secrets and of rules on each of `hangups`.
    pub async fn run(self, stop: impl Future<Output = ()> + Send, hangups: Signal) {
        let Self { listener, address, service, counter, authenticator, recorder, tls, limits } =
            self;
        let reloaded = Arc::clone(&counter);
        let reloading = tokio::spawn(reload(authenticator, tls.clone(), reloaded, hangups));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let maintenance = tokio::spawn(maintain(Arc::clone(&counter), recorder));
        tracing::info!(%address, "listening on {scheme}://{address}");

        let deadline = http::serve(listener, tls, service, limits, stop).await;
        maintenance.abort();
        reloading.abort();
        let deadline = deadline.max(time::Instant::now() + MIN_CLOSE_TIME);
        if time::timeout_at(deadline, counter.close()).await.is_err() {
            tracing::warn!("the store was not closed in time");
        }
        telemetry::summarise_log_at_end();
        tracing::info!("stopped");
    }
}

async fn open_store(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    if let Some(url) = &config.redis.url {
        tracing::info!(%url, "using Redis at {url}");
        return Ok(Arc::new(RedisStore::connect(&config.redis, config.recording(), url).await?));
    }
    let (data_dir, recording, limits) = (config.data_dir.clone(), config.recording(), config.store);
    let shown = data_dir.display().to_string();
    tracing::info!(data_dir = shown, "using the embedded store in {shown}");
    let opened =
        tokio::task::spawn_blocking(move || EmbeddedStore::open(&data_dir, recording, limits))
            .await?;
    Ok(Arc::new(opened?))
}

/// Logs problems with Redis at the start, rather than when the first write has to wait.
async fn report_redis(
    examined: JoinHandle<Result<RedisReport, StoreError>>,
    counter: Arc<Counter>,
) {
    match examined.await {
        // The task was aborted.
        Err(_) => {}
        Ok(Ok(report)) => tracing::info!("Redis at startup: {}", report.brief()),
        Ok(Err(fault)) => counter.report_fault_at_start(&fault).await,
    }
}

async fn reload(
    authenticator: Arc<Authenticator>,
    tls: Option<Arc<Tls>>,
    counter: Arc<Counter>,
    mut hangups: Signal,
) {
    while hangups.recv().await.is_some() {
        match tls.as_ref().map(|tls| tls.reload()) {
            Some(Err(error)) => {
                tracing::error!(%error, "the certificate was not reloaded, and the previous one \
                                         remains in use: {error}");
            }
            Some(Ok(())) => tracing::info!("the certificate is reloaded"),
            None => {}
        }
        match authenticator.reload(SystemClock.now()) {
            Ok(()) => {
                let tokens = authenticator.tokens();
                tracing::info!(tokens, "reloaded, tokens in force: {tokens}");
            }
            Err(error) => {
                tracing::error!(%error, "the tokens were not reloaded, and the previous ones \
                                         remain in force: {error}");
            }
        }
        let counter = Arc::clone(&counter);
        // The largest rules take seconds to compile.
        let reloading = tokio::task::spawn_blocking(move || reload_rules(&counter));
        // An error means that the process ends.
        let _ = reloading.await;
    }
}

fn reload_rules(counter: &Counter) {
    match counter.rules().reload(counter.now()) {
        Ok(Some(rules)) => tracing::info!(rules, "reloaded: {rules} rules are in force"),
        Ok(None) => {}
        Err(error) => tracing::error!(%error, "the rules were not reloaded, and the previous ones \
                                               remain in force: {error}"),
    }
}

async fn maintain(counter: Arc<Counter>, recorder: Arc<Recorder>) {
    let mut ticks = time::interval(MAINTENANCE_INTERVAL);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        recorder.keep_up();
        telemetry::summarise_log(Instant::now());
        counter.maintain().await;
    }
}
